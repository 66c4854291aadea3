"""gpu-check: the order of the steps, and the exit status."""

import argparse
import datetime
import json
import shutil
import sys
from pathlib import Path

from . import benches, checks, networks
from .machine import Machine
from .report import Report
from .steps import FAILED, PARTS, Run

BUNDLE = Path(__file__).resolve().parents[1]
# Seconds for each part: a command on a machine that is lent may often take ten minutes at most.
BUDGET = 480


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
        help=f"a part ({', '.join(PARTS)}), a group of steps such as tests, or one step such as "
        "'tests: cuda'; may be repeated",
    )
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch")
    parser.add_argument("--sanitizer", help="compute-sanitizer, or a folder that it is in")
    parser.add_argument("--driver", help="a folder whose libcuda.so.1 stands in for the system's")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="where libtorch computes"
    )
    parser.add_argument("--trial", action="store_true", help="few small sizes, whether all of it runs")
    parser.add_argument(
        "--budget", type=float, help=f"seconds for all ({BUDGET} for each part that is asked for)"
    )
    options = parser.parse_args()
    known = [*PARTS, *(group for groups in PARTS.values() for group in groups)]
    for step in options.only:
        if step.split(":")[0] not in known:
            parser.error(f"--only {step}: expected {', '.join(known)}, or a step of these")
    return options


def budget(options):
    """Seconds for all, as asked for or by the parts that are run."""
    if options.budget:
        return options.budget
    asked = {step.split(":")[0] for step in options.only}
    parts = [part for part, groups in PARTS.items() if not asked or asked & {part, *groups}]
    return BUDGET * len(parts)


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
    run = Run(folder, budget(options), options.only, options.trial)
    print(f"gpu-check: results go to {folder}", flush=True)
    run.scratch.mkdir(exist_ok=True)
    machine = Machine(options)
    described = json.loads((BUNDLE / "bundle.json").read_text(encoding="utf-8"))
    measured = {}
    report = Report(run, machine, described, measured, start)

    def after_each():
        machine.note_clocks(run.steps[-1].name)
        report.write()

    run.after_each = after_each
    machine.report(run)
    arguments = (run, machine, BUNDLE)
    groups = (
        ("tests", checks.run_tests, arguments),
        ("ceilings", checks.run_ceilings, (*arguments, measured)),
        ("sanitizer", checks.run_sanitizer, arguments),
        ("bench", benches.run_benches, (*arguments, measured)),
        ("networks", networks.run_networks, (*arguments, measured)),
    )
    for name, group, given in groups:
        try:
            group(*given)
        except KeyboardInterrupt:
            run.add(f"{name}: gpu-check itself", FAILED, "interrupted")
            break
        except Exception as error:  # pylint: disable=broad-except
            # The results of the other steps are worth more than this one's traceback.
            run.add(f"{name}: gpu-check itself", FAILED, f"{type(error).__name__}: {error}")
    shutil.rmtree(run.scratch, ignore_errors=True)
    table = report.write()
    print("\n" + table)
    print("gpu-check:", report.pack())
    return 0 if run.good() else 1
