"""Well-known networks in plain torch, with random weights: what a map costs does not depend on them.

torchvision and MONAI need not be there. Layers have the names that torchvision gives them; `DynUNet`
has the blocks and sizes of MONAI's, one after the other instead of nested.
"""

import torch
from torch import nn


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1, and a shortcut."""

    def __init__(self, before, width, stride):
        super().__init__()
        after = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or before != after:
            shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(after))

    def forward(self, x):
        """The sum of both ways."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """torchvision's `resnet50`."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._layer(64, 64, 3, 1)
        self.layer2 = self._layer(256, 128, 4, 2)
        self.layer3 = self._layer(512, 256, 6, 2)
        self.layer4 = self._layer(1024, 512, 3, 2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(2048, 1000)

    @staticmethod
    def _layer(before, width, count, stride):
        blocks = [Bottleneck(before, width, stride)]
        return nn.Sequential(*blocks, *(Bottleneck(4 * width, width, 1) for _ in range(count - 1)))

    def forward(self, x):
        """Scores of 1000 classes."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VideoBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut."""

    def __init__(self, before, after, stride):
        super().__init__()
        conv = nn.Conv3d(before, after, 3, stride, 1, bias=False)
        self.conv1 = nn.Sequential(conv, nn.BatchNorm3d(after), nn.ReLU(inplace=True))
        conv = nn.Conv3d(after, after, 3, 1, 1, bias=False)
        self.conv2 = nn.Sequential(conv, nn.BatchNorm3d(after))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1:
            shortcut = nn.Conv3d(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(after))

    def forward(self, x):
        """The sum of both ways."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


class R3D18(nn.Module):
    """torchvision's `r3d_18`."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm3d(64), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(VideoBlock(64, 64, 1), VideoBlock(64, 64, 1))
        self.layer2 = nn.Sequential(VideoBlock(64, 128, 2), VideoBlock(128, 128, 1))
        self.layer3 = nn.Sequential(VideoBlock(128, 256, 2), VideoBlock(256, 256, 1))
        self.layer4 = nn.Sequential(VideoBlock(256, 512, 2), VideoBlock(512, 512, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(512, 400)

    def forward(self, x):
        """Scores of 400 classes."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class UnetBlock(nn.Module):
    """Two convolutions, each with an instance norm and a leaky ReLU in place."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv3d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.InstanceNorm3d(after, affine=True)
        self.conv2 = nn.Conv3d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.InstanceNorm3d(after, affine=True)
        self.lrelu = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x):
        """One after the other."""
        return self.lrelu(self.norm2(self.conv2(self.lrelu(self.norm1(self.conv1(x))))))


class UnetUpBlock(nn.Module):
    """Up by a transposed convolution, and a block over that and the skip connection."""

    def __init__(self, before, after):
        super().__init__()
        self.transp_conv = nn.ConvTranspose3d(before, after, 2, 2, bias=False)
        self.conv_block = UnetBlock(2 * after, after, 1)

    def forward(self, x, skip):
        """The level's own grid."""
        return self.conv_block(torch.cat((self.transp_conv(x), skip), 1))


class DynUNet(nn.Module):
    """nnU-Net's usual five levels, as MONAI's `DynUNet` has them: 32 to 320 channels."""

    WIDTHS = (32, 64, 128, 256, 320)

    def __init__(self):
        super().__init__()
        widths = self.WIDTHS
        self.input_block = UnetBlock(1, widths[0], 1)
        pairs = list(zip(widths, widths[1:]))
        self.downsamples = nn.ModuleList(UnetBlock(before, after, 2) for before, after in pairs[:-1])
        self.bottleneck = UnetBlock(*pairs[-1], 2)
        self.upsamples = nn.ModuleList(UnetUpBlock(after, before) for before, after in pairs[::-1])
        self.output_block = nn.Conv3d(widths[0], 3, 1)

    def forward(self, x):
        """Scores of 3 classes at each voxel."""
        skips = [self.input_block(x)]
        for block in self.downsamples:
            skips.append(block(skips[-1]))
        x = self.bottleneck(skips[-1])
        for block in self.upsamples:
            x = block(x, skips.pop())
        return self.output_block(x)


class Network:
    """A network, the shape of its input (and of a small one for a trial), and a late layer."""

    def __init__(self, build, shape, small, late):
        self.build, self.shape, self.small, self.late = build, shape, small, late

    def made(self):
        """The same weights each time."""
        torch.manual_seed(0)
        return self.build().eval()


NETWORKS = {
    "dynunet": Network(
        DynUNet, (1, 1, 128, 128, 128), (1, 1, 32, 32, 32), "upsamples.3.conv_block.norm1"
    ),
    "resnet50": Network(ResNet50, (1, 3, 224, 224), (1, 3, 64, 64), "layer4.2.bn2"),
    "resnet50_batch32": Network(ResNet50, (32, 3, 224, 224), (2, 3, 64, 64), "layer4.2.bn2"),
    "r3d_18": Network(R3D18, (1, 3, 32, 112, 112), (1, 3, 8, 32, 32), "layer4.1.conv1"),
}
