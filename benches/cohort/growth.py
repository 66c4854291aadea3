#!/usr/bin/env python3
"""How time and peak memory of `medcam cohort` grow: with cases, with voxels, with classes, and with layers.

    growth.py --program target/release/medcam --work WORK --json growth.json --plot docs/images/cohort_growth.png

One small U-Net (models.py, fixed seed) on volumes made from a real MRI (make_cohort.py). In each series one thing
grows and all else is fixed:

    cases    5 to 60 volumes of 64x64x64, one class, the bottleneck
    voxels   64 to 192 cubed, 6 volumes, one class, the bottleneck
    classes  --label with 1 to 8 classes, 8 volumes of 64x64x64, the bottleneck
    layers   --layer with 1 to all 14 instance norms of the network, 8 volumes of 64x64x64, one class

`seconds` is the time of the whole process for the series of cases; for the others (last case finished - third) /
(cases - 3), without start-up. `MiB` is the peak of the process' resident memory (VmHWM). All points are measured
once per round, round after round; given are medians and ranges. Each series ends with the least-squares line
through the medians: what one more case, million voxels, class or layer adds, and R^2.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path

import common
import make_cohort
import models
import torch

# By series: unit of one step, the points, and those of a trial.
SERIES = {
    "cases": ("case", (5, 10, 20, 40, 60), (3, 5)),
    "voxels": ("million voxels", (64, 96, 128, 160, 192), (32, 48)),
    "classes": ("class", (1, 2, 4, 8), (1, 3)),
    "layers": ("layer", (1, 2, 4, 8, 0), (1, 3)),
}
# Volumes of a run, where their number is fixed.
VOLUMES = {"voxels": 6, "classes": 8, "layers": 8}


class Point:
    """One run: what is fixed, but for one thing."""

    def __init__(self, series, value, norms, small):
        self.series = series
        self.cases = value if series == "cases" else min(VOLUMES[series], 3 if small else 99)
        self.extent = value if series == "voxels" else 32 if small else 64
        self.labels = list(range(value)) if series == "classes" else [1]
        # Spread over the network; 0: all.
        count = (value or len(norms)) if series == "layers" else 0
        chosen = [norms[at * len(norms) // count] for at in range(count)]
        self.layers = chosen or [models.BOTTLENECK["small"]]
        self.x = {"voxels": self.extent**3 / 1e6, "layers": count}.get(series, value)
        self.runs = []

    def run(self, arguments, model):
        """Measures it once more."""
        files = make_cohort.make(arguments.work / f"volumes{self.extent}x{self.cases}", self.cases, [self.extent] * 3)
        out = arguments.work / "maps"
        shutil.rmtree(out, ignore_errors=True)
        words = [arguments.program, arguments.command, model, *files, "-o", out, "--device", "cpu"]
        words += ["--threads", arguments.threads, "--layer", ",".join(self.layers)]
        words += ["--label", ",".join(map(str, self.labels))]
        ids = [file.name.removesuffix(".nii.gz") for file in files]
        self.runs.append(common.Run(words, out, ids, arguments.threads, hertz=40).wait())
        expected = self.cases * len(self.labels) * len(self.layers)
        assert self.runs[-1].files == expected, f"{self.runs[-1].files} maps, not {expected}"

    def seconds(self):
        """Of each round."""
        return [run.seconds if self.series == "cases" else run.steady for run in self.runs]

    def mib(self):
        """Of each round."""
        return [run.peak_mib for run in self.runs]


def line(points, values):
    """Slope and R^2 of the line through the medians."""
    xs, ys = [point.x for point in points], [statistics.median(values(point)) for point in points]
    if len(set(ys)) == 1:
        return 0.0, 1.0
    return statistics.linear_regression(xs, ys).slope, statistics.correlation(xs, ys) ** 2


def show(series, unit, points):
    """Prints a series; returns it for JSON."""
    print(f"\n{series}")
    rows = [(f"{p.x:g}", common.middle(p.seconds()), f"{statistics.median(p.mib()):.0f}") for p in points]
    common.table((series, "seconds", "MiB"), rows)
    lines = {}
    for name, values in (("seconds", Point.seconds), ("MiB", Point.mib)):
        slope, fit = line(points, values)
        lines[name] = {"slope": slope, "r_squared": fit}
        print(f"{name}: {slope:+.4g} per {unit}, R^2 {fit:.3f}")
    measured = [{"x": p.x, "seconds": p.seconds(), "mib": p.mib(), "cases": p.cases} for p in points]
    return {"unit": unit, "lines": lines, "points": measured}


def draw(found, path):
    """A panel for each series: seconds above, memory below."""
    plots = common.pyplot()
    figure, axes = plots.subplots(2, len(found), figsize=(3 * len(found), 5), squeeze=False)
    for column, (series, points) in enumerate(found.items()):
        xs = [point.x for point in points]
        for row, values in enumerate((Point.seconds, Point.mib)):
            measured = [values(point) for point in points]
            middles = [statistics.median(of_point) for of_point in measured]
            below = [middle - min(of_point) for middle, of_point in zip(middles, measured)]
            above = [max(of_point) - middle for middle, of_point in zip(middles, measured)]
            panel = axes[row][column]
            panel.errorbar(xs, middles, [below, above], marker="o", ms=4, lw=1, capsize=2)
            panel.set(xlim=(0, 1.05 * max(xs)), ylim=(0, 1.1 * max(map(max, measured))))
        whole = "s, whole run" if series == "cases" else "s per case"
        axes[0][column].set(title=series, ylabel=whole)
        axes[1][column].set(ylabel="peak MiB", xlabel="million voxels" if series == "voxels" else f"number of {series}")
    figure.tight_layout()
    common.save_plot(figure, path)


def norms_of(model):
    """The instance norms of a TorchScript file, behind which no other cancels the weights of Grad-CAM.

    DynUNet's blocks lie under `skip_layers` and under a second name, of which only the first runs.
    """
    named = torch.jit.load(str(model)).named_modules()
    names = [name for name, part in named if getattr(part, "original_name", "") == "InstanceNorm3d"]
    return [name for name in names if name.startswith("skip_layers")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.program_arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--series", default=",".join(SERIES), help="only these, with commas")
    parser.add_argument("--small", action="store_true", help="a trial of few and small volumes")
    parser.add_argument("--plot", type=Path, help="figure, such as docs/images/cohort_growth.png")
    arguments = parser.parse_args()
    model, module = models.make(arguments.work / "models", "small")
    norms = norms_of(model)
    assert len(norms) == sum(isinstance(part, torch.nn.InstanceNorm3d) for part in module.modules())
    found = {}
    for series in arguments.series.split(","):
        values = SERIES[series][2 if arguments.small else 1]
        found[series] = [Point(series, value, norms, arguments.small) for value in values]
    for _ in range(arguments.rounds):
        for point in (point for points in found.values() for point in points):
            point.run(arguments, model)
    print(f"{arguments.threads} threads and cores, {arguments.rounds} rounds: median (range)")
    figures = {"machine": common.machine(), "threads": arguments.threads, "rounds": arguments.rounds}
    figures["series"] = {series: show(series, SERIES[series][0], points) for series, points in found.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        draw(found, arguments.plot)


if __name__ == "__main__":
    main()
