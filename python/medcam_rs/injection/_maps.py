"""Attention maps from activations and gradients, and what a reader of a map should know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .._chains import MapInfo, cam, guided_cam
from .._ops import channel_mean, normalize, resample
from ..errors import InputError

METHODS = {
    "gcam": "gradcam",
    "gcampp": "gradcam++",
    "hirescam": "hirescam",
    "layercam": "layercam",
    "ggcam": "gradcam",
    "gbp": None,
}
"""The kernels' names of the methods of layers."""
GUIDED = ("gbp", "ggcam")

UNSTABLE = 1 / 32
"""The greatest part of its range by which rounding may move a map of Grad-CAM++ before it is called
unstable."""


class AttentionWarning(UserWarning):
    """A map that says nothing, or not what it seems to say."""


@dataclass(frozen=True)
class Warned:
    """Something that a reader of a map should know; docs/diagnostics.md explains each code."""

    code: str
    """A fixed name for programs, such as `ZERO_MAP`."""
    message: str
    """What it means, and what to do."""
    layer: str = ""
    """Empty where it is of the whole run."""
    sample: int | None = None
    """The sample of the batch, from 0; None where it is of all."""

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"


@dataclass(frozen=True)
class AttentionMap:
    """The attention maps of one layer and one target, for one batch."""

    layer: str
    """The layer's name as it was asked for; `input` for `gbp`, `fused` for the map of several."""
    target: str
    """`best`, `class2`, `predicted1`, `component1`, ..."""
    values: Tensor
    """`(B, 1, [D,] H, W)` float32 on the model's device, in [0, 1] for each sample."""
    ranges: list[tuple[float, float]]
    """The least and the greatest value of each sample before normalisation, in units of the score per
    voxel. Maps of guided methods are signed: the former 0 is at `-low / (high - low)` in them."""
    classes: list[int | None]
    """The class that each sample's map explains; None where the target is no single class."""
    signed: bool
    """Whether the values have a sign, as those of the guided methods do."""
    weights_cancel: list[bool] = field(repr=False)
    unstable_weights: list[bool] = field(repr=False)
    zero_gradient: list[bool] = field(repr=False)


@dataclass(frozen=True)
class Finished:
    """The maps of one layer, and what is known of each sample."""

    values: Tensor
    infos: list[MapInfo]
    unstable: list[bool]
    zero_gradient: list[bool]

    def named(
        self, layer: str, target: str, classes: list[int | None], signed: bool
    ) -> AttentionMap:
        """As the map of a layer and a target."""
        return AttentionMap(
            layer,
            target,
            self.values.unsqueeze(1),
            [(info.minimum, info.maximum) for info in self.infos],
            classes,
            signed,
            [info.weights_cancel for info in self.infos],
            self.unstable,
            self.zero_gradient,
        )


def _for_kernels(tensor: Tensor, channels_last: bool = False) -> Tensor:
    """`(B, C, [D,] H, W)` of a type and an order in memory that the kernels take."""
    tensor = tensor.detach()
    if type(tensor) is not Tensor:
        tensor = tensor.as_subclass(Tensor)
    if channels_last:
        tensor = tensor.movedim(-1, 1)
    if tensor.dtype == torch.float64:
        greatest = tensor.abs().flatten(1).amax(1)
        if bool(((greatest > 0) & (greatest < torch.finfo(torch.float32).tiny)).any()):
            raise InputError(
                "its values or gradients in float64 are too small for float32, in which maps are made; "
                "scale them, as gradients by the score: label=lambda y: 1e30 * y[:, k]"
            )
        tensor = tensor.float()
    side_by_side = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=side_by_side):
        return tensor
    return tensor.contiguous()


def of_layer(
    backend: str,
    activation: Tensor,
    gradient: Tensor,
    *,
    channels_last: bool,
    weights_cancel: bool,
    guided: Tensor | None,
    size: tuple[int, ...] | None,
) -> Finished:
    """The maps of a layer, resampled to `size` (the layer's grid if None) and then normalised.

    `guided` is the guided gradient's channel mean for `ggcam`, whose maps have its grid without `size`.
    """
    activation = _for_kernels(activation, channels_last)
    gradient = _for_kernels(gradient, channels_last)
    if activation.stride() != gradient.stride():
        activation, gradient = activation.contiguous(), gradient.contiguous()
    method: Any = METHODS[backend]
    if guided is None:
        values, infos = cam(activation, gradient, method, size=size, info=True)
    else:
        if size is not None and tuple(guided.shape[1:]) != size:
            guided = resample(guided, size)
        values, infos = guided_cam(activation, gradient, guided, method, info=True)
    # The kernels compare magnitudes and miss noise of a gradient that is small itself.
    if weights_cancel and method == "gradcam":
        infos = [info._replace(weights_cancel=True) for info in infos]
    unstable = _unstable(activation, gradient, infos) if method == "gradcam++" else []
    zero: list[bool] = []
    if any((info.minimum, info.maximum) == (0, 0) for info in infos):
        zero = [not any_ for any_ in (gradient != 0).flatten(1).any(1).tolist()]
    return Finished(values, infos, unstable, zero)


def mean_of(guided_gradient: Tensor) -> Tensor:
    """The guided gradient's mean over the input's channels, `(B, [D,] H, W)` float32."""
    return channel_mean(_for_kernels(guided_gradient))


def of_input(mean: Tensor, size: tuple[int, ...] | None) -> Finished:
    """The maps of Guided Backpropagation from the mean of the guided gradient."""
    if size is not None and tuple(mean.shape[1:]) != size:
        mean = resample(mean, size)
    infos = _infos(mean)
    zero = [(info.minimum, info.maximum) == (0, 0) for info in infos]
    return Finished(normalize(mean), infos, [], zero if any(zero) else [])


def _infos(maps: Tensor) -> list[MapInfo]:
    low, high = torch.aminmax(maps.flatten(1), dim=1)
    infos = [MapInfo(*of_map, False) for of_map in zip(low.tolist(), high.tolist())]
    if not all(torch.isfinite(torch.tensor([info[:2] for info in infos])).flatten()):
        raise InputError("the map has values that are NaN or infinite")
    return infos


def _unstable(activation: Tensor, gradient: Tensor, infos: list[MapInfo]) -> list[bool]:
    """Whether rounding moves each sample's map of Grad-CAM++, as `UNSTABLE_WEIGHTS` tells.

    For a relative error of each value the map moves by about that times
    `max_c (sum_n t·M/d)·max_n |A|`, with `t = G/d`, `d = 2 + G·sum A` and `M = 2 + G·sum |A|` where
    `G > 0`.
    """
    if float(activation.min()) >= 0:
        return []
    a, g = activation.flatten(2).double(), gradient.flatten(2).double().clamp_min(0)
    magnitudes = a.abs()
    below = 2 + g * a.sum(2, keepdim=True)
    parts = g * (2 + g * magnitudes.sum(2, keepdim=True)) / below.square()
    moved = (parts.sum(2) * magnitudes.amax(2)).amax(1).tolist()
    half_a_unit = torch.finfo(torch.float32).eps / 2
    spans = [info.maximum - info.minimum for info in infos]
    return [span > 0 and by * half_a_unit > UNSTABLE * span for by, span in zip(moved, spans)]


def fuse(maps: Sequence[AttentionMap], how: str) -> AttentionMap:
    """The maps of several layers as one, by their `mean` or `max`, normalised again.

    In each sample, layers whose weights cancel are left out unless all are such.
    """
    if not maps:
        raise InputError("fuse: no layer has a map")
    first = maps[0]
    for one in maps:
        if one.values.shape != first.values.shape:
            raise InputError(
                f"fuse: the maps of '{first.layer}' and '{one.layer}' have different sizes; ask for "
                "one size with data_shape"
            )
    batch = first.values.shape[0]
    all_cancel = [all(one.weights_cancel[b] for one in maps) for b in range(batch)]
    samples = []
    for b in range(batch):
        kept = [one.values[b, 0] for one in maps if all_cancel[b] or not one.weights_cancel[b]]
        stacked = torch.stack(kept)
        samples.append(stacked.mean(0) if how == "mean" else stacked.amax(0))
    fused = torch.stack(samples)
    ranges = [(info.minimum, info.maximum) for info in _infos(fused)]
    return replace(
        first,
        layer="fused",
        values=normalize(fused).unsqueeze(1),
        ranges=ranges,
        weights_cancel=all_cancel,
        unstable_weights=[],
        zero_gradient=[],
    )


_JUDGED: tuple[tuple[str, Callable[[AttentionMap, int], bool], str], ...] = (
    (
        "ZERO_GRADIENT",
        lambda one, b: bool(one.zero_gradient) and one.zero_gradient[b],
        "the gradient of the score is zero everywhere in this layer, and so is the map. Take the score "
        "before a softmax, or another class or layer",
    ),
    (
        "WEIGHTS_CANCEL",
        lambda one, b: one.weights_cancel[b],
        "the map is rounding noise: the gradient averages to zero in every channel, as it does in front "
        "of an instance normalisation. Take a layer behind one",
    ),
    (
        "ZERO_MAP",
        lambda one, b: one.ranges[b] == (0, 0),
        "the map is zero everywhere: nothing in this layer speaks for the score. Try another layer or "
        "class",
    ),
    (
        "CONSTANT_MAP",
        lambda one, b: one.ranges[b][0] >= one.ranges[b][1],
        "the map is the same everywhere and is written as zeros. Try another layer",
    ),
    (
        "UNSTABLE_WEIGHTS",
        lambda one, b: bool(one.unstable_weights) and one.unstable_weights[b],
        "the map of Grad-CAM++ hangs on rounding: some activations are negative, and with them the "
        "denominator of its weights comes close to 0. Take a layer whose activations are not negative, "
        "such as a ReLU, or another method (backend='gcam')",
    ),
)


def judge(one: AttentionMap, fused: AttentionMap | None = None) -> list[Warned]:
    """What the values of a map warn of, the first that fits for each sample; `fused` combines it."""
    found = []
    for b in range(len(one.ranges)):
        hit = next(((code, what) for code, fits, what in _JUDGED if fits(one, b)), None)
        if hit is None:
            continue
        code, what = hit
        if code == "WEIGHTS_CANCEL" and fused and not fused.weights_cancel[b]:
            what += ". The fused map leaves this one out"
        message = f"layer '{one.layer}', {one.target}, sample {b}: {what}"
        found.append(Warned(code, message, one.layer, b))
    return found
