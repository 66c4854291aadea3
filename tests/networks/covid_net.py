"""COVID-Net (Wang & Wong 2020, arXiv 2003.09871), written from the paper's figures, at reduced width.

Kept: the stem, four stages of 3, 4, 6 and 3 projection-expansion-projection-extension (PEPX) modules, the
1x1 convolutions that carry long-range connections past each stage, and the fully connected end. Reduced:
channels (a seventh), and the fully connected layers.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Pepx(nn.Module):
    """1x1 projection, 1x1 expansion, 3x3 depthwise representation, 1x1 projection, 1x1 extension."""

    def __init__(self, inputs, outputs):
        super().__init__()
        low = max(inputs // 2, 2)
        high = inputs * 3 // 2
        self.project = nn.Conv2d(inputs, low, 1)
        self.expand = nn.Conv2d(low, high, 1)
        self.represent = nn.Conv2d(high, high, 3, padding=1, groups=high)
        self.project_again = nn.Conv2d(high, low, 1)
        self.extend = nn.Conv2d(low, outputs, 1)

    def forward(self, x):
        x = self.represent(self.expand(self.project(x)))
        return F.relu(self.extend(self.project_again(x)))


class Stage(nn.Module):
    """PEPX modules, each of which gets the sum of all before it in the stage and of the 1x1 convolution
    that goes past the stage; what leaves the stage is that sum too."""

    def __init__(self, inputs, outputs, count):
        super().__init__()
        self.past = nn.Conv2d(inputs, outputs, 1)
        widths = [inputs] + [outputs] * (count - 1)
        self.pepx = nn.ModuleList(Pepx(width, outputs) for width in widths)

    def forward(self, x):
        total = F.relu(self.past(x))
        for module in self.pepx:
            x = module(x)
            total = total + x
            x = total
        return total


class CovidNet(nn.Module):
    """Input (B, 3, 96, 96); normal, pneumonia and COVID-19."""

    def __init__(self, widths=(8, 16, 30, 60), counts=(3, 4, 6, 3), size=96, classes=3):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 7, stride=2, padding=3)
        inputs = (widths[0], *widths)
        self.stages = nn.ModuleList(Stage(i, o, n) for i, o, n in zip(inputs, widths, counts))
        self.pool = nn.MaxPool2d(2)
        features = widths[-1] * (size // 32) ** 2
        self.hidden = nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, classes)

    def logits(self, x):
        x = F.relu(self.stem(x))
        for stage in self.stages:
            x = stage(self.pool(x))
        return self.head(self.hidden(torch.flatten(x, 1)))

    def forward(self, x):
        return torch.softmax(self.logits(x), dim=1)
