"""Nested arguments and outputs: their tensors, changed or picked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor

from ..errors import InputError


def map_tensors(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Tuples, lists, mappings and dataclasses, nested or not, with each tensor changed. What holds
    none that changes is handed back as it is."""
    if isinstance(tree, Tensor):
        return change(tree)
    parts = _parts(tree)
    if parts is None:
        return tree
    new = {key: map_tensors(change, part) for key, part in parts.items()}
    if all(new[key] is part for key, part in parts.items()):
        return tree
    if isinstance(tree, (tuple, list)):
        return type(tree)(*new.values()) if hasattr(tree, "_fields") else type(tree)(new.values())
    if isinstance(tree, Mapping) and not isinstance(tree, MutableMapping):
        return type(tree)(new)  # type: ignore[call-arg]
    changed: Any = copy(tree)
    for key, part in new.items():
        if isinstance(tree, Mapping):
            changed[key] = part
        else:
            # Of a frozen dataclass too.
            object.__setattr__(changed, key, part)
    return changed


def _parts(tree: Any) -> dict[Any, Any] | None:
    """What a container holds, by key, field or place; None of anything else."""
    if isinstance(tree, Mapping):
        return dict(tree)
    if isinstance(tree, (tuple, list)):
        return dict(zip(getattr(tree, "_fields", range(len(tree))), tree))
    if is_dataclass(tree) and not isinstance(tree, type):
        return {one.name: getattr(tree, one.name) for one in fields(tree)}
    return None


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The leaves of what `map_tensors` goes through, depth first, with their dotted names."""
    parts = _parts(tree)
    if parts is None:
        yield ".".join(path), tree
        return
    for name, part in parts.items():
        yield from leaves(part, (*path, str(name)))


def tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors among the leaves."""
    return (leaf for _, leaf in leaves(tree) if isinstance(leaf, Tensor))


@dataclass(frozen=True)
class Pick:
    """Picks the explained tensor of an output: by the number of its leaf, by its name, or else the
    first floating tensor of two axes or more."""

    which: int | str | None = field(default=None)

    def __call__(self, output: Any) -> Tensor:
        found = list(leaves(output))
        if self.which is None:
            tensors = [leaf for _, leaf in found if isinstance(leaf, Tensor)]
            floating = [leaf for leaf in tensors if leaf.is_floating_point()]
            large = [leaf for leaf in floating if leaf.ndim >= 2]
            chosen: Any = next(iter(large or floating or tensors), None)
            if chosen is None:
                raise InputError(
                    f"the model returned {type(output).__name__}, which holds no tensor"
                )
            return chosen
        if isinstance(self.which, int):
            chosen = found[self.which][1] if self.which < len(found) else None
        else:
            chosen = next((leaf for name, leaf in found if name == self.which), None)
        if not isinstance(chosen, Tensor):
            names = ", ".join(
                f"{n} or '{name}'" for n, (name, leaf) in enumerate(found) if isinstance(leaf, Tensor)
            )
            raise InputError(f"output={self.which!r} is no tensor of the output; there are {names}")
        return chosen
