"""A small network that several tests inject."""

import torch
from torch import nn


class Net(nn.Module):
    """A small classifier with what may go wrong: in-place steps, a dropout, a function as activation."""

    def __init__(self, classes=3):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True))
        self.second = nn.Conv2d(6, 8, 3, stride=2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, classes)

    def forward(self, x, scale=1.0):
        x = self.second(self.first(x)) * scale
        return self.head(self.drop(torch.relu_(x).mean((2, 3))))


def made():
    torch.manual_seed(0)
    return Net().eval(), torch.randn(2, 2, 15, 17)
