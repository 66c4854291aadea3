"""The networks of the comparison: small, 2D and 3D, for classification and segmentation.

Activations are modules, as M3d-CAM needs them, unless `act` says otherwise: "functional" calls F.relu,
"inplace" are modules that write over their input. All three share their weights: `build` seeds them.
"""

from dataclasses import dataclass
from typing import Callable, Tuple

import torch
from torch import nn
from torch.nn import functional as F

from make_networks import build as build_parity
from specs import SPECS

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MODE = {2: "bilinear", 3: "trilinear"}


class Block(nn.Module):
    """Convolution, batch norm, activation."""

    def __init__(self, dim, inputs, outputs, act):
        super().__init__()
        self.conv = CONV[dim](inputs, outputs, 3, padding=1)
        self.norm = NORM[dim](outputs)
        if act != "functional":
            self.relu = nn.ReLU(inplace=act == "inplace")
        self.functional = act == "functional"

    def forward(self, x):
        x = self.norm(self.conv(x))
        return F.relu(x) if self.functional else self.relu(x)


class Classifier(nn.Module):
    """Three blocks. A head on all voxels, so that the gradient differs from voxel to voxel."""

    def __init__(self, dim, act, softmax=False, voxels=30):
        super().__init__()
        self.block1 = Block(dim, 1, 6, act)
        self.block2 = Block(dim, 6, 8, act)
        self.block3 = Block(dim, 8, 10, act)
        self.pool1, self.pool2, self.pool3 = (POOL[dim](2) for _ in range(3))
        self.head = nn.Linear(10 * voxels, 4)
        if softmax:
            self.softmax = nn.Softmax(dim=1)

    def forward(self, x):
        x = self.block3(self.pool2(self.block2(self.pool1(self.block1(x)))))
        x = self.head(torch.flatten(self.pool3(x), 1))
        return self.softmax(x) if hasattr(self, "softmax") else x


class Confident(Classifier):
    """Its logits are far above 88, where exp leaves the range of f32."""

    def forward(self, x):
        return 400 * super().forward(x)


class Deaf(Classifier):
    """Its last activation lets nothing of a sample of zeros through."""

    def __init__(self, dim, act, voxels):
        super().__init__(dim, act, voxels=voxels)
        self.threshold = 3.0
        self.relu = nn.ReLU(inplace=act == "inplace")

    def forward(self, x):
        x = self.block3(self.pool2(self.block2(self.pool1(self.block1(20 * x)))))
        return self.head(torch.flatten(self.pool3(self.relu(x - self.threshold)), 1))


class Segmenter(nn.Module):
    """Encoder, bottleneck, decoder with a skip."""

    def __init__(self, dim, act, classes, tail=None):
        super().__init__()
        self.enc = Block(dim, 1, 6, act)
        self.pool = POOL[dim](2)
        self.bottleneck = Block(dim, 6, 10, act)
        self.dec = Block(dim, 16, 8, act)
        self.head = CONV[dim](8, classes, 1)
        if tail:
            self.tail = {"softmax": nn.Softmax(dim=1), "sigmoid": nn.Sigmoid()}[tail]
        self.mode = MODE[dim]

    def forward(self, x):
        skip = self.enc(x)
        x = self.bottleneck(self.pool(skip))
        x = F.interpolate(x, size=skip.shape[2:], mode=self.mode, align_corners=False)
        x = self.head(self.dec(torch.cat([x, skip], dim=1)))
        return self.tail(x) if hasattr(self, "tail") else x


class Shared(nn.Module):
    """One ReLU module that runs after each convolution."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6 * 12, 3)
        self.pool = nn.AdaptiveAvgPool2d((3, 4))

    def forward(self, x):
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.head(torch.flatten(self.pool(x), 1))


class Prefixes(nn.Module):
    """`conv` begins the name `conv2`: get_layers takes the one for the parent of the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.head = nn.Linear(8 * 12, 3)

    def forward(self, x):
        x = self.conv2(torch.tanh(self.conv(x)))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, (3, 4)), 1))


IMAGE = (1, 24, 40)
VOLUME = (1, 12, 12, 16)


@dataclass
class Network:
    """`build(act)` makes it; the maps are of `layer`, of `several`, of auto's and of all layers."""

    name: str
    task: str
    sample: Tuple[int, ...]
    build: Callable
    layer: str
    several: Tuple[str, ...]
    label: int = 1
    # The discriminator `y > above`, for segmentation.
    above: float = 0.0
    # As the package sees it: module, functional or inplace.
    act: str = "module"
    seed: int = 0
    # The second sample of a batch is 0 everywhere.
    empty_sample: bool = False

    @property
    def dim(self):
        """2 or 3."""
        return len(self.sample) - 1


def classifier(dim, kind=Classifier, **more):
    """15 voxels are left of IMAGE, 2 of VOLUME."""
    return lambda act: kind(dim, act, voxels={2: 15, 3: 2}[dim], **more)


def parity(name):
    """A network of tests/networks, out of place, with its own weights."""
    spec = next(spec for spec in SPECS if spec.name == name)
    return lambda act: build_parity(spec, False)


LAYERS = {
    "classification": ("block3", ("block1", "block3.norm")),
    "segmentation": ("bottleneck", ("enc.norm", "dec")),
}
SAMPLES = {2: IMAGE, 3: VOLUME}


def ours(name, task, dim, build, **more):
    """A network of this file."""
    layer, several = LAYERS[task]
    return Network(f"{name}{dim}d", task, SAMPLES[dim], build, layer, several, **more)


def networks_of(dim):
    """The same networks for images and for volumes."""
    c, s = "classification", "segmentation"

    def segmenter(*more):
        return lambda act: Segmenter(dim, act, *more)

    deaf = Network(
        f"deaf_classifier{dim}d",
        c,
        SAMPLES[dim],
        classifier(dim, Deaf),
        "relu",
        ("block1", "relu"),
        empty_sample=True,
    )
    return (
        ours("classifier", c, dim, classifier(dim)),
        ours("softmax_classifier", c, dim, classifier(dim, softmax=True), label=2),
        ours("segmenter", s, dim, segmenter(3)),
        ours("softmax_segmenter", s, dim, segmenter(3, "softmax"), above=0.3, label=2),
        ours("sigmoid_segmenter", s, dim, segmenter(1, "sigmoid"), above=0.5, label=0),
        ours("inplace_classifier", c, dim, classifier(dim), act="inplace"),
        ours("functional_classifier", c, dim, classifier(dim), act="functional"),
        ours("functional_segmenter", s, dim, segmenter(3), act="functional"),
        ours("confident_classifier", c, dim, classifier(dim, Confident)),
        deaf,
    )


def one_of(name, build, layer, several):
    """A network of this file that there is for images only."""
    return Network(name, "classification", IMAGE, lambda act: build(), layer, several)


def borrowed(name, task, layer, several, sample=(3, 33, 47), **more):
    """A network of tests/networks."""
    return Network(name, task, sample, parity(name), layer, several, **more)


NETWORKS = (
    *networks_of(2),
    *networks_of(3),
    one_of("shared2d", Shared, "relu", ("first", "second")),
    one_of("prefixes2d", Prefixes, "conv", ("conv", "conv2")),
    borrowed("plain2d", "classification", "features.4", ("features.2", "features.9")),
    borrowed("resnet18", "classification", "layer2", ("layer1", "layer3.1"), (3, 65, 71), seed=1),
    borrowed("unet2d", "segmentation", "enc2", ("bottleneck.norm1", "dec2"), above=0.34),
    borrowed("flat2d", "segmentation", "mid", ("stem.0", "stem")),
)


def build(network, act=None):
    """The network in evaluation mode; the same weights and statistics whatever `act` is."""
    torch.manual_seed(network.seed)
    model = network.build(act or network.act).eval()
    if isinstance(model, (Classifier, Segmenter)):
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                for tensor, low, high in (
                    (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 1.5),
                    (module.weight.data, 0.5, 1.5),
                    (module.bias.data, -0.2, 0.2),
                ):
                    tensor.uniform_(low, high)
    return model


def batch(network, samples):
    """The network's input."""
    x = torch.randn(2, *network.sample, generator=torch.Generator().manual_seed(network.seed + 1))
    if network.empty_sample:
        x[1] = 0
    return x[:samples]
