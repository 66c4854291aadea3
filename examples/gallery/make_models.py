"""Makes the gallery's models and inputs: `make_models.py FOLDER`.

Run by `scripts/setup.py gallery`, with MEDCAM_DATA naming the folder of the fetched packages and the
packages of scripts/requirements-gallery.txt on the path. What it writes:

tumor_vgg16.pt      2D classification: a published network, converted from ONNX and checked against it
head_slice.png      its input: an axial slice of a head MRI
tissue_unet.pt      2D segmentation: a U-Net trained here
brain_slice.nii.gz  its input: a slice that it was not trained on
results.json        what was measured on the way
"""

import json
import os
import sys
from pathlib import Path

import classifier
import tissue
import torch

# The order of sums, and with it the last digits, depends on the number of threads.
THREADS = 2


def main(data, folder):
    """Makes everything; raises where a check fails."""
    torch.set_num_threads(THREADS)
    results = {
        "classification": classifier.make(data, folder),
        "segmentation": tissue.make(data, folder),
    }
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(os.environ["MEDCAM_DATA"]), Path(sys.argv[1]))
