"""The layers of a module as one run shows them: which can carry a map, and which are selected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from . import _refusals
from ._graph import Channels, Facts, Graph
from ._sample import Seen, run_sample
from ._steps import value_of
from ._targets import batched_shape, differentiable, task_of


@dataclass(frozen=True)
class Layer:
    """One submodule; its facts are those of its last run."""

    name: str
    """The dotted name, as `named_modules` gives it: the first one of a module that has several."""
    kind: str
    """The name of its class, such as `Conv3d`."""
    shape: tuple[int, ...]
    """Of its output for one sample: `(1, C, [D,] H, W)` for most."""
    channels_last: bool
    """Whether its output is `(1, [D,] H, W, C)`, as in transformers."""
    runs: int
    """How often it runs in one forward; `NAME#k` picks the k-th run, `NAME` the last."""
    can_carry_map: bool
    """Whether its output has the batch and the rank of the input and more than one voxel, and the
    score depends on it."""
    redraws_output: bool
    """Whether only pointwise steps and moves come between it and the score, in segmentation."""
    weights_cancel: bool
    """Whether an instance norm follows that makes the mean gradient of every channel zero."""
    shows_image: bool
    """Whether it does more than pad, crop or resize, and does not come from a single voxel."""
    regrids_one_voxel: bool
    """Whether it is a single voxel, padded or resized."""
    embeds_patches: bool
    is_product: bool
    is_floating_point: bool
    has_batch: bool
    last_run: int

    @property
    def spatial(self) -> tuple[int, ...]:
        """The spatial extents of a shape that has them."""
        return self.shape[1:-1] if self.channels_last else self.shape[2:]

    @property
    def voxels(self) -> int:
        return math.prod(self.spatial)

    @property
    def has_extent(self) -> bool:
        """Whether it has more than one voxel along each axis."""
        return all(extent > 1 for extent in self.spatial)

    @property
    def channels(self) -> int:
        return self.shape[-1 if self.channels_last else 1]


@dataclass(frozen=True)
class Selected:
    """A layer and one of its runs, from 1."""

    label: str
    name: str
    run: int | None
    channels_last: bool
    weights_cancel: bool
    redraws_output: bool
    shows_image: bool
    regrids_one_voxel: bool


class Layers:
    """The layers of a module, parents before their children, else in the order of their first run."""

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        task: str,
        output_shape: tuple[int, ...],
        ends_in: str | None,
        batch: int,
        returned: Mapping[str, str],
        aliases: Mapping[str, str],
    ) -> None:
        self.task = task
        self.output_shape = output_shape
        self.ends_in = ends_in
        # Of the run that showed them.
        self.batch = batch
        self.returned = returned
        self._layers = parents_first(layers)
        # Each name that a submodule has, and its first one.
        self._aliases = aliases

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @property
    def registered(self) -> set[str]:
        """The names of all submodules, whether they ran or not."""
        return set(self._aliases.values())

    def get(self, name: str) -> Layer | None:
        """The layer of a name, also of another one that its module has."""
        name = self._aliases.get(name, name)
        return next((layer for layer in self._layers if layer.name == name), None)

    def auto(self) -> Layer | None:
        """The layer that `auto` takes.

        Classification: the last one with more than one voxel along each axis. Segmentation: of
        those that more than pointwise steps separate from the score, the last with the fewest
        voxels.
        """
        good = [layer for layer in self._layers if layer.can_carry_map and self._is_good(layer)]
        good = [layer for layer in good if not layer.embeds_patches] or good
        fewest = self.task == "segmentation"

        def key(layer: Layer) -> tuple[bool, int, int]:
            return (layer.has_extent, -layer.voxels if fewest else 0, layer.last_run)

        return max(good, key=key, default=None)

    def _is_good(self, layer: Layer) -> bool:
        is_alone = layer.channels > 1 and not layer.redraws_output
        return layer.shows_image and not layer.weights_cancel and is_alone

    def best_by_hand(self) -> Layer | None:
        """Where `auto` takes none: the layer against which least speaks."""

        def key(layer: Layer) -> tuple[bool, bool, bool, bool, int]:
            order = -layer.last_run if layer.redraws_output else layer.last_run
            several, cancels = layer.channels > 1, layer.weights_cancel
            return (layer.shows_image, several, not cancels, not layer.redraws_output, order)

        return max((layer for layer in self._layers if layer.can_carry_map), key=key, default=None)

    def select(self, choice: str | Sequence[str]) -> list[Selected]:
        """The layers of `auto`, `full`, one name, or several; `NAME#k` for the k-th run.

        Raises `InputError` where there is none, or one cannot carry a map.
        """
        if choice == "auto":
            auto = self.auto()
            if auto is None:
                raise _refusals.no_auto(self)
            return [_selected(auto, auto.name, auto.runs)]
        if choice == "full":
            full = [layer for layer in self._layers if layer.can_carry_map]
            if not full:
                raise _refusals.no_layer(self)
            return [_selected(layer, layer.name, layer.runs) for layer in full]
        names = [choice] if isinstance(choice, str) else list(choice)
        if not names:
            raise InputError("layer: no name was given")
        return list(dict.fromkeys(self._named(name) for name in names))

    def _named(self, label: str) -> Selected:
        name, number = label, None
        if "#" in label and self.get(label) is None:
            name, _, text = label.rpartition("#")
            if not text.isdecimal():
                raise InputError(f"layer '{label}': what follows # must be a number")
            number = int(text)
            if number == 0:
                raise InputError(f"layer '{label}': # counts from 1")
        layer = self.get(name)
        if layer is None:
            raise _refusals.unknown_layer(self, self._aliases.get(name, name))
        if number is not None and number > layer.runs:
            raise InputError(
                f"layer '{label}': '{name}' runs {layer.runs} time(s); # counts from 1"
            )
        if not layer.can_carry_map:
            raise _refusals.cannot_carry(self, layer)
        return _selected(layer, label, number or layer.runs)


def _selected(layer: Layer, label: str, run: int) -> Selected:
    return Selected(
        label=label,
        name=layer.name,
        run=run,
        channels_last=layer.channels_last,
        weights_cancel=layer.weights_cancel and run == layer.runs,
        redraws_output=layer.redraws_output,
        shows_image=layer.shows_image,
        regrids_one_voxel=layer.regrids_one_voxel,
    )


def parents_first(layers: Sequence[Layer]) -> list[Layer]:
    """Parents before their children; siblings in the order of their first run."""
    # A child's run ends before its parent's: a name takes the place of the first at or below it.
    first: dict[str, int] = {}
    for place, layer in enumerate(layers):
        for name in _path(layer.name):
            first.setdefault(name, place)
    return sorted(layers, key=lambda layer: [(first[name], name) for name in _path(layer.name)])


def _path(name: str) -> list[str]:
    """Of `a.b.c`: `a`, `a.b` and `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def discover(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tensor_of: Callable[[Any], Tensor],
    score: str = "logits",
) -> Layers:
    """The layers that one forward of the first sample shows; the module is then as it was before.

    Tensors among the arguments whose axis 0 is the batch of the first floating one are cut to one
    sample (two in training mode, where batch norms may refuse one). `tensor_of` picks the tensor to
    explain from what the module returns. With `score="output"` the score is the output itself, and
    layers that a final softmax or sigmoid is in count as well.

    A batch of one hides a layer whose axis 0 is not the batch but 1 by chance: compare it in each
    forward.
    """
    sample = run_sample(module, args, kwargs)
    output = tensor_of(sample.output)
    differentiable(output)
    image = sample.input_shape
    shape = batched_shape(image, tuple(output.shape), None)
    task = task_of(image, shape)
    stops = {run.value for run in sample.seen if run.value is not None}
    graph = Graph(
        value_of(output), stops, input_shape=image, score=score, marks=sample.marks
    )
    names = {id(part): name for name, part in module.named_modules()}
    aliases = {
        name: names[id(part)]
        for name, part in module.named_modules(remove_duplicate=False)
        if names[id(part)]
    }
    layers: dict[str, Layer] = {}
    for position, run in enumerate(sample.seen):
        layer = _layer(run, graph.facts(run.value), position, image, task)
        earlier = layers.get(run.name)
        layers[run.name] = replace(layer, runs=earlier.runs + 1 if earlier else 1)
    returned = {name: kind for name, kind in sample.returned.items() if name not in layers}
    return Layers(
        list(layers.values()),
        task=task,
        output_shape=(1, *shape[1:]),
        ends_in=graph.ends_in,
        batch=image[0],
        returned=returned,
        aliases=aliases,
    )


def _layer(run: Seen, told: Facts, position: int, image: tuple[int, ...], task: str) -> Layer:
    has_batch = run.shape[:1] == image[:1]
    is_last = told.channels is Channels.LAST
    is_product = told.channels is Channels.NONE
    spatial = run.shape[1:-1] if is_last else run.shape[2:]
    is_image = run.is_floating_point and len(run.shape) == len(image) and len(image) > 2
    has_map = is_image and has_batch and math.prod(spatial) > 1
    is_one_voxel = told.image_voxels <= 1
    return Layer(
        name=run.name,
        kind=run.kind,
        shape=(1, *run.shape[1:]) if has_batch else run.shape,
        channels_last=is_last,
        runs=1,
        can_carry_map=has_map and told.reaches_score and not is_product,
        redraws_output=task == "segmentation" and told.redraws_output,
        weights_cancel=told.weights_cancel,
        shows_image=not is_one_voxel and not told.regrids,
        regrids_one_voxel=is_one_voxel and told.regrids,
        embeds_patches=told.embeds_patches,
        is_product=is_product,
        is_floating_point=run.is_floating_point,
        has_batch=has_batch,
        last_run=position,
    )
