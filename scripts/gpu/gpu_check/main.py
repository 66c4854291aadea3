"""gpu-check: the order of the steps, and the exit status."""

import argparse
import datetime
import shutil
import sys
from pathlib import Path

from . import benches, checks, report
from .machine import Machine
from .steps import FAILED, Run

BUNDLE = Path(__file__).resolve().parents[1]
# Seconds: what an H100 machine is lent for at a time, less the way there and back.
BUDGET = 540
GROUPS = ("tests", "sanitizer", "bench")


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="gpu-check",
        description="Tests, sanitizer runs and timings of the CUDA kernels on this machine. Exit "
        "status 0 if everything was run and is good, 1 if not.",
    )
    parser.add_argument("--output", type=Path, help="folder of the results (default: results-TIME)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        help="tests, sanitizer, bench, or one step such as 'tests: cuda'; may be repeated",
    )
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch")
    parser.add_argument("--sanitizer", help="compute-sanitizer, or a folder that it is in")
    parser.add_argument("--driver", help="a folder whose libcuda.so.1 stands in for the system's")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all (%(default)s)")
    options = parser.parse_args()
    for step in options.only:
        if step.split(":")[0] not in GROUPS:
            parser.error(f"--only {step}: expected {', '.join(GROUPS)}, or a step of these")
    return options


def main():
    """Runs all steps, whatever becomes of each; returns the exit status."""
    options = parse()
    start = datetime.datetime.now()
    folder = options.output or Path(f"results-{start:%Y%m%d-%H%M%S}")
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"gpu-check: --output: {error}")
    run = Run(folder, options.budget, options.only)
    print(f"gpu-check: results go to {folder}", flush=True)
    machine = Machine(options)
    machine.report(run)
    measured = {}
    groups = (
        ("tests", checks.run_tests, (run, machine, BUNDLE)),
        ("sanitizer", checks.run_sanitizer, (run, machine, BUNDLE)),
        ("bench", benches.run_benches, (run, machine, BUNDLE, measured)),
    )
    for name, group, arguments in groups:
        try:
            group(*arguments)
        except KeyboardInterrupt:
            run.add(f"{name}: gpu-check itself", FAILED, "interrupted")
            break
        except Exception as error:  # pylint: disable=broad-except
            # The results of the other steps are worth more than this one's traceback.
            run.add(f"{name}: gpu-check itself", FAILED, f"{type(error).__name__}: {error}")
    shutil.rmtree(run.scratch, ignore_errors=True)
    table = report.write(run, machine, BUNDLE, measured, start)
    print("\n" + table)
    return 0 if run.good() else 1
