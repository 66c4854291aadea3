"""What an autograd graph tells of the layers whose outputs are in it, without a backward.

As `src/torch/shim/{analysis,channels,origins}.cpp` tell it of a TorchScript graph.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ._operators import Family, Voxels
from ._steps import Node, Reader, Step, Value, axes_of, is_input, saved, shape_of, signed, value_of

Key = TypeVar("Key", bound=Hashable)


class Channels(enum.Enum):
    """On which axis of a value its channels are."""

    UNKNOWN = enum.auto()
    FIRST = enum.auto()  # (B, C, [D,] H, W)
    LAST = enum.auto()  # (B, [D,] H, W, C)
    NONE = enum.auto()  # a product of matrices, whose axes are not those of an image


@dataclass(frozen=True)
class Facts:
    """What the graph tells of one value; see `Layer` for the words."""

    reaches_score: bool
    redraws_output: bool
    weights_cancel: bool
    channels: Channels
    regrids: bool
    embeds_patches: bool
    # How many voxels of the image are behind it; infinite where that is not told.
    image_voxels: float


class Graph:
    """The steps that lead to a score.

    `output` is the network's output; the score is taken in front of a softmax or sigmoid that ends
    it, or with `score="output"` behind it. `stops` are the values that will be asked for. `marks`
    say of values what module made them: a row of the table, and the value that went in.
    """

    def __init__(
        self,
        output: Value | None,
        stops: set[Value],
        *,
        input_shape: tuple[int, ...] | None = None,
        score: str = "logits",
        marks: Mapping[Value, tuple[str, Value]] | None = None,
    ) -> None:
        self._reader = Reader(stops, marks or {})
        self._input_shape = input_shape
        self._stops = stops
        self.ends_in: str | None = None
        # The value that scores are taken from.
        self.logits = output
        if output is not None:
            logits = self._find_logits(output)
            self.logits = output if score == "output" else logits
        reached = self._sorted([] if self.logits is None else [self.logits])
        self._reached = set(reached)
        # Also what leads to no score, inputs before what is made of them.
        self._order = self._sorted([*([] if self.logits is None else [self.logits]), *stops])
        self._users: dict[Value, list[tuple[Value, int]]] = {}
        for value in reached:
            for place, source in enumerate(self._reader.step(value).inputs):
                if source is not None:
                    self._users.setdefault(source, []).append((value, place))
        self._behind = self._channels_behind()
        self._ahead = self._channels_ahead()
        self._redraws = self._every_way(self._step_of_redrawing, self.logits, True)
        self._cancels = self._every_way(self._step_of_cancelling, self.logits, False)
        self._voxels = self._image_voxels()

    def facts(self, value: Value | None) -> Facts:
        """The facts of a value in `stops`; of `None`, one that no gradient can reach."""
        if value is None:
            return Facts(False, False, False, Channels.UNKNOWN, False, False, math.inf)
        return Facts(
            reaches_score=value in self._reached,
            redraws_output=self._redraws.get(value, False),
            weights_cancel=self._cancels.get(value, False),
            channels=self._channels(value),
            regrids=self._reader.step(self._before_pointwise(value)).operator.regrids,
            embeds_patches=self._embeds_patches(value),
            image_voxels=self._voxels.get(value, math.inf),
        )

    def _find_logits(self, output: Value) -> Value:
        value = output
        while True:
            step = self._reader.step(value)
            operator = step.operator
            is_first = (
                operator.family is Family.SELECT
                and signed(saved(step.node, "dim")) == 0
                and signed(saved(step.node, "index")) == 0
            )
            if operator.ends_in is not None and step.inputs[0] is not None:
                self.ends_in = operator.ends_in
                return step.inputs[0]
            if not (operator.passes_through or operator.reshapes or is_first):
                return output
            if not step.inputs or step.inputs[0] is None:
                return output
            value = step.inputs[0]

    def _sorted(self, ends: list[Value]) -> list[Value]:
        """All values that `ends` come from, each behind those that it comes from."""
        order: dict[Value, None] = {}
        open_values = [(value, False) for value in ends]
        entered: set[Value] = set()
        while open_values:
            value, is_done = open_values.pop()
            if is_done:
                order[value] = None
            elif value not in entered:
                entered.add(value)
                open_values.append((value, True))
                open_values.extend((v, False) for v in self._reader.step(value).activations)
        return list(order)

    # Channels

    def _says(self, step: Step) -> Channels:
        """Where a step needs the channels of its first input, which is where it leaves them."""
        operator = step.operator
        if operator.channels_first:
            return Channels.FIRST
        if operator.family is Family.LINEAR:
            return Channels.LAST
        if operator.family is Family.PRODUCT:
            return Channels.NONE
        if operator.family is Family.LAYER_NORM:
            shape = saved(step.node, "normalized_shape")
            if shape is not None and len(shape) == 1:
                return Channels.LAST
        return Channels.UNKNOWN

    def _channels_behind(self) -> dict[Value, Channels]:
        told: dict[Value, Channels] = {}
        for value in self._order:
            step = self._reader.step(value)
            says = self._says(step)
            if says is Channels.UNKNOWN and step.operator.keeps_axes:
                known = (told[source] for source in step.activations)
                says = next((c for c in known if c is not Channels.UNKNOWN), says)
            told[value] = says
        return told

    def _channels_ahead(self) -> dict[Value, Channels]:
        told: dict[Value, Channels] = {}
        self._ahead = told
        for value in reversed(self._order):
            says = Channels.UNKNOWN
            for user, place in self._users.get(value, ()):
                step = self._reader.step(user)
                if place == 0:
                    says = self._says(step)
                # A product takes its inputs from anywhere.
                if says is Channels.NONE:
                    says = Channels.UNKNOWN
                if says is Channels.UNKNOWN and step.operator.keeps_axes:
                    says = self._channels(user)
                if says is not Channels.UNKNOWN:
                    break
            told[value] = says
        return told

    def _channels(self, value: Value) -> Channels:
        behind = self._behind.get(value, Channels.UNKNOWN)
        return self._ahead.get(value, behind) if behind is Channels.UNKNOWN else behind

    # What lies between a value and the score

    def _every_way(self, step_of: Any, goal: Value | None, at_goal: bool) -> dict[Value, bool]:
        """Whether every way from a value to the score comes by a goal, over nothing but steps.

        `step_of(user, place)` is `True` at a goal, `False` elsewhere, `None` on a step.
        """
        told: dict[Value, bool] = {}
        if goal is not None:
            told[goal] = at_goal
        for value in reversed(self._order):
            users = self._users.get(value)
            if not users or value in told:
                continue
            judged = [(step_of(user, place), user) for user, place in users]
            told[value] = all(
                told.get(user, False) if is_goal is None else is_goal for is_goal, user in judged
            )
        return told

    def _step_of_redrawing(self, user: Value, _place: int) -> bool | None:
        return None if self._is_pointwise(user) else False

    def _step_of_cancelling(self, user: Value, place: int) -> bool | None:
        """An instance norm takes the mean out of each channel, and out of the gradient with it."""
        if self._reader.step(user).operator.family is Family.INSTANCE_NORM and place == 0:
            return True
        return None if self._mixes_alike(user) else False

    def _is_pointwise(self, value: Value) -> bool:
        """Whether a voxel depends on the same voxel of the input alone; or on others of its
        channel, as those of every channel do, so that mean gradients keep their proportions."""
        step = self._reader.step(value)
        operator = step.operator
        if operator.family is Family.CONVOLUTION:
            stride = saved(step.node, "stride")
            return _is_pointwise_kernel(step.node) and stride is not None and set(stride) == {1}
        if operator.family is Family.ALONG_AXIS and self._is_along_image_axis(value):
            return False
        if operator.family is Family.BATCH_NORM:
            return saved(step.node, "training") is False
        if operator.voxels is Voxels.GATED:
            return _has_one_tensor(step)
        return operator.voxels is not Voxels.UNKNOWN

    def _mixes_alike(self, value: Value) -> bool:
        step = self._reader.step(value)
        if step.operator.family is Family.CONVOLUTION:
            return _is_pointwise_kernel(step.node)
        mixes = step.operator.mixes_alike
        return mixes and (step.operator.reshapes or self._is_pointwise(value))

    def _is_along_image_axis(self, value: Value) -> bool:
        shape = shape_of(value)
        axes = axes_of(value[0], len(shape) if shape else None)
        if axes is None or shape is None:
            return True
        is_last = self._channels(value) is Channels.LAST
        return not axes <= {0, len(shape) - 1 if is_last else 1}

    # Where a value comes from

    def _before_pointwise(self, value: Value) -> Value:
        """What a value was before steps on each voxel alone."""
        while True:
            step = self._reader.step(value)
            operator = step.operator
            is_norm = operator.family in (Family.BATCH_NORM, Family.INSTANCE_NORM)
            is_off = operator.family is Family.SLICE and signed(saved(step.node, "dim")) in (0, 1)
            is_alike = operator.voxels in (Voxels.SAME, Voxels.GATED) or is_norm or is_off
            if not is_alike or not step.inputs or step.inputs[0] is None:
                return value
            if not (is_norm or operator.passes_through or is_off) and len(step.activations) > 1:
                return value
            value = step.inputs[0]

    def _embeds_patches(self, value: Value) -> bool:
        """Whether it is the input cut into patches that do not overlap, by a convolution."""
        step = self._reader.step(self._before_pointwise(value))
        if step.operator.family is not Family.CONVOLUTION or step.inputs[0] is None:
            return False
        weight, stride = saved(step.node, "weight"), saved(step.node, "stride")
        if weight is None or weight.dim() < 4 or stride is None:
            return False
        kernel = tuple(weight.shape[2:])
        is_wide = kernel == tuple(stride) and max(kernel) > 1
        return is_wide and is_input(self._before_pointwise(step.inputs[0]))

    def _image_voxels(self) -> dict[Value, float]:
        voxels: dict[Value, float] = {}
        for value in self._order:
            step = self._reader.step(value)
            behind = max((voxels[source] for source in step.activations), default=math.inf)
            if self._leaves_one_voxel(value, step):
                behind = 1
            voxels[value] = min(self._own_voxels(value), behind)
        return voxels

    def _own_voxels(self, value: Value) -> float:
        """The voxels of a layer's output that is an image."""
        shape, image = shape_of(value), self._input_shape
        if value not in self._stops or not shape or not image:
            return math.inf
        if len(shape) != len(image) or shape[0] != image[0]:
            return math.inf
        is_last = self._channels(value) is Channels.LAST
        return math.prod(shape[1:-1] if is_last else shape[2:])

    def _leaves_one_voxel(self, value: Value, step: Step) -> bool:
        """A pool to an extent of 1, or what is taken together over all axes of the image."""
        shape, image = shape_of(value), self._input_shape
        if not shape or not image or not step.activations:
            return False
        if len(shape) == len(image) and set(shape[2:]) == {1}:
            return True
        of_input = shape_of(step.activations[0])
        is_image = of_input is not None and len(of_input) == len(image)
        is_reduced = step.operator.family is Family.REDUCTION and is_image
        return is_reduced and of_input is not None and shape == of_input[:2]


def _is_pointwise_kernel(convolution: Node) -> bool:
    weight = saved(convolution, "weight")
    return weight is not None and weight.dim() >= 3 and set(weight.shape[2:]) == {1}


def _has_one_tensor(step: Step) -> bool:
    """Whether one activation goes in, and else only numbers or one number for each channel."""
    if len(step.activations) != 1 or step.operator.name in ("Where", "MaskedFill"):
        return False
    other = saved(step.node, "other" if step.inputs[0] is not None else "self")
    return not isinstance(other, torch.Tensor) or other.numel() == 1 or set(other.shape[2:]) == {1}


def facts(
    output: torch.Tensor,
    values: Mapping[Key, torch.Tensor | Value | None],
    *,
    input_shape: tuple[int, ...] | None = None,
    score: str = "logits",
) -> dict[Key, Facts]:
    """The facts of values (tensors, or `(grad_fn, output_nr)`) in the graph of `output`.

    Runs nothing. A tensor that was written over after the layer gave it has another `grad_fn`:
    hand in the pair as it was. `input_shape` is the batch's, for `image_voxels`. `redraws_output`
    is said of any output; it means something in segmentation alone.
    """
    at = {k: value_of(v) if isinstance(v, torch.Tensor) else v for k, v in values.items()}
    stops = {value for value in at.values() if value is not None}
    graph = Graph(value_of(output), stops, input_shape=input_shape, score=score)
    return {key: graph.facts(value) for key, value in at.items()}
