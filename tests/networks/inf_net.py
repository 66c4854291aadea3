"""Inf-Net (Fan et al. 2020, arXiv 2004.14133), written from the paper's text and figures, at reduced width.

Kept: a Res2Net backbone with two low and three high levels of features, edge attention from the second
level, the parallel partial decoder, which gives the global map, and reverse attention from the deepest
level up. Four outputs, (S_g, S_5, S_4, S_3) as logits at the input's size; the last is the prediction. The
edge map, supervised in training only, is not returned.
"""

from typing import Tuple

import torch
from torch import nn
from torch.nn import functional as F


def resized(x, like):
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs, outputs, kernel=3, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class Res2Block(nn.Module):
    """The Res2Net module: channels in four groups, each convolved together with the result before it."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        group = outputs // 4
        self.enter = ConvNorm(inputs, outputs, 1)
        self.groups = nn.ModuleList(ConvNorm(group, group, stride=stride) for _ in range(3))
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.leave = nn.Conv2d(outputs, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)
        self.strided = stride > 1

    def forward(self, x):
        parts = torch.chunk(self.enter(x), 4, dim=1)
        done = [self.pool(parts[0])]
        for i, conv in enumerate(self.groups):
            # A strided block has no result of the part's size to add.
            part = parts[i + 1] if self.strided or i == 0 else parts[i + 1] + done[-1]
            done.append(conv(part))
        return F.relu(self.leave(torch.cat(done, dim=1)) + self.shortcut(x))


class PartialDecoder(nn.Module):
    """Aggregates the three high levels into the global map."""

    def __init__(self, width):
        super().__init__()
        self.up54 = ConvNorm(width, width)
        self.up53 = ConvNorm(width, width)
        self.up43 = ConvNorm(width, width)
        self.join4 = ConvNorm(2 * width, 2 * width)
        self.join3 = ConvNorm(3 * width, width)
        self.map = nn.Conv2d(width, 1, 1)

    def forward(self, f5, f4, f3):
        up5 = resized(f5, f4)
        gated4 = self.up54(up5) * f4
        gated3 = self.up53(resized(f5, f3)) * self.up43(resized(f4, f3)) * f3
        joined4 = self.join4(torch.cat([gated4, up5], dim=1))
        return self.map(self.join3(torch.cat([gated3, resized(joined4, f3)], dim=1)))


class ReverseAttention(nn.Module):
    """Looks at what the deeper map left out: features, and edge attention, times 1 - sigmoid(map)."""

    def __init__(self, features, edges, width):
        super().__init__()
        self.conv = ConvNorm(features + edges, width)
        self.refine = ConvNorm(width, width)
        self.map = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, features, edges, deeper):
        deeper = resized(deeper, features)
        left_out = 1 - torch.sigmoid(deeper)
        x = torch.cat([features, resized(edges, features)], dim=1) * left_out
        return self.map(self.refine(self.conv(x))) + deeper


class InfNet(nn.Module):
    """Input (B, 3, H, W), a slice of a lung CT; output as the module says."""

    def __init__(self, width=8):
        super().__init__()
        levels = (width, 2 * width, 3 * width, 4 * width)
        self.level1 = nn.Sequential(ConvNorm(3, width, stride=2), ConvNorm(width, width))
        self.level2 = Res2Block(width, levels[0], 2)
        self.level3 = Res2Block(levels[0], levels[1], 2)
        self.level4 = Res2Block(levels[1], levels[2], 2)
        self.level5 = Res2Block(levels[2], levels[3], 2)
        self.edge = nn.Sequential(ConvNorm(levels[0], width), ConvNorm(width, width))
        self.reduce3 = ConvNorm(levels[1], width, 1)
        self.reduce4 = ConvNorm(levels[2], width, 1)
        self.reduce5 = ConvNorm(levels[3], width, 1)
        self.decoder = PartialDecoder(width)
        self.reverse5 = ReverseAttention(levels[3], width, width)
        self.reverse4 = ReverseAttention(levels[2], width, width)
        self.reverse3 = ReverseAttention(levels[1], width, width)

    def forward(self, x) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        f2 = self.level2(self.level1(x))
        f3 = self.level3(f2)
        f4 = self.level4(f3)
        f5 = self.level5(f4)
        edge = self.edge(f2)
        s_g = self.decoder(self.reduce5(f5), self.reduce4(f4), self.reduce3(f3))
        s_5 = self.reverse5(f5, edge, s_g)
        s_4 = self.reverse4(f4, edge, s_5)
        s_3 = self.reverse3(f3, edge, s_4)
        return resized(s_g, x), resized(s_5, x), resized(s_4, x), resized(s_3, x)
