"""Guided backpropagation: activations that let through only what speaks for the score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import InputError

# The argument that must be 0 for these to cut off there: its place, and its names.
_CUT_OFF: dict[str, tuple[tuple[int, tuple[str, ...]], ...]] = {
    "hardtanh": ((1, ("min_val",)),),
    "threshold": ((1, ("threshold",)), (2, ("value",))),
    "clamp": ((1, ("min",)),),
    "clip": ((1, ("min",)),),
    "clamp_min": ((1, ("min",)),),
}
# The greater of two tensors, of which one may be 0.
_GREATER = ("maximum", "fmax", "max")
_LIKE_RELU = ("relu", "relu6", *_CUT_OFF)
# Their derivative is 0 where the input is not positive; that of the others may not be.
_FLAT = ("relu", "relu6", "hardtanh", "threshold")
_OTHERS = (
    "leaky_relu",
    "prelu",
    "rrelu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "hardswish",
)


class Gates(TorchFunctionMode):
    """While it is entered, activations get a gate in front of their backward.

    Forward is the plain operator, in place or not, and so is its derivative `f'`. The gate lets a
    gradient through as it is or, while `on`, by the guided rule (arXiv 1412.6806, section 3.4):

        g_in = g_out · f'(x) where g_out > 0 and x > 0, else 0

    `guide="relu"` gates ReLU, ReLU6, and hardtanh, threshold and clamp where they cut off at 0;
    `"all"` LeakyReLU, PReLU, RReLU, ELU, SELU, CELU, GELU, SiLU, Mish and Hardswish too.
    """

    def __init__(self, guide: str, model: nn.Module) -> None:
        super().__init__()
        self.on = False
        self.guided: Counter[str] = Counter()
        """How many activations have a gate, by name."""
        self.unguided: Counter[str] = Counter()
        """How many have none that `"all"` would give one."""
        self.scripts = _scripts(model)
        """Modules of TorchScript, whose activations Python does not see."""
        self._everything = guide == "all"

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in _GREATER:
            given = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)][:2]
            operands = sorted(given, key=lambda one: not getattr(one, "requires_grad", False))
            if len(operands) < 2 or not isinstance(operands[1], Tensor) or not _is_0(operands[1]):
                return func(*args, **kwargs)
            # Where both are 0 autograd halves the gradient, which the gate makes 0.
            args, kwargs, is_gated = (operands[0], operands[1]), {}, True
        elif name in _LIKE_RELU:
            is_gated = all(_is_zero(place, args, kwargs) for place in _CUT_OFF.get(name, ()))
        elif name in _OTHERS:
            is_gated = self._everything
            if not is_gated:
                self.unguided[name] += 1
        else:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs.get("input", kwargs.get("self"))
        if not (is_gated and isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled()):
            return func(*args, **kwargs)
        self.guided[name] += 1
        shut = None if name in _FLAT else x.detach() <= 0
        if not (args and x._is_view()):
            y = func(*args, **kwargs)
            self._put_gate(y, shut)
            return y
        # Writing to a view puts the operator into the history of what it is a view of, where no hook is
        # called. So a copy is activated and, if that was in place, copied over the view.
        copy = x.clone()
        y = func(copy, *args[1:], **kwargs)
        self._put_gate(y, shut)
        return x.copy_(y) if y is copy else y

    def _put_gate(self, y: Tensor, shut: Tensor | None) -> None:
        place = y.output_nr

        def gate(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
            gradient = gradients[place]
            if not self.on or gradient is None:
                return None
            # Neither hides a NaN.
            passed = gradient.clamp_min(0)
            if shut is not None:
                passed.masked_fill_(shut, 0)
            return (*gradients[:place], passed, *gradients[place + 1 :])

        assert y.grad_fn is not None
        y.grad_fn.register_prehook(gate)

    def left_out(self) -> tuple[str, str]:
        """What has no gate, and what to do about it; empty if all have one."""
        what = [listed(self.unguided)] if self.unguided else []
        advice = ["Guide all kinds with guide='all'"] if self.unguided else []
        if self.scripts:
            names = ", ".join(f"'{name}'" for name in self.scripts)
            what.append(f"those in the TorchScript of {names}")
            advice.append("In place of TorchScript take the modules that it was made of")
        return " and ".join(what), ". ".join(advice)

    def check(self, backend: str) -> None:
        """Refuses a network in which nothing was guided."""
        if self.guided:
            return
        if self.unguided or self.scripts:
            what = "it has no ReLU, but {}. {}".format(*self.left_out())
        else:
            what = "it has no activation that can be guided. Take another backend"
        raise InputError(
            f"{backend}: nothing in the network was guided, so the map would be the plain gradient: "
            f"{what}"
        )


def _scripts(model: nn.Module) -> list[str]:
    """The outermost modules within a network that are TorchScript and have activations."""
    # A clamp may cut off anywhere, and is none for certain.
    activations = ("relu", "relu6", "hardtanh", *_OTHERS)
    kinds = [f"aten::{one}{end}" for one in activations for end in ("", "_")]
    found: list[str] = []
    for name, part in model.named_modules():
        if not isinstance(part, torch.jit.ScriptModule) or not part._c._has_method("forward"):
            continue
        if any(name.startswith(f"{outer}.") for outer in found):
            continue
        graph: Any = part.inlined_graph
        if any(graph.findAllNodes(kind) for kind in kinds):
            found.append(name)
    return found


def listed(counts: Counter[str]) -> str:
    """`2 elu, 1 gelu`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _is_zero(place: tuple[int, tuple[str, ...]], args: Any, kwargs: Any) -> bool:
    position, names = place
    if position < len(args):
        value = args[position]
    else:
        value = next((kwargs[name] for name in names if name in kwargs), None)
    return _is_0(value)


def _is_0(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return isinstance(value, (int, float)) and value == 0
