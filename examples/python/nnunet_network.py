"""nnU-Net's network with deep supervision, and a map of each class.

Usage: nnunet_network.py FOLDER
"""

import sys
from pathlib import Path

import numpy
import torch
from torch import nn

import medcam_rs

try:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
except ImportError:
    print("skipped: dynamic-network-architectures is not installed")
    sys.exit()

folder = Path(sys.argv[1])
torch.manual_seed(0)
# As nnU-Net's plans say, smaller; random weights, so the map means nothing. In nnU-Net v2 the model
# is `predictor.network` after `initialize_from_trained_model_folder`.
model = PlainConvUNet(
    1, 3, (8, 16, 32), nn.Conv3d, 3, (1, 2, 2), 2, 3, 2, conv_bias=True, norm_op=nn.InstanceNorm3d,
    norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, deep_supervision=True,
).eval()  # fmt: skip
affine = numpy.diag([1.0, 1.0, 2.5, 1.0])  # the image's, in the order of the patch's axes

# The first output is that of full size; the others, of deep supervision, are left alone.
model = medcam_rs.inject(model, output_dir=folder, label=(1, 2), save_maps=True)
outputs = model(torch.rand(1, 1, 16, 32, 32), affine=affine, name="patch")

print(len(outputs), "outputs; maps:", [(one.layer, one.target) for one in model.attention_maps()])
for path in sorted(folder.rglob("patch*")):
    print("wrote", path)
