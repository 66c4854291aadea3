"""The gallery's 2D networks."""

import torch
from torch import nn
from torch.nn import functional

TUMOR_CLASSES = ("glioma", "meningioma", "no tumor", "pituitary")
# The side of the classifier's square input.
TUMOR_SIZE = 240
# Convolutions and output channels of VGG16's blocks.
TUMOR_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# Extent of what the last block gives.
TUMOR_FLAT = TUMOR_SIZE // 2 ** len(TUMOR_BLOCKS)
# Lost beside a variance of 1, and torch wants one.
NO_EPSILON = 1e-12

TISSUE_CLASSES = ("other", "gray matter", "white matter")
TISSUE_WIDTH = 8


class TumorNet(nn.Module):
    """VGG16's convolutions and four dense layers: RGB within 0..1 to the logits of four classes."""

    def __init__(self):
        super().__init__()
        channels = 3
        for block, (convolutions, width) in enumerate(TUMOR_BLOCKS, start=1):
            for number in range(1, convolutions + 1):
                self.add_module(f"block{block}_conv{number}", nn.Conv2d(channels, width, 3, padding=1))
                self.add_module(f"block{block}_relu{number}", nn.ReLU())
                channels = width
            self.add_module(f"block{block}_pool", nn.MaxPool2d(2))
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(TUMOR_FLAT * TUMOR_FLAT * channels, 64)
        self.dense_relu = nn.ReLU()
        self.norm = nn.BatchNorm1d(64, eps=NO_EPSILON)
        self.dense_1 = nn.Linear(64, 128)
        self.dense_1_relu = nn.ReLU()
        self.norm_1 = nn.BatchNorm1d(128, eps=NO_EPSILON)
        self.dense_2 = nn.Linear(128, 256)
        self.dense_2_relu = nn.ReLU()
        self.dense_3 = nn.Linear(256, len(TUMOR_CLASSES))

    def forward(self, x):
        """The modules in the order in which they were made."""
        for module in self.children():
            x = module(x)
        return x


class Block(nn.Module):
    """Two convolutions, each with batch norm and ReLU."""

    def __init__(self, channels, width):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()

    def forward(self, x):
        """(B, channels, H, W) to (B, width, H, W)."""
        x = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(x)))


class TissueNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) of three levels: (B, 1, H, W) to logits (B, 3, H, W)."""

    def __init__(self):
        super().__init__()
        self.down1 = Block(1, TISSUE_WIDTH)
        self.down2 = Block(TISSUE_WIDTH, 2 * TISSUE_WIDTH)
        self.down3 = Block(2 * TISSUE_WIDTH, 4 * TISSUE_WIDTH)
        self.bottom = Block(4 * TISSUE_WIDTH, 8 * TISSUE_WIDTH)
        self.rise3 = nn.ConvTranspose2d(8 * TISSUE_WIDTH, 4 * TISSUE_WIDTH, 2, stride=2)
        self.up3 = Block(8 * TISSUE_WIDTH, 4 * TISSUE_WIDTH)
        self.rise2 = nn.ConvTranspose2d(4 * TISSUE_WIDTH, 2 * TISSUE_WIDTH, 2, stride=2)
        self.up2 = Block(4 * TISSUE_WIDTH, 2 * TISSUE_WIDTH)
        self.rise1 = nn.ConvTranspose2d(2 * TISSUE_WIDTH, TISSUE_WIDTH, 2, stride=2)
        self.up1 = Block(2 * TISSUE_WIDTH, TISSUE_WIDTH)
        self.head = nn.Conv2d(TISSUE_WIDTH, len(TISSUE_CLASSES), 1)

    def forward(self, x):
        """Extents must be multiples of 8."""
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        third = self.down3(functional.max_pool2d(second, 2))
        x = self.bottom(functional.max_pool2d(third, 2))
        x = self.up3(torch.cat([self.rise3(x), third], 1))
        x = self.up2(torch.cat([self.rise2(x), second], 1))
        x = self.up1(torch.cat([self.rise1(x), first], 1))
        return self.head(x)
