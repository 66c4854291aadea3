#!/usr/bin/env python3
"""What a cohort costs with `medcam cohort`, and with the loops that one would write in Python.

    against_loops.py FOLDER --program target/release/medcam --work WORK            # DynUNet; volumes of 96x96x96
    against_loops.py FOLDER --program target/release/medcam --work WORK --deepbet  # deepbet's bbox_model; 256x256x256

Arms, each a process over all files of FOLDER (loops.py):

    bare       torch.no_grad loop over the TorchScript model, no maps; it writes the map that the program makes of
               the first file, for each file, so that gzip and the disk have the same to do (`--bare-writes output`:
               the channel of its output that the others explain)
    bare_kept  the same, with the C allocator keeping freed memory, as the program sets it for itself
    m3dcam     M3d-CAM 0.1.22 on the same weights as a torch.nn.Module (not with --deepbet: there is none)
    monai      MONAI's GradCAM on the same (not with --deepbet)
    cohort     the program
    older      another program's `map`, with --older

Alike in all: the model's weights, the files, the layer and the class (Grad-CAM), the cores and threads, and one
.nii.gz of f32 per image, of the image's size, gzip level 1 by the same library (`--gzip`). The number of files and
bytes is printed; bytes differ as far as values do. Reading and writing are part of each time. That the loops prepare
an image as the program does is checked on the model's output for the first file, and printed; so are the maps.

The arms run in turn, in another order each round; what is given is the median over rounds, and of the ratios within
each round to `bare` median and range. `per case` is (last file written - third) / (cases - 3), by the files' time
stamps: steady, without start-up. `first map` is from the start of the process to the first file, `whole` to its end.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

import common
import gzips
import loops
import models
import nibabel
import numpy
import torch

KEPT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**31 - 1), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
HERE = Path(__file__).resolve().parent


class Arms:
    """The command line of each arm."""

    def __init__(self, arguments, files):
        self.arguments, self.files = arguments, files
        if arguments.deepbet:
            self.model = common.data("deepbet-1.0.2/bbox_model.pt")
            self.layer = arguments.layer or "up0.conv1"
            self.names = ["bare", "bare_kept", "cohort"]
        else:
            shape = nibabel.load(files[0]).shape
            self.model, _ = models.make(arguments.work / "models", "dynunet", min(64, *shape))
            self.layer = arguments.layer or models.BOTTLENECK["dynunet"]
            self.names = ["bare", "bare_kept", "m3dcam", "monai", "cohort"]
        self.names += ["older"] * bool(arguments.older)
        if arguments.arms:
            self.names = ["bare", *(name for name in arguments.arms.split(",") if name != "bare")]
        self.library = gzips.build(arguments.work) if arguments.gzip == "libdeflate" else ""
        self.program_options = ["--device", "cpu", "--threads", arguments.threads]
        if arguments.deepbet:
            card = common.CHECKOUT / "examples" / "cards" / "deepbet_bbox.toml"
            self.program_options += ["--card", card]
        self.reference = None

    def make_reference(self):
        """Has the program make the map of the first file; returns how far the loops' output is from the program's."""
        arguments, out = self.arguments, self.arguments.work / "reference"
        shutil.rmtree(out, ignore_errors=True)
        same = ["--layer", self.layer, "--label", arguments.label, *self.program_options, "--save-output"]
        words = [arguments.program, arguments.command, self.model, self.files[0], "-o", out, *same]
        id = self.files[0].name.removesuffix(".nii.gz")
        common.Run(words, out, [id], arguments.threads).wait()
        if arguments.bare_writes == "map":
            self.reference = common.maps_of(out, [id])[id][0]
        _, x = loops.read(self.files[0], arguments.deepbet)
        with torch.no_grad():
            output = torch.jit.load(str(self.model))(x).numpy()
        return float(numpy.abs(output - numpy.load(next(out.rglob("*_output.npy")))).max())

    def words(self, name, out):
        """The command line of an arm."""
        arguments = self.arguments
        same = ["--layer", self.layer, "--label", arguments.label, "--threads", arguments.threads]
        if name in ("cohort", "older"):
            program = (arguments.program, arguments.command) if name == "cohort" else (arguments.older, "map")
            return [*program, self.model, *self.files, "-o", out, *same[:4], *self.program_options]
        loop = [sys.executable, HERE / "loops.py", name.removesuffix("_kept"), self.model, out, *self.files]
        same += ["--libdeflate", self.library, *(["--deepbet"] if arguments.deepbet else [])]
        return [*loop, *same, *(["--reference", self.reference] if self.reference else [])]

    def run(self, name):
        """One run of an arm."""
        out = self.arguments.work / name
        shutil.rmtree(out, ignore_errors=True)
        ids = [file.name.removesuffix(".nii.gz") for file in self.files]
        environment = KEPT if name.endswith("_kept") else None
        return common.Run(self.words(name, out), out, ids, self.arguments.threads, environment).wait()

    def map_of(self, name):
        """What an arm wrote last for the first file."""
        id = self.files[0].name.removesuffix(".nii.gz")
        file = common.maps_of(self.arguments.work / name, [id])[id][0]
        return numpy.asarray(nibabel.load(file).dataobj)


def show(arms, runs):
    """Prints the tables."""
    rows, seconds = [], {}
    for name in arms.names:
        keys = ("steady", "seconds", "first", "peak_mib", "cpu_seconds")
        of_arm = {key: [getattr(run, key) for run in runs[name]] for key in keys}
        bare = {key: [getattr(run, key) for run in runs["bare"]] for key in keys}
        medians = {key: statistics.median(values) for key, values in of_arm.items()}
        ratios, differences = {}, [1e3 * (a - b) for a, b in zip(of_arm["steady"], bare["steady"])]
        for key in ("steady", "seconds"):
            ratios[key] = common.middle([a / b for a, b in zip(of_arm[key], bare[key])])
        low, mid, high = min(differences), statistics.median(differences), max(differences)
        row = [name, f"{1e3 * medians['steady']:.0f} ms", ratios["steady"]]
        row += [f"{mid:+.0f} ({low:+.0f} to {high:+.0f}) ms", f"{medians['first']:.2f} s"]
        row += [f"{medians['seconds']:.1f} s", ratios["seconds"]]
        rows.append([*row, f"{medians['peak_mib']:.0f} MiB"])
        last = runs[name][-1]
        per_case = medians["cpu_seconds"] / len(arms.files)
        seconds[name] = [name, last.files, f"{last.bytes / 1e6:.2f}", f"{per_case:.2f} s"]
    head = ("arm", "per case", "over bare", "minus bare", "first map", "whole", "over bare", "peak memory")
    common.table(head, rows)
    print()
    common.table(("arm", "files", "MB written", "CPU per case, with start-up"), list(seconds.values()))


def agreement(arms):
    """Prints and returns how far the maps of the first file are from those of `cohort`."""
    found = {}
    for name in ("m3dcam", "monai", "older"):
        if name not in arms.names or "cohort" not in arms.names:
            continue
        values = arms.map_of(name)
        values = 1 - values if name == "monai" else values
        found[name] = float(numpy.abs(values - arms.map_of("cohort")).max())
        print(f"first map, {name} against cohort: greatest difference {found[name]:.1e}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of .nii.gz volumes")
    common.program_arguments(parser)
    parser.add_argument("--older", type=Path, help="another medcam program, whose `map` runs too")
    parser.add_argument("--deepbet", action="store_true", help="deepbet's bbox_model with its card")
    parser.add_argument("--layer", help="[default: the bottleneck]")
    parser.add_argument("--label", type=int, default=1)
    parser.add_argument("--count", type=int, help="take only the first volumes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gzip", choices=("libdeflate", "zlib"), default="libdeflate", help="of the Python loops")
    parser.add_argument("--bare-writes", choices=("map", "output"), default="map")
    parser.add_argument("--arms", help="only these, and bare; bare_eager is one more")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.nii.gz"))[: arguments.count]
    if len(files) < 2:
        parser.error("takes two volumes or more")
    arguments.work.mkdir(parents=True, exist_ok=True)
    arms = Arms(arguments, files)
    apart = {"output of bare": arms.make_reference()}
    runs = {name: [] for name in arms.names}
    for number in range(arguments.rounds):
        # Each arm is first once in a while, and none always follows the same.
        order = arms.names[number % len(arms.names) :] + arms.names[: number % len(arms.names)]
        for name in order if number % 2 == 0 else reversed(order):
            runs[name].append(arms.run(name))
    shape = "x".join(map(str, nibabel.load(files[0]).shape))
    print(f"{len(files)} volumes of {shape}, {arms.model.stem}, layer {arms.layer}, class {arguments.label}; ", end="")
    print(f"{arguments.threads} threads and cores, {arguments.rounds} rounds, gzip level 1 by {arguments.gzip}\n")
    show(arms, runs)
    print(f"\noutput for the first file, bare against cohort: greatest difference {apart['output of bare']:.1e}")
    apart |= agreement(arms)
    if arguments.json:
        figures = {"machine": common.machine(), "volumes": len(files), "shape": shape, "model": arms.model.stem}
        figures |= {"layer": arms.layer, "label": arguments.label, "threads": arguments.threads}
        figures |= {"gzip": f"level 1, {arguments.gzip}", "greatest_difference": apart}
        figures |= {"arms": {name: [run.record() for run in of_arm] for name, of_arm in runs.items()}}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
