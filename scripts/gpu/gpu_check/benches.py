"""The benchmarks: our kernels and libtorch's calls from Rust, torch eager and compiled from Python."""

import json

from .steps import FAILED, PASSED, ending, last_line


def run_benches(run, machine, bundle, measured):
    """Fills `measured` with what the two programs wrote: "ops" and "torch"."""
    if run.wanted("bench: ops"):
        results = run.folder / "ops.json"
        # Criterion takes as long as it is told for each; the defaults are for a CPU.
        command = [bundle / "bin" / "ops", "--bench", "/cuda/", "--noplot"]
        command += ["--warm-up-time", "0.05", "--measurement-time", "0.2"]
        environment = machine.environment(
            MEDCAM_BENCH_JSON=results,
            MEDCAM_CACHE_DIR=run.scratch / "kernels",
            CRITERION_HOME=run.scratch / "criterion",
        )
        _measure(run, "bench: ops", command, environment, 180, results, measured)
    if run.wanted("bench: torch"):
        results = run.folder / "torch.json"
        program = bundle / "gpu_check" / "torch_baselines.py"
        # It stops by itself, with what it has by then.
        seconds = max(0, int(min(run.left() - 20, 180)))
        command = [machine.python, program, bundle / "sizes.json", results, seconds]
        environment = machine.environment(
            TORCHINDUCTOR_CACHE_DIR=run.scratch / "inductor",
            TRITON_CACHE_DIR=run.scratch / "triton",
        )
        _measure(run, "bench: torch", command, environment, seconds + 60, results, measured)


def _measure(run, name, command, environment, most_seconds, results, measured):
    ended = run.command(name, command, environment, most_seconds)
    # What was measured before a program failed or was stopped counts all the same.
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    measured[name.split(": ")[1]] = found
    if not ended:
        return
    rows = len(found.get("rows", [])) + sum(len(place["rows"]) for place in found.get("places", []))
    problems = found.get("problems", [])
    if ended.status != 0:
        reason = f"{last_line(ended.output)} ({ending(ended.status)})"
        run.add(name, FAILED, reason, ended.seconds)
    elif rows == 0:
        run.add(name, FAILED, "nothing was measured: no CUDA device for libtorch", ended.seconds)
    elif problems:
        run.add(name, FAILED, f"{rows} figures; {'; '.join(problems[:3])}", ended.seconds)
    else:
        run.add(name, PASSED, f"{rows} figures", ended.seconds)
