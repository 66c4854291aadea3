"""The tests of the bundle, plain and under compute-sanitizer; the bandwidth of the device's memory."""

import json
import re
import shutil
from pathlib import Path

from .steps import FAILED, NOT_RUN, PASSED, ending, last_line

RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.MULTILINE)
FAILED_TEST = re.compile(r"^test (\S+) \.\.\. FAILED", re.MULTILINE)
# What the first test that failed said.
PANIC = re.compile(r"^thread .* panicked at .*:\n(.+)", re.MULTILINE)

# What each tool prints at the end when it has found nothing.
TOOLS = {
    "memcheck": re.compile(r"ERROR SUMMARY: 0 errors"),
    "racecheck": re.compile(r"RACECHECK SUMMARY: 0 hazards"),
    "initcheck": re.compile(r"ERROR SUMMARY: 0 errors"),
    "synccheck": re.compile(r"ERROR SUMMARY: 0 errors"),
}
NO_SANITIZER = (
    "no compute-sanitizer: pip install nvidia-cuda-sanitizer-api beside torch, or name its folder "
    "with --sanitizer"
)
# The tests that are small enough to run under a sanitizer.
SMALL = "small_"


def run_tests(run, machine, bundle):
    """All tests of CUDA, and one map from the command line."""
    described = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    environment = _environment(run, machine, bundle)
    for test in described["tests"]:
        name = f"tests: {test['name']}"
        if not run.wanted(name):
            continue
        command = [bundle / "bin" / test["name"], *test["arguments"]]
        if run.trial and test["name"] == "cuda":
            command.append(SMALL)
        ended = run.command(name, command, environment, 150)
        if ended:
            _judge(run, name, ended)
    if run.wanted("tests: program"):
        _run_program(run, machine, environment, bundle)
    if run.wanted("tests: python"):
        _run_python(run, machine, environment, bundle)


def _environment(run, machine, bundle):
    # On the CPU, the tests of libtorch's device are skipped.
    required = {"MEDCAM_REQUIRE_CUDA": 1} if machine.device == "cuda" else {}
    return machine.environment(
        **required,
        MEDCAM_NETWORKS=bundle / "networks",
        # Kernels are compiled here and now, not found in a cache of another run.
        MEDCAM_CACHE_DIR=run.scratch / "kernels",
        # Single precision throughout: TF32 rounds convolutions to 11 bits.
        NVIDIA_TF32_OVERRIDE=0,
        RUST_BACKTRACE=0,
    )


def _judge(run, name, ended):
    """Whether a program of tests ran tests, all of them good."""
    result = RESULT.search(ended.output)
    failures = FAILED_TEST.findall(ended.output)
    if not result:
        reason = f"{last_line(ended.output)} ({ending(ended.status)})"
        run.add(name, FAILED, reason, ended.seconds)
        return
    passed, failed = int(result[1]), int(result[2])
    counts = {"passed": passed, "failed": failed, "failures": failures}
    if ended.status == 0 and passed > 0:
        run.add(name, PASSED, f"{passed} tests", ended.seconds, **counts)
    elif not failures:
        run.add(name, FAILED, f"{passed} tests ran ({ending(ended.status)})", ended.seconds, **counts)
    else:
        panic = PANIC.search(ended.output)
        names = ", ".join(failures[:3] + ["..."] * (len(failures) > 3))
        reason = f"{failed} of {passed + failed}: {names}; {panic[1] if panic else ending(ended.status)}"
        run.add(name, FAILED, reason, ended.seconds, **counts)


def _run_program(run, machine, environment, bundle):
    """A map of a 3D network on the device, as a user makes it."""
    name, output = "tests: program", run.scratch / "maps"
    networks = bundle / "networks"
    manifest = json.loads((networks / "manifest.json").read_text(encoding="utf-8"))
    network = next(network for network in manifest["networks"] if network["name"] == "unet3d")
    model, image = networks / network["traced"], networks / network["input"]
    command = [bundle / "bin" / "medcam", "map", model, image, "-o", output]
    command += ["--device", machine.device]
    ended = run.command(name, command, environment, 60)
    if not ended:
        return
    maps = [path for path in Path(output).rglob("*") if path.is_file()]
    shutil.rmtree(output, ignore_errors=True)
    if ended.status == 0 and maps:
        run.add(name, PASSED, f"{len(maps)} files", ended.seconds)
    else:
        reason = f"{last_line(ended.output)} ({ending(ended.status)})"
        run.add(name, FAILED, reason, ended.seconds)


def _run_python(run, machine, environment, bundle):
    """Live modules and tensors of the Python package on the device."""
    name = "tests: python"
    packages = [str(bundle / "python"), environment.get("PYTHONPATH")]
    environment = {**environment, "PYTHONPATH": ":".join(filter(None, packages))}
    command = [machine.python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    ended = run.command(name, [*command, bundle / "python_tests"], environment, 120)
    if not ended:
        return
    passed = re.search(r"(\d+) passed", ended.output)
    if "No module named pytest" in ended.output:
        run.add(name, NOT_RUN, "no pytest: pip install pytest beside torch", ended.seconds)
    elif not passed and "skipped" in ended.output and machine.device == "cpu":
        run.add(name, NOT_RUN, "no CUDA device", ended.seconds)
    elif ended.status == 0 and passed:
        run.add(name, PASSED, f"{passed[1]} tests", ended.seconds)
    else:
        reason = f"{last_line(ended.output)} ({ending(ended.status)})"
        run.add(name, FAILED, reason, ended.seconds)


def run_sanitizer(run, machine, bundle):
    """The small tests under each tool of compute-sanitizer."""
    environment = _environment(run, machine, bundle)
    for tool, clean in TOOLS.items():
        name = f"sanitizer: {tool}"
        if not run.wanted(name):
            continue
        if not machine.sanitizer:
            run.add(name, NOT_RUN, NO_SANITIZER)
            continue
        command = [machine.sanitizer, "--tool", tool, "--error-exitcode", "99"]
        # How many parameters a kernel has is found out by a call that fails: no error.
        command += ["--report-api-errors", "no"]
        # In one thread, so that what it finds stands behind the test that it belongs to.
        command += [bundle / "bin" / "cuda", SMALL, "--skip", "on_host::", "--test-threads=1"]
        ended = run.command(name, command, environment, 80)
        if not ended:
            continue
        if ended.status == 0 and clean.search(ended.output) and RESULT.search(ended.output):
            run.add(name, PASSED, f"{RESULT.search(ended.output)[1]} tests", ended.seconds)
        else:
            lines = [line for line in ended.output.splitlines() if line.startswith("=========")]
            reason = f"{last_line(chr(10).join(lines) or ended.output)} ({ending(ended.status)})"
            run.add(name, FAILED, reason, ended.seconds)


def run_ceilings(run, machine, bundle, measured):
    """What the device's memory can do, without any op."""
    name = "ceilings"
    if not run.wanted(name):
        return
    results = run.scratch / "ceilings.json"
    command = [bundle / "bin" / "ops", "--cuda", "--ceilings", *(["--test"] if run.trial else [])]
    environment = _environment(run, machine, bundle)
    environment["MEDCAM_BENCH_JSON"] = str(results)
    ended = run.command(name, command, environment, 60)
    if not ended:
        return
    if ended.status != 0 or not results.is_file():
        reason = f"{last_line(ended.output)} ({ending(ended.status)})"
        run.add(name, FAILED, reason, ended.seconds)
        return
    measured[name] = json.loads(results.read_text(encoding="utf-8"))
    figures = [measured[name][f"{what}_bandwidth"] / 1e9 for what in ("read", "copy")]
    reason = f"reads {figures[0]:.0f} GB/s, copies {figures[1]:.0f} GB/s"
    run.add(name, PASSED, reason, ended.seconds)
