"""One forward of a module, recorded from the first layer that was asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from ._guided import Gates
from ._layers import Selected
from ._modules import frozen
from ._skips import needed_parts_only
from ._trees import map_tensors


@dataclass(eq=False)
class Record:
    """The output of one run of a layer."""

    tensor: Tensor
    """The tensor of the graph whose gradient is that of the layer."""
    handed: Tensor
    """The copy that the network went on with, so that what writes to it leaves `tensor` alone."""
    version: int
    """That of `handed`, as the layer gave it."""
    own_version: int
    """That of `tensor`."""


@dataclass
class Recorded:
    """One forward."""

    output: Any
    """What the module returned, with its graph."""
    records: list[Record | None]
    """Of each layer asked for; None where the run did not happen. One record where two layers return
    one tensor, as a Sequential and its last child do."""
    runs: list[int]
    """How often each layer ran."""
    leaves: list[Tensor]
    """Where the tape starts."""
    was_cut_off: bool
    """Whether the network itself switched gradients off between two of the layers."""
    start: Tensor | None
    """The input as the tape's first leaf, for the guided methods."""
    gates: Gates | None
    logits_of: Callable[[Tensor], Tensor | None]
    """The tensor in front of the softmax or sigmoid that an output ends in; see `Logits.of`."""


class _Tape:
    """Takes the outputs of layers as forward hooks bring them."""

    def __init__(self, model: nn.Module, wishes: int, cut: bool) -> None:
        self._model = model
        self.records: list[Record | None] = [None] * wishes
        self.runs = [0] * wishes
        self.leaves: list[Tensor] = []
        self.was_cut_off = False
        self._cut = cut
        self._thread = threading.get_ident()

    def hook(self, wish: int, first: int, only: int | None) -> Callable[[Any, Any, Any], Any]:
        """A forward hook that takes run `only`, or else each run from `first` on: the last stays."""

        def taken(module: nn.Module, args: Any, output: Any) -> Any:
            if threading.get_ident() != self._thread:
                return None
            self.runs[wish] += 1
            run = self.runs[wish]
            if run != only if only else run < first:
                return None
            # Of a dropout in evaluation or an activation in place, the network may go on with the
            # input, which is the output.
            is_input = any(x is output for x in args) and not _belongs_to(self._model, output)
            return self._take(wish, output, is_input)

        return taken

    def _take(self, wish: int, output: Any, is_input: bool) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise InputError(
                f"it returns {_kind(output)}, not one floating tensor, and can carry no map"
            )
        if not self._cut and any(self.records) and not torch.is_grad_enabled():
            self.was_cut_off = True
        torch.set_grad_enabled(True)
        for record in self.records:
            if record and record.handed is output and output._version == record.version:
                self.records[wish] = record
                return None
        # A later layer's gradient goes through the graph as it is. Where one layer alone is asked for,
        # the tape starts anew with each of its runs.
        is_leaf = self._cut or not output.requires_grad
        # A view that was made without autograd cannot be written to with it.
        in_place = is_input and not output._is_view()
        source = output.clone() if in_place else output
        tensor = source.detach().requires_grad_() if is_leaf else source
        if is_leaf:
            self.leaves = [tensor] if self._cut else [*self.leaves, tensor]
        if in_place:
            # The values are the same: what another operation keeps of them for its gradient is valid.
            with torch.autograd._unsafe_preserve_version_counter(output):
                handed = output.copy_(tensor)
        else:
            handed = tensor.clone()
        self.records[wish] = Record(tensor, handed, handed._version, tensor._version)
        return handed


def _belongs_to(model: nn.Module, tensor: Any) -> bool:
    """Whether it is a parameter or buffer, which no tape may become part of."""
    return any(tensor is own for own in chain(model.parameters(), model.buffers()))


def _kind(output: Any) -> str:
    return f"a tensor of {output.dtype}" if isinstance(output, Tensor) else type(output).__name__


_PROBABILITIES = frozenset(
    (
        functional.softmax,
        functional.log_softmax,
        functional.sigmoid,
        torch.softmax,
        torch.log_softmax,
        torch.sigmoid,
        torch.sigmoid_,
        torch.special.softmax,
        torch.special.log_softmax,
        torch.special.expit,
        Tensor.softmax,
        Tensor.log_softmax,
        Tensor.sigmoid,
        Tensor.sigmoid_,
    )
)
_ENDS = ("SoftmaxBackward", "LogSoftmaxBackward", "SigmoidBackward")
_PASSES = (
    "AliasBackward",
    "CloneBackward",
    "ReshapeAliasBackward",
    "SqueezeBackward",
    "ToCopyBackward",
    "UnsafeViewBackward",
    "UnsqueezeBackward",
    "ViewBackward",
)


def final_activation(output: Tensor) -> Any:
    """The graph's node of the softmax, log-softmax or sigmoid that an output ends in, or None. What
    passes its values on, such as a squeeze, may follow it."""
    node = output.grad_fn
    while node is not None:
        kind = node.name().rstrip("0123456789")
        if kind in _ENDS:
            return node
        if kind not in _PASSES:
            return None
        node = node.next_functions[0][0]
    return None


class Logits(TorchFunctionMode):
    """While it is entered, keeps what goes into the last softmaxes and sigmoids."""

    def __init__(self) -> None:
        super().__init__()
        # Of as many as a network has heads; attention's own are pushed out.
        self._seen: deque[tuple[Any, Tensor]] = deque(maxlen=8)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _PROBABILITIES or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        writes = getattr(func, "__name__", "").endswith("_")
        before = x.clone() if writes and x.requires_grad else x
        y = func(*args, **kwargs)
        if y.grad_fn is not None:
            self._seen.append((y.grad_fn, before))
        return y

    def of(self, output: Tensor) -> Tensor | None:
        """The tensor in front of the final activation of `output`; None if there is none."""
        node = final_activation(output)
        if node is None:
            return None
        found = next((x for seen, x in self._seen if seen is node), None)
        if found is None:
            raise InputError(
                f"score_at='logits': the output ends in {node.name()}, whose input is out of sight, as "
                "in scripted code; take score_at='output'"
            )
        return found


@contextmanager
def _as_with_grad() -> Iterator[None]:
    """Kernels as with autograd: its absence lets transformers take others, of other roundings."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def record(
    model: nn.Module,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    layers: Sequence[Selected],
    first_runs: Sequence[int],
    grid: Tensor,
    guide: str | None,
    logits: bool,
    spare: needed_parts_only | None = None,
    from_start: bool = False,
) -> Recorded:
    """Runs `forward(*args, **kwargs)` of `model` and records the outputs of `layers`.

    Up to the first of them it runs without autograd, which is on from there to the end; `from_start`
    has it on all along, so that a network's own switch around a layer does not end it. With `guide`
    the tape starts at a copy of `grid`, the tensor among the arguments that has the batch. Grad mode,
    hooks and `requires_grad` of parameters are as before afterwards, whatever is raised.

    `first_runs[i]` is the run of layer `i` from which on it is recorded where its last one is meant.
    `spare` is entered around the forward.
    """
    caught, gates, start = Logits(), None, None
    tape = _Tape(model, len(layers), cut=len(layers) == 1 and guide is None)
    with ExitStack() as stack:
        if torch.is_grad_enabled():
            stack.enter_context(_as_with_grad())
        stack.enter_context(frozen(model))
        stack.enter_context(torch.set_grad_enabled(from_start))
        for wish, (layer, first) in enumerate(zip(layers, first_runs)):
            only = layer.run if "#" in layer.label else None
            module = model.get_submodule(layer.name)
            hook = _named(layer, tape.hook(wish, first, only))
            stack.callback(module.register_forward_hook(hook).remove)
        replaced: dict[int, Tensor] = {}
        if guide is not None:
            if not grid.is_floating_point():
                raise InputError(
                    f"a guided method needs an input of floating point; it is {grid.dtype}"
                )
            torch.set_grad_enabled(True)
            start = grid.detach().clone().requires_grad_()
            # Networks may write to their input, which autograd forbids for a leaf.
            replaced[id(grid)] = start.clone()
            gates = stack.enter_context(Gates(guide, model))
        if logits:
            stack.enter_context(caught)
        if spare is not None:
            stack.enter_context(spare)
        args, kwargs = map_tensors(lambda x: replaced.get(id(x), x.detach()), (args, kwargs))
        output = forward(*args, **kwargs)
    of = caught.of if logits else lambda _: None
    return Recorded(output, tape.records, tape.runs, tape.leaves, tape.was_cut_off, start, gates, of)


def _named(layer: Selected, hook: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    def with_name(module: Any, args: Any, output: Any) -> Any:
        try:
            return hook(module, args, output)
        except InputError as error:
            raise InputError(f"layer '{layer.label}': {error}") from None

    return with_name
