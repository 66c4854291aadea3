"""Small 2D networks. With `inplace=True` a network writes over activations wherever PyTorch lets it;
with `inplace=False` it computes the same, out of place: its twin."""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet


class PlainClassifier(nn.Module):
    """Convolution, batch norm, ReLU, pooling, three times; one linear head."""

    def __init__(self, inplace):
        super().__init__()
        layers = []
        for inputs, outputs in ((3, 8), (8, 12), (12, 16)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(inplace), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(torch.flatten(self.pool(self.features(x)), 1))


class SoftmaxClassifier(nn.Module):
    """Functional leaky ReLU, and a softmax module at the end."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.conv1 = nn.Conv2d(3, 8, 5, stride=2)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)
        self.softmax = nn.Softmax(dim=1)

    def logits(self, x):
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.01, inplace=self.inplace)
        x = F.leaky_relu(self.conv2(x), 0.01, inplace=self.inplace)
        x = F.leaky_relu(self.conv3(x), 0.01, inplace=self.inplace)
        return self.head(x.mean(dim=(2, 3)))

    def forward(self, x):
        return self.softmax(self.logits(x))


class ResidualBlock(nn.Module):
    """Two convolutions and a skip that is added with `+=`."""

    def __init__(self, inputs, outputs, stride, inplace):
        super().__init__()
        self.inplace = inplace
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        self.out = nn.ReLU(inplace)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        skip = self.shortcut(x)
        if self.inplace:
            y += skip
        else:
            y = y + skip
        return self.out(y)


class ResidualClassifier(nn.Module):
    """Residual blocks whose sums and activations write over their inputs."""

    def __init__(self, inplace):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stage1 = ResidualBlock(8, 8, 1, inplace)
        self.stage2 = ResidualBlock(8, 16, 2, inplace)
        self.stage3 = ResidualBlock(16, 16, 2, inplace)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class SharedActivationClassifier(nn.Module):
    """One ReLU module runs three times."""

    def __init__(self, inplace):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.act = nn.ReLU(inplace)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.act(self.conv1(x))
        x = self.act(self.conv2(x))
        x = self.act(self.conv3(x))
        return self.head(x.mean(dim=(2, 3)))


class DoubleConv(nn.Module):
    """Two convolutions with batch norm; the activation module is given, so it can be shared."""

    def __init__(self, inputs, outputs, act1, act2):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.act1 = act1
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act2 = act2

    def forward(self, x):
        x = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(x)))


class UNet(nn.Module):
    """Two levels, concatenated skips, resized to the skip's size, so any input size will do.

    With `shared`, one activation module serves the whole network.
    """

    def __init__(self, inplace, classes, shared):
        super().__init__()
        one = nn.ReLU(inplace)

        def act():
            return one if shared else nn.ReLU(inplace)

        self.enc1 = DoubleConv(3, 8, act(), act())
        self.enc2 = DoubleConv(8, 12, act(), act())
        self.down = nn.MaxPool2d(2)
        self.bottleneck = DoubleConv(12, 16, act(), act())
        self.dec2 = DoubleConv(16 + 12, 12, act(), act())
        self.dec1 = DoubleConv(12 + 8, 8, act(), act())
        self.head = nn.Conv2d(8, classes, 1)

    def logits(self, x):
        skip1 = self.enc1(x)
        skip2 = self.enc2(self.down(skip1))
        x = self.bottleneck(self.down(skip2))
        x = F.interpolate(x, size=skip2.shape[2:], mode="bilinear", align_corners=False)
        x = self.dec2(torch.cat([x, skip2], dim=1))
        x = F.interpolate(x, size=skip1.shape[2:], mode="nearest")
        x = self.dec1(torch.cat([x, skip1], dim=1))
        return self.head(x)

    def forward(self, x):
        return torch.softmax(self.logits(x), dim=1)


class FlatSegmenter(nn.Module):
    """No downsampling anywhere: only what separates a layer from the score tells layers apart."""

    def __init__(self, inplace):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace))
        self.mid = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.BatchNorm2d(8), nn.ReLU(inplace)
        )
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace)
        self.drop = nn.Dropout2d(0.5)
        self.head = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(inplace), nn.Conv2d(6, 3, 1))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.mid(x)
        return self.head(self.drop(self.act(self.norm(self.last(x)))))


class OutOfPlaceBlock(BasicBlock):
    """torchvision's block adds with `out += identity`; its twin must not."""

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(out + identity)


class NarrowResNet(ResNet):
    """torchvision's ResNet-18 with an eighth of the channels after the stem, to keep the file small."""

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // 8, blocks, stride, dilate)


def resnet18(inplace):
    """Its blocks write over their inputs: `out += identity` and in-place ReLU."""
    network = NarrowResNet(BasicBlock if inplace else OutOfPlaceBlock, [2, 2, 2, 2])
    network.fc = nn.Linear(512 // 8, 10)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = inplace
    return network
