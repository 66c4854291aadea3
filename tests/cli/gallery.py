"""Untrained networks and made-up images under the names of the gallery's: `gallery.py FOLDER`."""

import sys
from pathlib import Path

import nibabel
import numpy
import torch
from PIL import Image

folder = Path(sys.argv[1])
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "gallery"))
from networks import TUMOR_SIZE, TissueNet, TumorNet  # noqa: E402

torch.manual_seed(0)
torch.set_num_threads(2)
for name, network, shape in (
    ("tumor_vgg16", TumorNet(), (1, 3, TUMOR_SIZE, TUMOR_SIZE)),
    ("tissue_unet", TissueNet(), (1, 1, 48, 56)),
):
    torch.jit.trace(network.eval(), torch.rand(shape)).save(str(folder / f"{name}.pt"))

slice_ = numpy.add.outer(numpy.hanning(48), numpy.hanning(56)).astype(numpy.float32)
nibabel.save(nibabel.Nifti1Image(slice_[..., None], numpy.eye(4)), folder / "brain_slice.nii.gz")
Image.fromarray((slice_ * 127).astype(numpy.uint8)).save(folder / "head_slice.png")
