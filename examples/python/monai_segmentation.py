"""A U-Net of MONAI in 3D, from a MetaTensor to a NIfTI file. Usage: monai_segmentation.py FOLDER"""

import sys
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet

import medcam_rs

folder = Path(sys.argv[1])
torch.manual_seed(0)
# Random weights and voxels, to need no download: the map means nothing.
model = UNet(
    3, in_channels=1, out_channels=3, channels=(8, 16, 32), strides=(2, 2), norm="batch"
).eval()
# As LoadImage and EnsureChannelFirst give it: its affine goes into the file.
affine = torch.tensor([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 3, 12], [0, 0, 0, 1]])
image = MetaTensor(torch.rand(1, 32, 24, 16), affine=affine)

model = medcam_rs.inject(model, output_dir=folder, label=1, save_maps=True)
logits = model(image[None], name="case")

for one in model.attention_maps():
    print(f"map of {one.target} at {one.layer}: {tuple(one.values.shape)}")
for path in sorted(folder.rglob("case*")):
    print("wrote", path)
