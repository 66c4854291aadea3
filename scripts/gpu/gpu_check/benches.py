"""The benchmarks of kernels and chains: ours and libtorch's calls from Rust, torch's from Python."""

import json

from .steps import FAILED, PASSED, ending, last_line


def run_benches(run, machine, bundle, measured):
    """Fills `measured` with what the two programs wrote: "ops" and "torch"."""
    trial = ["--test"] if run.trial else []
    if run.wanted("bench: ops"):
        results = run.scratch / "ops.json"
        # Both stop by themselves, with what they have by then, and leave time for each other.
        seconds = stopping(run, 240, reserved=150)
        command = [bundle / "bin" / "ops", "--cuda", "--seconds", seconds, *trial]
        environment = machine.environment(
            MEDCAM_BENCH_JSON=results, MEDCAM_CACHE_DIR=run.scratch / "kernels"
        )
        measure(run, "bench: ops", command, environment, seconds + 40, results, measured)
    if run.wanted("bench: torch"):
        results = run.scratch / "torch.json"
        seconds = stopping(run, 300)
        command = [machine.python, bundle / "gpu_check" / "torch_baselines.py"]
        command += ["--sizes", bundle / "sizes.json", "--results", results]
        command += ["--seconds", seconds, "--device", machine.device]
        command += ["--trial"] if run.trial else []
        environment = machine.environment(
            TORCHINDUCTOR_CACHE_DIR=run.scratch / "inductor",
            TRITON_CACHE_DIR=run.scratch / "triton",
        )
        measure(run, "bench: torch", command, environment, seconds + 40, results, measured)


def stopping(run, most_seconds, reserved=0):
    """The seconds after which a program shall begin nothing new."""
    return max(5, int(min(run.left() - 40 - reserved, most_seconds)))


def measure(run, name, command, environment, most_seconds, results, measured):
    """Runs a program that writes rows and problems."""
    ended = run.command(name, command, environment, most_seconds)
    # What was measured before a program failed or was stopped counts all the same.
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    measured[name.split(": ")[1]] = found
    if not ended:
        return
    rows, problems = len(found.get("rows", [])), found.get("problems", [])
    if ended.status != 0:
        reason = f"{last_line(ended.output)} ({ending(ended.status)})"
        run.add(name, FAILED, reason, ended.seconds)
    elif problems or rows == 0:
        reason = f"{rows} figures; {'; '.join(problems[:3])}"
        run.add(name, FAILED, reason, ended.seconds)
    else:
        run.add(name, PASSED, f"{rows} figures", ended.seconds)
