"""The usage that M3d-CAM's README shows, with its import changed. Usage: from_m3dcam.py FOLDER"""

import os
import sys
from pathlib import Path

import torch
import torchvision
from torch.utils.data import DataLoader

import medcam_rs as medcam  # was: from medcam import medcam

os.makedirs(sys.argv[1], exist_ok=True)
os.chdir(sys.argv[1])
torch.manual_seed(0)
model = torchvision.models.resnet18()
data_loader = DataLoader(torch.rand(2, 3, 64, 64), batch_size=1, shuffle=False)

model = medcam.inject(model, output_dir="attention_maps", save_maps=True)

model.eval()
for batch in data_loader:
    output = model(batch)

for path in sorted(Path("attention_maps").rglob("*.*")):
    print("wrote", path)
