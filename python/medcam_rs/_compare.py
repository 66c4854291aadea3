"""The outputs of a module against those of its file, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Leaves = list[tuple[str, Any]]


class Mismatch(Exception):
    """The output of a file is not that of the module."""


class Gap(NamedTuple):
    """How far an output is from another."""

    #: Greatest difference; infinite where one is finite and the other not, or they are not equal.
    greatest: float
    #: The same as a part of the greatest magnitude of its tensor, over all tensors.
    relative: float
    #: The parts' names in the second output, where they have others in the first.
    names: list[str]


def leaves(returned: Any, name: str = "") -> Leaves:
    """The parts that have none themselves, by name: keys, fields of named tuples and places, joined
    by dots, as src/torch/output.rs has them."""
    if isinstance(returned, Mapping):
        parts = [(str(key), value) for key, value in returned.items()]
    elif isinstance(returned, (tuple, list)):
        fields = getattr(returned, "_fields", range(len(returned)))
        parts = [(str(key), value) for key, value in zip(fields, returned)]
    else:
        return [(name, returned)]
    return [leaf for key, value in parts for leaf in leaves(value, f"{name}.{key}".lstrip("."))]


def difference(expected: Leaves, actual: Leaves) -> Gap:
    """Raises `Mismatch` where the parts differ in number, kind, shape or dtype."""
    import torch

    if len(expected) != len(actual):
        raise Mismatch(f"it returns {len(actual)} parts, and the module {len(expected)}")
    greatest, relative = 0.0, 0.0
    for (name, one), (_, other) in zip(expected, actual):
        if not isinstance(one, torch.Tensor):
            if type(one) is not type(other) or one != other:
                raise Mismatch(f"it returns {other!r} as {name!r}, and the module {one!r}")
            continue
        if not isinstance(other, torch.Tensor):
            raise Mismatch(f"it returns {type(other).__name__} as {name!r}, and the module a tensor")
        kinds = [f"{tuple(t.shape)} of {str(t.dtype)[6:]}" for t in (one, other)]
        if kinds[0] != kinds[1]:
            raise Mismatch(f"its output is {kinds[1]}, and the module's {kinds[0]}")
        one, other = one.double(), other.double()
        same = (one == other) | (one.isnan() & other.isnan())
        if same.all():
            continue
        gap = (one - other)[~same].abs().nan_to_num(nan=float("inf")).max().item()
        scale = one[one.isfinite()].abs().max().item() if one.isfinite().any() else 0.0
        greatest = max(greatest, gap)
        relative = max(relative, gap / scale if scale > 0 else float("inf"))
    renamed = [name for name, _ in expected] != [name for name, _ in actual]
    return Gap(greatest, relative, [name for name, _ in actual] if renamed else [])
