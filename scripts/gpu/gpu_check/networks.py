"""Whole networks with their maps, and the profiler over our kernels."""

import csv
import os

from .benches import measure, stopping
from .steps import FAILED, NOT_RUN, PASSED, ending, last_line

# In the order of what matters most.
NAMES = ("dynunet", "resnet50", "r3d_18", "resnet50_batch32")

# Each kernel at the greatest size, and a chain at a small one.
PROFILED = (
    "channel_weights/cuda/f32/1x32x128x",
    "alpha_weights/cuda/f32/1x32x128x",
    "project/cuda/f32/1x32x128x",
    "elementwise/cuda/f32/1x32x128x",
    "guided_activation/cuda/f32/1x32x128x",
    "resample/cuda/f32/1x1x64x",
    "guided_product/cuda/f32/1x1x128x",
    "evaluation_sums/cuda/f32/1x1x128x",
    "grad_cam/cuda/f32/1x320x8x",
)
TRIAL_PROFILED = ("grad_cam/cuda/f32/1x320x8x",)
METRICS = {
    "gpu__time_duration.sum": "time",
    "dram__bytes_read.sum": "read from memory",
    "dram__bytes_write.sum": "written to memory",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory, % of peak",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "multiprocessors, % of peak",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps, % of peak",
    "lts__t_sector_hit_rate.pct": "hits in the second-level cache, %",
    "launch__registers_per_thread": "registers",
    "launch__grid_size": "blocks",
}


def run_networks(run, machine, bundle, measured):
    """Each network in every precision; then ncu."""
    packages = [str(bundle / "python"), os.environ.get("PYTHONPATH")]
    wanted = [name for name in NAMES if run.wanted(f"networks: {name}")]
    for place, network in enumerate(wanted):
        name = f"networks: {network}"
        results = run.scratch / f"{network}.json"
        seconds = stopping(run, 130, reserved=60 * (len(wanted) - place))
        command = [machine.python, bundle / "gpu_check" / "whole_networks.py"]
        command += ["--network", network, "--results", results, "--ops", bundle / "bin" / "ops"]
        command += ["--seconds", seconds, "--device", machine.device]
        command += ["--trial"] if run.trial else []
        environment = machine.environment(
            MEDCAM_CACHE_DIR=run.scratch / "kernels",
            PYTHONPATH=os.pathsep.join(filter(None, packages)),
            PYTHONDONTWRITEBYTECODE=1,
        )
        measure(run, name, command, environment, seconds + 60, results, measured)
    if run.wanted("profile: kernels"):
        _profile(run, machine, bundle, measured)


def _profile(run, machine, bundle, measured):
    name = "profile: kernels"
    program = [bundle / "bin" / "ops", "--cuda", "--calls", 2]
    program += TRIAL_PROFILED if run.trial else PROFILED
    environment = machine.environment(MEDCAM_CACHE_DIR=run.scratch / "kernels")
    if not machine.ncu:
        if run.trial:
            # That what ncu would run runs.
            ended = run.command(name, program, environment, 60)
            if ended and ended.status != 0:
                run.add(name, FAILED, last_line(ended.output), ended.seconds)
                return
        run.add(name, NOT_RUN, "no ncu: neither on the PATH nor in a toolkit")
        return
    # The clocks stay as they are; before each pass the caches are flushed.
    command = [machine.ncu, "--clock-control", "none", "--csv", "--page", "raw"]
    # Ours, by the type at the end of their names: libtorch's make the inputs.
    command += ["--kernel-name", "regex:_(f32|u8)$", "--metrics", ",".join(METRICS), *program]
    ended = run.command(name, command, environment, 120)
    if not ended:
        return
    rows = _rows(ended.output)
    measured["profile"] = rows
    if ended.status == 0 and rows:
        run.add(name, PASSED, f"{len(rows)} kernels", ended.seconds)
    else:
        reason = f"{last_line(ended.output)} ({ending(ended.status)})"
        run.add(name, FAILED, reason, ended.seconds)


def _rows(output):
    """Of each kernel its last launch; the units stand in the line behind the names."""
    lines = [line for line in output.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    units, found = (rows or [{}])[0], {}
    for row in rows[1:]:
        kernel = {"kernel": row.get("Kernel Name")}
        for metric, words in METRICS.items():
            if row.get(metric):
                kernel[words] = f"{row[metric]} {units.get(metric) or ''}".strip()
        # A kernel is launched with other grids for other cases.
        found[kernel["kernel"], kernel.get("blocks")] = kernel
    return list(found.values())
