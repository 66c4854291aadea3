"""One call of an injected module: the forward, and the maps of each target from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from . import _skips, _targets, _warnings
from ._checks import finite, grid_of, layer_fits, no_gradient
from ._layers import Layers, Selected, discover
from ._maps import GUIDED, AttentionMap, Made, Warned, fuse, mean_of, of_input, of_layer
from ._readback import Readback, Slot
from ._settle import MadeTarget
from ._tape import Record, Recorded, final_activation, record
from ._trees import Pick

Size = tuple[int, ...] | None
KEPT_SHAPES = 16
"""Of how many input shapes the layers are kept."""


@dataclass(frozen=True)
class Settings:
    """What maps are made of; `inject` describes each."""

    backend: str
    layer: Any
    score_at: str
    guide: str
    fuse: str | None
    pick: Pick

    @property
    def needs_layer(self) -> bool:
        """Whether the method takes a layer."""
        return self.backend != "gbp"


@dataclass
class Explanation:
    """One call's results."""

    output: Any
    maps: list[AttentionMap] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)


@dataclass
class Explainer:
    """Explains a module call by call; between calls it keeps the layers that were found."""

    settings: Settings
    layers: Layers | None = None
    _selected: dict[Any, tuple[Layers, list[Selected], list[int]]] = field(default_factory=dict)
    # Input shapes of which the first forward had nothing to spare its backward.
    _not_spared: set[tuple[int, ...]] = field(default_factory=set)
    # The first forward looks whether the output ends in a softmax or sigmoid.
    _ends: bool = True
    # Whether gradients are on from the start of a forward, as the network switches them around layers.
    _from_start: bool = False

    def explain(
        self,
        model: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        targets: Sequence[_targets.Target],
        size_of: Callable[[Tensor], Size],
    ) -> Explanation:
        """Runs `forward` of `model` and makes the maps of all targets.

        What a device finds out on the way stays there until the last backward is enqueued, and comes to
        the host in one copy: the only wait, but for `components`, a function of the caller's that waits,
        and Grad-CAM++ on negative activations.
        """
        readback = Readback()
        grid = grid_of(args, kwargs)
        unchecked = finite("the input", grid, readback)
        size = size_of(grid)
        recorded, selected = self._record(model, forward, args, kwargs, grid)
        explained = self.settings.pick(recorded.output)
        unchecked += finite("the model's output", explained, readback)
        _targets.differentiable(explained)
        of_one = self.layers.output_shape if self.layers else None
        shape = _targets.batched_shape(tuple(grid.shape), tuple(explained.shape), of_one)
        task = _targets.task_of(tuple(grid.shape), shape)
        at = recorded.logits_of(explained)
        with torch.enable_grad():
            # Between both are only steps that keep the order of the values.
            scored = (explained if at is None else at).reshape(shape)
        logits = scored.detach()
        if at is None and _is_sigmoid(explained):
            # Of a single channel, what is above 0.5 is predicted.
            logits = logits - 0.5
        explanation = Explanation(recorded.output)
        warnings = explanation.warnings
        named = _targets.named(targets, task, logits)
        warnings += [Warned("COMPONENTS_LEFT_OUT", one.left_out) for one in named if one.left_out]
        warnings += _warnings.training(model)
        if recorded.gates:
            recorded.gates.check(self.settings.backend)
            warnings += _warnings.partly_guided(recorded.gates)
        warnings += [warned for layer in selected for warned in _warnings.of_layer(layer)]
        made = []
        for place, one in enumerate(named):
            last = place + 1 == len(named)
            with torch.enable_grad():
                score = _targets.score(one.target, task, scored, logits, readback)
            made.append(self._maps(recorded, selected, one, score, size, readback, keep=not last))
        readback.fetch()
        for check in unchecked:
            check.check()
        for target in made:
            explanation.maps += target.settled(warnings)
        return explanation

    def find(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Layers:
        """The layers for an input like this one; one forward of its first sample where they are not
        known."""
        grid, readback = grid_of(args, kwargs), Readback()
        unchecked = finite("the input", grid, readback)
        readback.fetch()
        for check in unchecked:
            check.check()
        self.layers = self._find(model, args, kwargs, grid)[0]
        return self.layers

    def _find(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Tensor
    ) -> tuple[Layers, list[Selected], list[int]]:
        # Named layers are the same whatever the size; what auto and full choose may depend on it.
        by_choice = self.settings.layer in ("auto", "full")
        key = tuple(grid.shape[1:]) if by_choice else grid.ndim
        if key not in self._selected:
            layers = discover(model, args, kwargs, self.settings.pick, self.settings.score_at)
            selected = layers.select(self.settings.layer) if self.settings.needs_layer else []
            while len(self._selected) >= KEPT_SHAPES:
                del self._selected[next(iter(self._selected))]
            self._selected[key] = (layers, selected, [layer.run or 1 for layer in selected])
        return self._selected[key]

    def _record(
        self,
        model: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        grid: Tensor,
    ) -> tuple[Recorded, list[Selected]]:
        settings = self.settings
        selected: list[Selected] = []
        first_runs: list[int] = []
        if settings.needs_layer:
            self.layers, selected, first_runs = self._find(model, args, kwargs, grid)

        guide = settings.guide if settings.backend in GUIDED else None
        shape = tuple(grid.shape)

        def run() -> Recorded:
            # With a guide the tape starts at the input, and all parts need their gradient.
            spares = guide is None and shape not in self._not_spared and _skips.is_available()
            spare = _skips.needed_parts_only() if spares else None
            recorded = record(
                model,
                forward,
                args,
                kwargs,
                layers=selected,
                first_runs=first_runs,
                grid=grid,
                guide=guide,
                logits=settings.score_at == "logits" and self._ends,
                spare=spare,
                from_start=self._from_start,
            )
            if spare is not None and spare.replaced == 0:
                if len(self._not_spared) >= KEPT_SHAPES:
                    self._not_spared.clear()
                self._not_spared.add(shape)
            return recorded

        recorded = run()
        ends_early = recorded.was_cut_off or not settings.pick(recorded.output).requires_grad
        if ends_early and any(recorded.records) and not self._from_start:
            # A switch of the network's own, entered before the first layer, put gradients off again.
            self._from_start = True
            recorded = run()
        if any(
            one is None and "#" not in layer.label and ran
            for one, layer, ran in zip(recorded.records, selected, recorded.runs)
        ):
            # It ran less often than before: its last run was not recorded.
            first_runs[:] = [1] * len(first_runs)
            recorded = run()
        for layer, one in zip(selected, recorded.records):
            if one is None:
                run_ = f"run {layer.run}" if "#" in layer.label else "its last run"
                raise InputError(f"layer '{layer.label}': {run_} did not happen for this input")
            layer_fits(layer, one, grid)
        ends = final_activation(settings.pick(recorded.output)) is not None
        if settings.score_at == "logits" and ends and not self._ends:
            self._ends = True
            recorded = run()
        self._ends = ends
        return recorded, selected

    def _maps(
        self,
        recorded: Recorded,
        selected: list[Selected],
        named: _targets.Named,
        score: _targets.Score,
        size: Size,
        readback: Readback,
        keep: bool,
    ) -> MadeTarget:
        """The maps of one target. `keep` retains the graph for the targets to come."""
        settings = self.settings
        if not score.sum.requires_grad:
            raise no_gradient(selected[0].label if selected else None)
        mean, tiny = None, list[Slot]()
        if recorded.gates is not None and recorded.start is not None:
            recorded.gates.on = True
            try:
                (gradient,) = _gradients(score.sum, [recorded.start], keep or bool(selected))
            finally:
                recorded.gates.on = False
            if gradient is None:
                raise no_gradient(None)
            mean, tiny = mean_of(gradient, readback)
        layers: list[tuple[str, Made | Warned]]
        if not settings.needs_layer:
            assert mean is not None
            layers = [("input", of_input(mean, size, readback))]
            return self._target(named, score, layers, tiny, readback)
        made: dict[Record, Made] = {}

        def reduce(one: Record, gradient: Tensor) -> None:
            layer = selected[recorded.records.index(one)]
            try:
                made[one] = of_layer(
                    settings.backend,
                    one.tensor,
                    gradient,
                    readback,
                    channels_last=layer.channels_last,
                    weights_cancel=layer.weights_cancel,
                    guided=mean,
                    size=size,
                )
            except InputError as error:
                raise InputError(f"layer '{layer.label}': {error}") from error

        _backward(recorded, score.sum, keep, reduce)
        layers = []
        for layer, one in zip(selected, recorded.records):
            if one in made:
                layers.append((layer.label, made[one]))
            elif settings.layer == "full":
                what = f"{no_gradient(layer.label)}. It has no map; leave it out"
                layers.append((layer.label, Warned("NO_GRADIENT", what, layer.label)))
            else:
                raise no_gradient(layer.label)
        return self._target(named, score, layers, tiny, readback)

    def _target(
        self,
        named: _targets.Named,
        score: _targets.Score,
        layers: list[tuple[str, Made | Warned]],
        tiny: list[Slot],
        readback: Readback,
    ) -> MadeTarget:
        fused = None
        if self.settings.fuse:
            of_layers = [(label, one) for label, one in layers if isinstance(one, Made)]
            fused = fuse(of_layers, self.settings.fuse, readback)
        signed = self.settings.backend in GUIDED
        of_input = not self.settings.needs_layer
        return MadeTarget(named, score, layers, signed, of_input, tiny, fused)


def _backward(
    recorded: Recorded, score: Tensor, keep: bool, reduce: Callable[[Record, Tensor], None]
) -> None:
    """Hands each record that a gradient reaches to `reduce` as soon as its gradient is there, and
    keeps no gradient: not even with all layers of a network are more than a few held here."""
    records = {one.tensor: one for one in recorded.records if one is not None}
    if recorded.start is not None:
        # The input's gradient is not asked for: up to the layers and no further.
        inputs = list(records)
    else:
        inputs = recorded.leaves
    captured = set(map(id, inputs))
    handles = []
    try:
        for tensor, one in records.items():
            if id(tensor) not in captured:
                handles.append(tensor.register_hook(_Reduce(one, reduce)))
        gradients = _gradients(score, inputs, keep)
        for tensor, gradient in zip(inputs, gradients):
            if gradient is not None and tensor in records:
                reduce(records[tensor], gradient)
    finally:
        for handle in handles:
            handle.remove()


def _gradients(score: Tensor, inputs: list[Tensor], keep: bool) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(score, inputs, retain_graph=keep, allow_unused=True)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise InputError(
            "the network writes over a value that the gradient needs, as it could not in training: take "
            f"a layer behind that, or the step out of place ({error})"
        ) from error


@dataclass(frozen=True)
class _Reduce:
    """A hook that changes nothing."""

    one: Record
    reduce: Callable[[Record, Tensor], None]

    def __call__(self, gradient: Tensor) -> None:
        self.reduce(self.one, gradient)


def _is_sigmoid(output: Tensor) -> bool:
    node = final_activation(output)
    return node is not None and node.name().startswith("Sigmoid")
