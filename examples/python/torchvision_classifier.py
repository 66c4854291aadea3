"""A classifier of torchvision, and its map drawn over a picture.

Usage: torchvision_classifier.py FOLDER
"""

import sys
from pathlib import Path

import torch
import torchvision

import medcam_rs

folder = Path(sys.argv[1])
torch.manual_seed(0)
# Random weights, to need no download: the map means nothing. Yours has trained ones.
model = torchvision.models.resnet18().eval()
picture = torch.rand(1, 3, 96, 128)  # RGB in [0, 1]
mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]

model = medcam_rs.inject(model, output_dir=folder, save_maps=True)
logits = model((picture - mean) / deviation, raw_input=picture, name="picture")

for one in model.attention_maps():
    print(f"map of {one.target} at {one.layer}: {tuple(one.values.shape)}")
for path in sorted(folder.rglob("picture*")):
    print("wrote", path)
