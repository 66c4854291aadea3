"""The modules of a network, each once, and their parameters frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def modules_of(model: nn.Module) -> Iterator[nn.Module]:
    """Each module once, quicker than `model.modules()`."""
    seen = {model}
    open_ = [model]
    while open_:
        module = open_.pop()
        yield module
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                open_.append(child)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Without gradients of parameters: the tape need not keep what only they need."""
    trained = [
        parameter
        for module in modules_of(model)
        for parameter in module._parameters.values()
        if parameter is not None and parameter.requires_grad and parameter.is_leaf
    ]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
