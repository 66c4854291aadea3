"""Small 3D networks, with and without in-place operations, as in nets2d.py."""

import torch
from monai.networks.nets import DynUNet
from monai.networks.nets import UNet as MonaiUNet
from torch import nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Convolution, batch norm, ReLU; an odd number of voxels after each pooling."""

    def __init__(self, inplace):
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(inplace))
        self.pool = nn.MaxPool3d(2)
        self.block2 = nn.Sequential(nn.Conv3d(6, 10, 3, padding=1), nn.BatchNorm3d(10), nn.ReLU(inplace))
        self.block3 = nn.Sequential(nn.Conv3d(10, 12, 3), nn.ELU(inplace=inplace))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = self.block3(self.block2(self.pool(self.block1(x))))
        return self.head(F.adaptive_avg_pool3d(x, 1).flatten(1))


class NormConv(nn.Module):
    """Convolution, instance norm, functional leaky ReLU."""

    def __init__(self, inputs, outputs, stride, inplace):
        super().__init__()
        self.inplace = inplace
        self.conv = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm = nn.InstanceNorm3d(outputs, affine=True)

    def forward(self, x):
        return F.leaky_relu(self.norm(self.conv(x)), 0.01, inplace=self.inplace)


class UNet(nn.Module):
    """nnU-Net's manner: strided convolutions, instance norm, transposed convolutions, concatenation;
    one output channel and a sigmoid."""

    def __init__(self, inplace):
        super().__init__()
        self.enc1 = NormConv(1, 6, 1, inplace)
        self.enc2 = NormConv(6, 10, 2, inplace)
        self.bottleneck = NormConv(10, 16, 2, inplace)
        self.up2 = nn.ConvTranspose3d(16, 10, 2, stride=2)
        self.dec2 = NormConv(20, 10, 1, inplace)
        self.up1 = nn.ConvTranspose3d(10, 6, 2, stride=2)
        self.dec1 = NormConv(12, 6, 1, inplace)
        self.head = nn.Conv3d(6, 1, 1)

    def logits(self, x):
        skip1 = self.enc1(x)
        skip2 = self.enc2(skip1)
        x = self.up2(self.bottleneck(skip2))
        x = self.up1(self.dec2(torch.cat([x, skip2], dim=1)))
        return self.head(self.dec1(torch.cat([x, skip1], dim=1)))

    def forward(self, x):
        return torch.sigmoid(self.logits(x))


class Interpolating(nn.Module):
    """An encoder and decoder without skips, resized by a factor and smoothed at the end."""

    def __init__(self, inplace):
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv3d(1, 6, 3, stride=2, padding=1), nn.SiLU(inplace))
        self.down2 = nn.Sequential(nn.Conv3d(6, 12, 3, stride=2, padding=1), nn.PReLU(12))
        self.up = nn.Conv3d(12, 6, 3, padding=1)
        self.act = nn.LeakyReLU(0.1, inplace)
        self.head = nn.Conv3d(6, 3, 3, padding=1)

    def forward(self, x):
        size = x.shape[2:]
        x = self.down2(self.down1(x))
        x = F.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False)
        x = self.act(self.up(x))
        x = F.interpolate(x, size=size, mode="trilinear", align_corners=False)
        return self.head(x)


def monai_unet(inplace):
    """MONAI's UNet with residual units, instance norm and PReLU."""
    del inplace
    return MonaiUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        channels=(6, 10, 16),
        strides=(2, 2),
        num_res_units=1,
    )


def monai_dynunet(inplace):
    """MONAI's DynUNet: nnU-Net's architecture."""
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=2,
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[6, 10, 16],
        act_name=("leakyrelu", {"inplace": inplace, "negative_slope": 0.01}),
    )
