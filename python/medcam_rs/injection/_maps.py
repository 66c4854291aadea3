"""Attention maps from activations and gradients, and what a reader of a map should know."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._chains import MapInfo, summarized_cam
from .._ops import channel_mean, normalize, resample
from ..errors import InputError
from . import _readback
from ._readback import Readback, Slot

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

CANCEL = 5
"""The word of a summary that says whether the weights cancel."""

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


@dataclass(frozen=True)
class Made:
    """The maps of one layer, which a device may still be making."""

    values: Tensor
    """`(B, [D,] H, W)`"""
    noise: Tensor
    """Whether each map is rounding noise, `(B)` where the maps are."""
    read: Callable[[], tuple[list[MapInfo], list[bool]]]
    """What is known of the maps, and of which the gradient is zero. For when the readback is fetched."""
    weights_cancel: bool = False
    """Replaces what the maps say themselves."""
    moved: Callable[[], list[float]] | None = None
    """What `_moved` says of maps of Grad-CAM++."""
    tiny: Sequence[Slot] = ()
    """Whether the tensors that they are made of hold values that float32 does not."""

    def finished(self) -> Finished:
        """With all that is known of them. Of Grad-CAM++ with negative activations that waits again."""
        refuse_tiny(self.tiny)
        infos, zero = self.read()
        if self.weights_cancel:
            infos = [info._replace(weights_cancel=True) for info in infos]
        unstable = []
        moved = self.moved() if self.moved else []
        if moved:
            half_a_unit = torch.finfo(torch.float32).eps / 2
            spans = [info.maximum - info.minimum for info in infos]
            unstable = [
                span > 0 and by * half_a_unit > UNSTABLE * span for by, span in zip(moved, spans)
            ]
        return Finished(self.values, infos, unstable, zero if any(zero) else [])


def refuse_tiny(slots: Sequence[Slot]) -> None:
    """Refuses float64 values that float32 does not hold."""
    if any(any(slot.integers()) for slot in slots):
        raise InputError(
            "its values or gradients in float64 are too small for float32, in which maps are made; "
            "scale them, as gradients by the score: label=lambda y: 1e30 * y[:, k]"
        )


def _for_kernels(
    tensor: Tensor, readback: Readback, channels_last: bool = False
) -> tuple[Tensor, list[Slot]]:
    """`(B, C, [D,] H, W)` of a type and an order in memory that the kernels take, and what
    `refuse_tiny` takes."""
    tensor = tensor.detach()
    if type(tensor) is not Tensor:
        tensor = tensor.as_subclass(Tensor)
    if channels_last:
        tensor = tensor.movedim(-1, 1)
    tiny = []
    if tensor.dtype == torch.float64:
        greatest = tensor.abs().flatten(1).amax(1)
        is_tiny = (greatest > 0) & (greatest < torch.finfo(torch.float32).tiny)
        tiny = [readback.ask(is_tiny)]
        if not _readback.is_on_device(tensor):
            refuse_tiny(tiny)
        tensor = tensor.float()
    side_by_side = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=side_by_side):
        return tensor, tiny
    return tensor.contiguous(), tiny


def of_layer(
    backend: str,
    activation: Tensor,
    gradient: Tensor,
    readback: Readback,
    *,
    channels_last: bool,
    weights_cancel: bool,
    guided: Tensor | None,
    size: tuple[int, ...] | None,
) -> Made:
    """The maps of a layer, resampled to `size` (the layer's grid if None) and then normalised.

    `guided` is the guided gradient's channel mean for `ggcam`, whose maps have its grid without `size`.
    Nothing waits for a device.
    """
    activation, tiny_activation = _for_kernels(activation, readback, channels_last)
    gradient, tiny_gradient = _for_kernels(gradient, readback, channels_last)
    if activation.stride() != gradient.stride():
        activation, gradient = activation.contiguous(), gradient.contiguous()
    method: Any = METHODS[backend]
    if guided is not None and size is not None and tuple(guided.shape[1:]) != size:
        guided = resample(guided, size)
    maps = summarized_cam(activation, gradient, method, guided=guided, size=size)
    slot = readback.ask(maps.words)
    noise = maps.words[:, CANCEL]
    # The kernels compare magnitudes and miss noise of a gradient that is small itself.
    weights_cancel = weights_cancel and method == "gradcam"
    return Made(
        maps.values,
        torch.ones_like(noise) if weights_cancel else noise,
        lambda: maps.read(slot.integers()),
        weights_cancel,
        _moved(activation, gradient, readback) if method == "gradcam++" else None,
        tiny_activation + tiny_gradient,
    )


def mean_of(guided_gradient: Tensor, readback: Readback) -> tuple[Tensor, list[Slot]]:
    """The guided gradient's mean over the input's channels, `(B, [D,] H, W)` float32, and what
    `refuse_tiny` takes."""
    gradient, tiny = _for_kernels(guided_gradient, readback)
    return channel_mean(gradient), tiny


def of_input(mean: Tensor, size: tuple[int, ...] | None, readback: Readback) -> Made:
    """The maps of Guided Backpropagation from the mean of the guided gradient."""
    if size is not None and tuple(mean.shape[1:]) != size:
        mean = resample(mean, size)
    return _normalized(mean, readback, mean.new_zeros(mean.shape[0]))


def _normalized(maps: Tensor, readback: Readback, noise: Tensor) -> Made:
    """Maps `(B, [D,] H, W)`, normalised; where one is zero, its gradient is."""
    slot = readback.ask(torch.stack(torch.aminmax(maps.flatten(1), dim=1), 1))

    def read() -> tuple[list[MapInfo], list[bool]]:
        ends = slot.floats()
        infos = [MapInfo(*of_map, False) for of_map in zip(ends[::2], ends[1::2])]
        if not all(map(math.isfinite, ends)):
            raise InputError("the map has values that are NaN or infinite")
        return infos, [(info.minimum, info.maximum) == (0, 0) for info in infos]

    if not _readback.is_on_device(maps):
        read()
    return Made(normalize(maps), noise, read)


def _moved(activation: Tensor, gradient: Tensor, readback: Readback) -> Callable[[], list[float]]:
    """By how much of a relative error of each value a sample's map of Grad-CAM++ moves; nothing where no
    activation is negative. See `UNSTABLE_WEIGHTS`.

    That is about `max_c (sum_n t·M/d)·max_n |A|`, with `t = G/d`, `d = 2 + G·sum A` and
    `M = 2 + G·sum |A|` where `G > 0`. On a device both tensors are kept until the readback has told
    whether an activation is negative; if one is, another wait follows.
    """
    least = readback.ask(activation.min())

    def moved() -> list[float]:
        if least.floats()[0] >= 0:
            return []
        a, g = activation.flatten(2).double(), gradient.flatten(2).double().clamp_min(0)
        magnitudes = a.abs()
        below = 2 + g * a.sum(2, keepdim=True)
        parts = g * (2 + g * magnitudes.sum(2, keepdim=True)) / below.square()
        return (parts.sum(2) * magnitudes.amax(2)).amax(1).tolist()

    if _readback.is_on_device(activation):
        return moved
    found = moved()
    return lambda: found


def fuse(layers: Sequence[tuple[str, Made]], how: str, readback: Readback) -> Made:
    """The maps of several layers as one, by their `mean` or `max`, normalised again.

    In each sample, layers whose weights cancel are left out unless all are such. Which these are only
    the device knows, and nothing waits for it.
    """
    if not layers:
        raise InputError("fuse: no layer has a map")
    label, first = layers[0]
    for other, one in layers:
        if one.values.shape != first.values.shape:
            raise InputError(
                f"fuse: the maps of '{label}' and '{other}' have different sizes; ask for one size "
                "with data_shape"
            )
    all_noise = torch.stack([one.noise != 0 for _, one in layers]).all(0)
    # Maps of layers are in [0, 1], so 0 stands for none.
    fused = torch.zeros_like(first.values)
    count = torch.zeros_like(all_noise, dtype=torch.float32)
    column = (-1, *(1 for _ in first.values.shape[1:]))
    for _, one in layers:
        kept = (one.noise == 0) | all_noise
        values = torch.where(kept.reshape(column), one.values, 0)
        fused = fused + values if how == "mean" else torch.maximum(fused, values)
        count += kept
    if how == "mean":
        fused = fused / count.reshape(column)
    return _normalized(fused, readback, all_noise)


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
