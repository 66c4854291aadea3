"""Models and inputs that a user may bring and for which there is no map, or none worth having."""

import torch
from torch import nn


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x, y):
        return self.head(self.conv(torch.cat([x, y], dim=1)).mean(dim=(2, 3)))


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(1, 4, 3, padding=1)
        self.mask = nn.Conv2d(1, 4, 3, padding=1)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        chosen = self.gate(x).argmax(dim=1, keepdim=True).to(x.dtype)
        mask = torch.sigmoid(self.mask(x)).detach()
        return self.head((self.conv(x) * chosen * mask).mean(dim=(2, 3)))


class ZeroMap(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.head.weight.copy_(-self.head.weight.abs() - 0.1)

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).mean(dim=(2, 3)))


class Vector(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 8)
        self.act = nn.ReLU()
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.act(self.first(x)))


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean(dim=(2, 3)))


class NotANumber(Conv):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.head.weight[0, 0] = float("nan")


IMAGE = (2, 1, 11, 13)

# name, class, input shapes, layers to ask for, what it is for.
ODD = (
    ("two_inputs", TwoInputs, (IMAGE, IMAGE), ["conv"], "forward takes two tensors"),
    (
        "detached",
        Detached,
        (IMAGE,),
        ["gate", "mask"],
        "gate's output reaches the score only through argmax, mask's only through detach: no gradient",
    ),
    (
        "zero_map",
        ZeroMap,
        (IMAGE,),
        ["relu"],
        "every class weight is negative on ReLU outputs: the Grad-CAM map of relu is 0 everywhere",
    ),
    ("vector", Vector, ((2, 12),), ["first"], "no layer has spatial axes, and neither has the input"),
    ("nan", NotANumber, (IMAGE,), ["conv"], "the logits of class 0 and its gradients are NaN"),
)
