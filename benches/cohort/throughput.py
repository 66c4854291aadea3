#!/usr/bin/env python3
"""How near the pipeline of `medcam cohort` comes to its floors, and whether its memory grows with the cases.

    throughput.py MODEL FOLDER --program target/release/medcam --work WORK --options="--label 1 --layer tp_conv1"

1. *Alone*: a few volumes go through the program one at a time (one_at_a_time.py), so that each stage runs with
   nothing beside it; the first three cases only warm up.
2. *Cohort*: all volumes at once, as a user runs it. RSS is read 10 times a second (VmRSS in /proc/PID/status);
   a case is finished when its last file was written. `measured` is (last case finished - third) /
   (cases - 3): seconds per case without start-up.

Floors, in seconds per case, from the run *alone*:

    slowest stage = max(read / 1 reader, (discovery + inference + maps) / 1 thread that infers, write / 2 writers)
    cores         = CPU seconds per case (user + system) / cores that the process may use

No schedule of these stages is faster than the greater of the two. What is printed is cases per second of each, and
`measured` over the lower of the two floors' rates. The CPU seconds of the run *cohort* are given too: what is more
there than *alone* is what stages cost each other (caches, memory bandwidth, threads that spin).

Flat memory: the peak of RSS after 20 finished cases over the peak before, and the slope of a line through the
samples after 20 finished cases, in MiB per 100 cases.
"""

import argparse
import json
import shlex
import shutil
import statistics
from pathlib import Path

import common
import one_at_a_time

READERS, WRITERS = 1, 2


def floors(alone, cores):
    """Seconds per case: of each stage with its threads, and of the cores."""
    stages = {
        "read": alone["read"] / READERS,
        "inference and maps": alone["discovery"] + alone["inference"] + alone["maps"],
        "write": alone["write"] / WRITERS,
    }
    return stages, alone["cpu"] / cores


def memory(run, begin):
    """Peaks of RSS before and after `begin` finished cases, and the slope after it."""
    seen = [(run.finished_at(at), rss) for at, rss, _ in run.samples]
    before, after = ([s for s in seen if (s[0] >= begin) == late] for late in (False, True))
    if not before or len({cases for cases, _ in after}) < 2:
        return None
    slope = statistics.linear_regression(*zip(*after)).slope
    peaks = [max(rss for _, rss in part) for part in (before, after)]
    return {"peak_before_mib": peaks[0], "peak_after_mib": peaks[1], "mib_per_100_cases": slope * 100}


def steady_cpu(run):
    """CPU seconds per case between the first case and the last; None if there are too few samples."""
    between = [(run.finished_at(at), cpu) for at, _, cpu in run.samples if run.first <= at <= run.finished[-1]]
    if len({cases for cases, _ in between}) < 3:
        return None
    return statistics.linear_regression(*zip(*between)).slope


def draw(run, begin, path):
    """RSS against finished cases."""
    plots = common.pyplot()
    figure, axes = plots.subplots(figsize=(7, 3))
    axes.plot([run.finished_at(at) for at, *_ in run.samples], [rss for _, rss, _ in run.samples], ".-", ms=2, lw=0.6)
    axes.axvline(begin, color="0.5", lw=0.8, ls="--")
    axes.set(xlabel="finished cases", ylabel="resident memory, MiB", xlim=(0, len(run.finished)))
    axes.set_ylim(0, 1.1 * run.peak_mib)
    common.save_plot(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path, help="folder of .nii.gz volumes")
    common.program_arguments(parser)
    parser.add_argument("--options", default="", help='options of the command, in one word: --options="--label 1"')
    parser.add_argument("--count", type=int, help="take only the first volumes")
    parser.add_argument("--serial", type=int, default=9, help="volumes of the run alone [default: 9]")
    parser.add_argument("--begin", type=int, default=20, help="finished cases from which memory is flat")
    parser.add_argument("--plot", type=Path, help="figure of memory, such as docs/images/cohort_memory.png")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.nii.gz"))[: arguments.count]
    if min(len(files), arguments.serial) < 3:
        parser.error("takes three volumes or more")
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    options = [*shlex.split(arguments.options), "--threads", arguments.threads, "--device", "cpu"]

    def words(out):
        return lambda inputs: [arguments.program, arguments.command, arguments.model, *inputs, "-o", out, *options]

    alone_out, out = work / "alone", work / "cohort"
    alone = one_at_a_time.run(words(alone_out), alone_out, files[: arguments.serial], arguments.threads)
    shutil.rmtree(out, ignore_errors=True)
    ids = [file.name.removesuffix(".nii.gz") for file in files]
    run = common.Run(words(out)(files), out, ids, arguments.threads).wait()

    stages, cores = floors(alone, arguments.threads)
    slowest = max(stages, key=stages.get)
    floor = max(stages[slowest], cores)
    seconds = [*((f"{name}, alone", value) for name, value in stages.items()), ("cores", cores)]
    seconds += [("measured", run.steady), ("measured, whole process", run.seconds / len(files))]
    print(f"{len(files)} cases, {arguments.threads} cores; {run.files} files, {run.bytes / 1e6:.1f} MB written")
    print(f"slowest stage: {slowest}\n")
    rows = [(name, f"{1e3 * s:.1f}", f"{1 / s:.2f}", f"{floor / s:.3f}") for name, s in seconds]
    common.table(("", "ms per case", "cases/s", "rate over that of the floor"), rows)
    cpu = steady_cpu(run)
    print(f"\nCPU seconds per case: {alone['cpu']:.3f} alone, {cpu or float('nan'):.3f} in the cohort")
    print(f"start of the process to the first finished case: {run.first:.2f} s; peak {run.peak_mib:.0f} MiB")
    flat = memory(run, arguments.begin)
    if flat:
        ratio = flat["peak_after_mib"] / flat["peak_before_mib"]
        print(f"peak after {arguments.begin} cases over the peak before: {ratio:.3f}; ", end="")
        print(f"slope {flat['mib_per_100_cases']:+.2f} MiB per 100 cases")
    if arguments.json:
        floor_seconds = {"stages": stages, "slowest": slowest, "cores": cores, "ratio": floor / run.steady}
        figures = {"machine": common.machine(), "options": arguments.options, "cases": len(files)}
        figures |= {"threads": arguments.threads, "alone": alone, "floors": floor_seconds, "measured": run.record()}
        figures |= {"cpu_per_case": cpu, "memory": flat, "samples": run.samples, "finished": run.finished}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        draw(run, arguments.begin, arguments.plot)


if __name__ == "__main__":
    main()
