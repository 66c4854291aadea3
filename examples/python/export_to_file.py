"""A module as the file that `medcam map` and `medcam cohort` take.

Usage: export_to_file.py FOLDER
"""

import sys
from pathlib import Path

import torch
from monai.networks.nets import UNet

import medcam_rs

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
model = UNet(
    3, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2), norm="batch"
).eval()
# How an image becomes the input: docs/model-card.md.
intensity = [{"z_score": "nonzero"}]
card = {"input": {"orientation": "RAS", "spacing_mm": [1, 1, 1]}, "intensity": intensity}

print(medcam_rs.export(model, torch.rand(1, 1, 16, 16, 16), folder / "unet.pt", card=card))
for path in sorted(folder.iterdir()):
    print("wrote", path)
