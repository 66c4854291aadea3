"""Networks and inputs as people bring them, after public bug reports of neighbouring projects, each with what must come of
it: a map by float64 autograd, a refusal, or a warning.

The network in eager PyTorch is the truth: `forward` is what is exported, `truth`, where there is one, is the same network
as its author means it (in evaluation mode, with a batch axis).
"""

from dataclasses import dataclass
from typing import Callable, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import nn

import layer_cases


@dataclass
class Case:
    """One export with one input."""

    name: str
    build: Callable
    shape: Tuple[int, ...]
    # The shape of the example that the network is traced with; None: scripted.
    traced: Optional[Tuple[int, ...]] = None
    label: str = "best"
    layer: str = "r"
    options: str = ""
    # Words of the refusal; empty: there is a map.
    refused: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()
    # By how much the map may be off, where the network does not compute in float32.
    tolerance: float = 1e-5
    # Whether two runs give the same.
    repeats: bool = True
    # Exported in training mode.
    training: bool = False
    freeze: bool = False
    # Makes the TorchScript module of the network and an example, in place of scripting or tracing it.
    export: Optional[Callable] = None
    # Changes the file, or writes another kind of file in its place.
    edit: Optional[Callable] = None
    archive: Optional[Callable] = None
    # For an input in another file format: "nifti" for a volume, the array's last axes.
    file: str = "npy"
    card: str = ""


class Classifier(nn.Module):
    """Two convolutions and a linear layer over the mean; `end` is what is done with the logits (B, K)."""

    def __init__(self, end=None, classes=3, dims=2, channels=1):
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.c = conv(channels, 6, 3, padding=1)
        self.r = nn.ReLU()
        self.fc = nn.Linear(6, classes)
        self.end = end
        self.axes = list(range(2, dims + 2))

    def truth(self, x):
        return self.fc(self.r(self.c(x)).mean(self.axes))

    def forward(self, x):
        y = self.truth(x)
        return y if self.end is None else self.end(y)


class Baked(Classifier):
    """Wrote its batch as a number."""

    def forward(self, x):
        return self.fc(self.r(self.c(x)).view(1, 6, -1).mean(2))


class Flips(Classifier):
    """Test-time augmentation: stacks the input and its mirror image along the batch."""

    def forward(self, x):
        return self.truth(torch.cat([x, x.flip(3)])).view(2, -1, 3).mean(0)


class MeanOverBatch(Classifier):
    """A layer that keeps one sample for the whole batch."""

    def __init__(self):
        super().__init__()
        self.m = nn.Conv2d(6, 6, 1)

    def forward(self, x):
        f = self.r(self.c(x))
        return self.fc((f + self.m(f.mean(0, keepdim=True))).mean((2, 3)))


class Segmenter(nn.Module):
    def __init__(self, end=None, classes=2):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1)
        self.r = nn.ReLU()
        self.o = nn.Conv2d(6, classes, 3, padding=1)
        self.end = end

    def truth(self, x):
        return self.o(self.r(self.c(x)))

    def forward(self, x):
        y = self.truth(x)
        return y if self.end is None else self.end(y)


class Norms(Classifier):
    """A norm behind the convolution, and `drop` in front of the last layer."""

    def __init__(self, norm, drop=None):
        super().__init__()
        self.n = norm
        self.drop = drop

    def truth(self, x):
        return self.fc(self.r(self.n(self.c(x))).mean((2, 3)))

    def forward(self, x):
        f = self.r(self.n(self.c(x)))
        if self.drop is not None:
            f = self.drop(f)
        return self.fc(f.mean((2, 3)))


class AlwaysDropped(Classifier):
    def forward(self, x):
        f = self.r(self.c(x)).mean((2, 3))
        return self.fc(F.dropout(f, 0.5))


class DropPath(nn.Module):
    """Stochastic depth as timm writes it."""

    def forward(self, x):
        if not self.training:
            return x
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.5) / 0.5


class AutocastClassifier(Classifier):
    """TorchScript's autocast does not cast the bias of a convolution, so there is none."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 6, 3, padding=1, bias=False)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.fc(self.r(self.c(x)).mean((2, 3)))
        return y.float()


class AutocastInPart(AutocastClassifier):
    """Off again inside, for the last layer."""

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            f = self.r(self.c(x))
            with torch.autocast("cpu", enabled=False):
                y = self.fc(f.float().mean((2, 3)))
        return y


class AutocastSegmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv3d(1, 6, 3, padding=1, bias=False)
        self.n = nn.BatchNorm3d(6)
        self.r = nn.ReLU()
        self.o = nn.Conv3d(6, 2, 3, padding=1, bias=False)

    def truth(self, x):
        return self.o(self.r(self.n(self.c(x))))

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.o(self.r(self.n(self.c(x))))
        return y.float()


class Tempered(Classifier):
    """A scalar parameter of another type comes first; it does not promote a float32 tensor."""

    def __init__(self, kind):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0, dtype=kind))

    def truth(self, x):
        return super().truth(x) / self.temperature


class SmallHead(Classifier):
    """The first parameter, of a head that is not used, has another type than all others."""

    def __init__(self, kind):
        super().__init__()
        modules, self._modules = self._modules, {}
        self.unused = nn.Linear(2, 2)
        self._modules.update({name: module.to(kind) for name, module in modules.items()})


class Standardised(Classifier):
    """Mean and standard deviation are buffers, and all that it has but them is of type `kind`."""

    def __init__(self, kind):
        super().__init__()
        self.to(kind)
        self.register_buffer("mean", torch.full((1, 1, 1, 1), 0.25, dtype=kind))
        self.register_buffer("std", torch.full((1, 1, 1, 1), 1.5, dtype=kind))

    def truth(self, x):
        return super().truth((x - self.mean) / self.std)


class CastsItself(Classifier):
    """Takes whatever comes and casts it to the type of its weights; a float64 parameter comes first."""

    def __init__(self):
        super().__init__()
        self.to(torch.bfloat16)
        own = dict(self._modules)
        self._modules.clear()
        self.unused = nn.Linear(2, 2).double()
        self._modules.update(own)

    def truth(self, x):
        return super().truth(x.to(self.fc.weight.dtype)).float()


class InGraph(Classifier):
    """Normalises in front of its first convolution, which so does not tell the rank of the input at once."""

    def __init__(self, before, channels=1):
        super().__init__(channels=channels)
        self.before = before

    def truth(self, x):
        return super().truth(self.before(x))


class Flat(nn.Module):
    """No convolution and no pooling: nothing tells whether it is 2D."""

    def __init__(self):
        super().__init__()
        self.r = nn.ReLU()
        self.fc = nn.Linear(18, 3)

    def truth(self, x):
        return self.fc(self.r(torch.cat([x - 0.3, 0.2 - x, x * 2], 1)).mean((1, 2))) ** 3

    forward = truth


class Thin(nn.Module):
    """A 3D network whose `kernel` and `pool` leave one voxel along an axis."""

    def __init__(self, kernel, pool, upsample=None):
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.c = nn.Conv3d(1, 6, kernel, padding=padding)
        self.p = nn.MaxPool3d(pool)
        self.c2 = nn.Conv3d(6, 6, kernel, padding=padding)
        self.r = nn.ReLU()
        self.head = nn.Conv3d(6, 2, 3, padding=1)
        self.upsample = upsample
        self.fc = nn.Linear(6, 3)

    def truth(self, x):
        f = self.r(self.c2(self.p(self.c(x))))
        if self.upsample is not None:
            return self.head(F.interpolate(f, scale_factor=self.upsample))
        return self.fc(f.mean((2, 3, 4)))

    forward = truth


ONE, TWO, THREE = (1, 1, 14, 18), (2, 1, 14, 18), (3, 1, 14, 18)


def first(y):
    return y[0]


def squeezed(y):
    return y.squeeze()


def lambda_classifier(end, **options):
    return lambda: Classifier(end, **options)


CASES = (
    # The output's first axis is not the batch.
    Case("squeeze", lambda_classifier(squeezed), ONE, ONE),
    Case("squeeze_class", lambda_classifier(squeezed), ONE, ONE, label="1"),
    Case("squeeze_3d", lambda_classifier(squeezed, dims=3), (1, 1, 6, 7, 9), (1, 1, 6, 7, 9)),
    Case("squeeze_of_two", lambda_classifier(squeezed), TWO, TWO),
    Case("first_of_one", lambda_classifier(first), ONE, ONE, label="2"),
    Case("first_of_two", lambda_classifier(first), TWO, ONE, refused=("[3]", "[2, 1, 14, 18]", "not the batch", "y[0]")),
    Case("scalar", lambda_classifier(squeezed, classes=1), ONE, ONE),
    Case("one_logit_each", lambda_classifier(lambda y: y[:, 0], classes=1), THREE, ONE),
    Case("flattened_logits", lambda_classifier(lambda y: y.view(-1)), TWO, TWO, refused=("[6]", "not the batch")),
    Case("flattened_to_batch", lambda_classifier(lambda y: y.mean(0)), THREE, THREE, refused=("[3]", "not the batch")),
    Case("baked_batch", Baked, TWO, ONE, refused=("[1, 3]", "[2, 1, 14, 18]", "baked")),
    Case("baked_batch_of_one", Baked, ONE, ONE),
    Case("transposed", lambda_classifier(lambda y: y.t()), ONE, ONE, refused=("[3, 1]", "not the batch")),
    Case("transposed_guided", lambda_classifier(lambda y: y.t(), classes=2), TWO, TWO, options="--backend gbp",
         refused=("[2, 1]", "not the batch")),
    # A softmax in front of a step that only reshapes: the score is still that before it.
    Case("softmax_squeezed", lambda_classifier(lambda y: y.softmax(1).squeeze()), ONE, ONE),
    Case("softmax_first", lambda_classifier(lambda y: y.softmax(1)[0]), ONE, ONE, label="1"),
    Case("softmax_squeezed_of_two", lambda_classifier(lambda y: y.softmax(1).squeeze()), TWO, ONE),
    Case("sigmoid_flattened", lambda_classifier(lambda y: torch.sigmoid(y).view(-1), classes=1), THREE, THREE),
    Case("classes_last", lambda: Segmenter(lambda y: y.permute(0, 2, 3, 1)), ONE, ONE,
         refused=("[1, 14, 18, 2]", "last axis")),
    Case("permuted", lambda: Segmenter(lambda y: y.permute(1, 0, 2, 3)), ONE, ONE, refused=("[2, 1, 14, 18]",)),
    Case("squeezed_mask", lambda: Segmenter(squeezed, classes=1), ONE, ONE, refused=("[14, 18]", "not the batch")),
    Case("flips", Flips, ONE, ONE, refused=("[2, 6, 14, 18]", "first axis is not the batch")),
    Case("flips_of_two", Flips, TWO, TWO, options="--layer c", refused=("layer 'c'", "first axis is not the batch")),
    Case("mean_over_batch", MeanOverBatch, TWO, TWO, layer="m", options="--layer m",
         refused=("layer 'm'", "1 along its first axis for a batch of 2")),
    # A graph in training mode.
    Case("batch_norm_training", lambda: Norms(nn.BatchNorm2d(6)), TWO, TWO, training=True, label="1",
         warnings=("TRAINING_MODE",), tolerance=2.0),
    Case("dropout_training", lambda: Norms(nn.Identity(), nn.Dropout2d(0.5)), ONE, ONE, training=True, label="1",
         warnings=("TRAINING_MODE",), tolerance=2.0, repeats=False),
    Case("always_dropped", AlwaysDropped, ONE, label="1", warnings=("TRAINING_MODE",), tolerance=2.0, repeats=False),
    Case("always_dropped_traced", AlwaysDropped, ONE, ONE, label="1", warnings=("TRAINING_MODE",), tolerance=2.0,
         repeats=False),
    Case("drop_path_training", lambda: Norms(nn.Identity(), DropPath()), (5, 1, 14, 18), (5, 1, 14, 18), training=True,
         label="1", warnings=("TRAINING_MODE",), tolerance=2.0, repeats=False),
    Case("instance_norm_training", lambda: Norms(nn.InstanceNorm2d(6, track_running_stats=True)), ONE, ONE, training=True,
         label="1", options="--layer n", layer="n", warnings=("TRAINING_MODE",), tolerance=2.0),
    Case("batch_norm_untracked", lambda: Norms(nn.BatchNorm2d(6, track_running_stats=False)), ONE, label="1",
         warnings=("TRAINING_MODE",)),
    # Nothing to warn of: in evaluation mode, or switched to it by the program.
    Case("batch_norm_evaluation", lambda: Norms(nn.BatchNorm2d(6), nn.Dropout(0.5)), TWO, TWO, label="1"),
    Case("scripted_in_training", lambda: Norms(nn.BatchNorm2d(6), nn.Dropout(0.5)), TWO, training=True, label="1"),
    Case("instance_norm", lambda: Norms(nn.InstanceNorm2d(6)), ONE, ONE, label="1"),
    # Autocast within a scripted forward.
    Case("autocast", AutocastClassifier, ONE, label="1", tolerance=0.02),
    Case("autocast_of_two", AutocastClassifier, TWO, label="0", layer="c", options="--layer c", tolerance=0.02),
    Case("autocast_in_part", AutocastInPart, ONE, label="1", tolerance=0.02),
    Case("autocast_3d", AutocastSegmenter, (1, 1, 7, 9, 8), label="0", tolerance=0.02),
    # The input's type.
    Case("scalar_float64", lambda: Tempered(torch.float64), ONE, ONE),
    Case("scalar_float16", lambda: Tempered(torch.float16), TWO, TWO),
    Case("unused_float32", lambda: SmallHead(torch.float64), ONE, ONE),
    Case("unused_float32_half", lambda: SmallHead(torch.float16), ONE, ONE, tolerance=5e-3),
    Case("buffers_double", lambda: Standardised(torch.float64), ONE, ONE),
    Case("buffers_bfloat16", lambda: Standardised(torch.bfloat16), ONE, ONE, tolerance=0.05),
    Case("casts_itself", CastsItself, ONE, ONE, tolerance=0.05),
    Case("frozen_half", lambda: Standardised(torch.float16), ONE, ONE, options="--backend gbp", layer="", freeze=True,
         tolerance=5e-3),
    # One voxel thin along an axis.
    Case("thin_depth", lambda: Thin((3, 3, 3), (4, 2, 2)), (1, 1, 4, 12, 10), (1, 1, 4, 12, 10), options="--layer r"),
    Case("thin_width", lambda: Thin((3, 3, 3), (2, 2, 6)), (2, 1, 6, 8, 6), (1, 1, 6, 8, 6), options="--layer r"),
    Case("one_slice", lambda: Thin((1, 3, 3), (1, 2, 2)), (1, 1, 1, 12, 10), (1, 1, 1, 12, 10)),
    Case("one_column", lambda: Thin((3, 3, 3), (2, 8, 8)), (1, 1, 10, 8, 8), (1, 1, 10, 8, 8), options="--layer r"),
    Case("thin_bottleneck", lambda: Thin((3, 3, 3), (4, 2, 2), (4.0, 2.0, 2.0)), (1, 1, 4, 12, 10), label="1",
         options="--layer r"),
    # A volume of one slice for a 2D network.
    Case("slice_standardised", lambda: InGraph(lambda x: (x - x.mean()) / x.std()), ONE, ONE, file="nifti"),
    Case("slice_clamped", lambda: InGraph(lambda x: F.pad(x.clamp(-1, 1), (1, 1, 1, 1))), ONE, ONE, file="nifti"),
    Case("slice_pooled", lambda: InGraph(lambda x: F.interpolate(F.max_pool2d(x.abs() + 1, 2), scale_factor=2.0)), ONE, ONE,
         file="nifti"),
    Case("slice_normed", lambda: InGraph(nn.InstanceNorm2d(1)), ONE, ONE, file="nifti"),
    Case("slice_repeated", lambda: InGraph(lambda x: x.repeat(1, 3, 1, 1), 3), ONE, ONE, file="nifti"),
    Case("slice_expanded", lambda: InGraph(lambda x: x.expand(-1, 3, -1, -1), 3), ONE, ONE, file="nifti"),
    Case("slice_by_card", Flat, ONE, ONE, file="nifti", label="1", card="[input]\nspatial_dims = 2\n"),
    Case("slice_untold", Flat, ONE, ONE, file="nifti", refused=("spatial_dims",)),
)

CASES += tuple(layer_cases.cases(Case, Classifier))
