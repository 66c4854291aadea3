"""Reads an autograd graph as steps from values to a value.

A value is an output of a node, `(grad_fn, output_nr)`. Some nodes are read together as one step:
the reshapes and products of a linear layer, and the batch norm over reshaped tensors that is an
instance norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ._operators import OPERATORS, UNKNOWN, Family, Operator, operator_named

Node = Any  # torch.autograd.graph.Node, of which torch gives no common class before 2.5
Value = tuple[Node, int]


@dataclass(frozen=True)
class Step:
    """One step from values to a value. `inputs` has `None` for weights and numbers."""

    node: Node
    operator: Operator
    inputs: tuple[Value | None, ...]

    @property
    def activations(self) -> list[Value]:
        return [value for value in self.inputs if value is not None]


def value_of(tensor: torch.Tensor) -> Value | None:
    """The value that a tensor is in the graph; `None` of one that has no `grad_fn`."""
    return None if tensor.grad_fn is None else (tensor.grad_fn, tensor.output_nr)


def shape_of(value: Value) -> tuple[int, ...] | None:
    """The shape of a value, where torch tells it."""
    node, number = value
    if hasattr(node, "variable"):
        return tuple(node.variable.shape)
    try:
        return tuple(int(extent) for extent in node._input_metadata[number].shape)
    except (AttributeError, IndexError, RuntimeError, TypeError):
        return None


def saved(node: Node, name: str) -> Any:
    """What a node keeps under a name; `None` where it keeps none, or it was written over since."""
    try:
        return getattr(node, f"_saved_{name}")
    except (AttributeError, RuntimeError):
        return None


def signed(number: Any) -> int | None:
    """An axis; torch hands -1 out as an unsigned number of 64 bits."""
    if not isinstance(number, int):
        return None
    return number - 2**64 if number >= 2**63 else number


def axes_of(node: Node, rank: int | None) -> set[int] | None:
    """The axes that a node keeps as `dim`, from 0."""
    dims = saved(node, "dim")
    if dims is None or rank is None:
        return None
    dims = [signed(dim) for dim in (dims if isinstance(dims, (tuple, list)) else (dims,))]
    return None if None in dims else {dim % rank for dim in dims if dim is not None}


# What autograd puts around a product of matrices or between weights and their use.
_SHAPES = {"View", "UnsafeView", "ReshapeAlias", "Expand", "Clone"}
_OF_WEIGHTS = _SHAPES | {"T", "Transpose", "Permute", "ToCopy", "Squeeze", "Unsqueeze", "Repeat"}


def _base(node: Node) -> str:
    return str(node.name()).split("Backward")[0]


def is_input(value: Value) -> bool:
    """Whether it is a leaf that is no parameter."""
    variable = getattr(value[0], "variable", None)
    return variable is not None and not isinstance(variable, torch.nn.Parameter)


def _is_weights(value: Value) -> bool:
    node = value[0]
    while _base(node) in _OF_WEIGHTS and node.next_functions and node.next_functions[0][0]:
        node = node.next_functions[0][0]
    return isinstance(getattr(node, "variable", None), torch.nn.Parameter)


class Reader:
    """Reads nodes as steps. Values in `stops` are never read over; `marks` are told by modules."""

    def __init__(self, stops: set[Value], marks: Mapping[Value, tuple[str, Value]]) -> None:
        self.stops = stops
        self.marks = marks
        self.steps: dict[Value, Step] = {}

    def step(self, value: Value) -> Step:
        if value not in self.steps:
            self.steps[value] = self._read(value)
        return self.steps[value]

    def _read(self, value: Value) -> Step:
        node = value[0]
        if value in self.marks:
            name, source = self.marks[value]
            return Step(node, OPERATORS[name], (source,))
        inputs = self._inputs(node)
        step = self._instance_norm(value) or self._product(value)
        if step is not None:
            return step
        operator = operator_named(node.name())
        if operator.family is Family.REDUCTION:
            operator = self._reduction(value, operator)
        elif operator.family is Family.GROUP_NORM:
            groups, channels = saved(node, "group"), saved(node, "C")
            # A group of one channel takes the mean out of each, as an instance norm does.
            if groups is not None and groups == channels:
                operator = OPERATORS["InstanceNorm"]
        return Step(node, operator, inputs)

    def _inputs(self, node: Node) -> tuple[Value | None, ...]:
        values = [(source, number) if source else None for source, number in node.next_functions]
        return tuple(None if value and _is_weights(value) else value for value in values)

    def _behind_view(self, value: Value | None) -> Value | None:
        """What a view is of, if `value` is one that nothing stops at."""
        if value is None or _base(value[0]) not in _SHAPES or value in self.stops:
            return None
        return self._inputs(value[0])[0]

    def _instance_norm(self, value: Value) -> Step | None:
        """View of a batch norm in training of a view: F.instance_norm."""
        if _base(value[0]) not in ("View", "UnsafeView", "ReshapeAlias"):
            return None
        norm = self._inputs(value[0])[0]
        if norm is None or norm in self.stops or saved(norm[0], "training") is not True:
            return None
        if operator_named(norm[0].name()).family is not Family.BATCH_NORM:
            return None
        before = self._inputs(norm[0])
        source = self._behind_view(before[0])
        shape, flat = shape_of(value), shape_of(norm)
        if source is None or not shape or not flat or shape_of(source) != shape:
            return None
        if flat[:2] != (1, shape[0] * shape[1]):
            return None
        return Step(value[0], OPERATORS["InstanceNorm"], (source, *before[1:]))

    def _product(self, value: Value) -> Step | None:
        """A product of matrices, with the reshapes that torch puts around it."""
        core = value
        if _base(value[0]) in ("View", "UnsafeView", "ReshapeAlias"):
            inner = self._inputs(value[0])[0]
            if inner is None or inner in self.stops:
                return None
            core = inner
        operator = operator_named(core[0].name())
        if operator.family is not Family.PRODUCT:
            return None
        inputs = self._inputs(core[0])
        if "addbmm" in operator.name.lower() or "addmm" in operator.name.lower():
            inputs = inputs[1:]
        is_linear = sum(source is not None for source in inputs) == 1
        shape, flat = shape_of(value), shape_of(core)
        kept = 1 if is_linear else 2
        if core is not value and (not shape or not flat or shape[-kept:] != flat[-kept:]):
            return None
        # Weights times an activation mix voxels, which is no linear layer.
        if is_linear and inputs[0] is not None:
            return Step(value[0], OPERATORS["Linear"], (self._operand(inputs[0]),))
        return Step(value[0], UNKNOWN if is_linear else operator, inputs)

    def _operand(self, value: Value) -> Value:
        """An operand in front of reshapes that keep its last axis."""
        earlier = self._behind_view(value)
        while earlier is not None:
            before, after = shape_of(earlier), shape_of(value)
            if not before or not after or before[-1] != after[-1]:
                break
            value, earlier = earlier, self._behind_view(earlier)
        return value

    def _reduction(self, value: Value, operator: Operator) -> Operator:
        """A mean that keeps the axes is an average pool to one voxel, as torch writes it."""
        shape = shape_of(value)
        rank = len(shape) if shape else None
        is_mean = operator.name == "Mean" and saved(value[0], "keepdim") is True
        if is_mean and rank and rank > 3 and axes_of(value[0], rank) == set(range(2, rank)):
            return OPERATORS["GlobalAvgPool"]
        return operator
