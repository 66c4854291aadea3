"""Runs one sample through a module to see its layers, and leaves the module as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from ..errors import InputError
from ._modules import frozen
from ._steps import Value, value_of
from ._trees import map_tensors, tensors


@dataclass(frozen=True)
class Seen:
    """One run of a submodule that returned a tensor."""

    name: str
    kind: str
    shape: tuple[int, ...]
    is_floating_point: bool
    value: Value | None


@dataclass
class Sample:
    """What one run showed, in the order in which the submodules ended."""

    seen: list[Seen] = field(default_factory=list)
    # Of submodules that returned no tensor: what they returned.
    returned: dict[str, str] = field(default_factory=dict)
    # What modules say of values, see `Graph`.
    marks: dict[Value, tuple[str, Value]] = field(default_factory=dict)
    input_shape: tuple[int, ...] = ()
    output: Any = None
    # What `_Tap` made: its node is gone with the last tensor that leads to it.
    tapped: list[Tensor] = field(default_factory=list)


class _Tap(torch.autograd.Function):
    """The same memory as a value of its own: where a view is written to in place, autograd would
    take the view's own node out of the graph."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        apart = tensor.detach()
        if type(apart) is Tensor or not apart._is_view():
            return apart
        # A subclass such as MONAI's MetaTensor hands out a view; one that is made in here could not
        # be written to in place.
        with torch._C.DisableTorchFunctionSubclass():
            own: Tensor = Tensor._make_subclass(type(apart), apart.detach())
        own.__dict__.update(apart.__dict__)
        return own

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def check(module: nn.Module) -> None:
    """Refuses modules whose submodules cannot be watched."""
    if isinstance(module, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise InputError(
            "the module is TorchScript, whose layers Python does not see: inject the module from "
            "which it was made, or explain the file with `medcam map MODEL.pt`"
        )
    if isinstance(module, torch.fx.GraphModule) and not any(
        # torch.export's own check of the input is a module, but no layer.
        node.op == "call_module" and node.target != "_guards_fn"
        for node in module.graph.nodes
    ):
        raise InputError(
            "the module is a graph that runs no submodules, as a program of torch.export: inject the "
            "module from which it was made, or torch.export.unflatten(program), whose modules run"
        )
    for name, part in module.named_modules():
        whose = f"submodule '{name}'" if name else "the module"
        is_compiled = getattr(part, "_compiled_call_impl", None) is not None
        if is_compiled or hasattr(part, "_orig_mod"):
            raise InputError(
                f"{whose} was compiled by torch.compile, which hides the layers: inject the module "
                "that was compiled (compiled._orig_mod, or the module before .compile())"
            )
    for name, parameter in module.named_parameters():
        if torch.nn.parameter.is_lazy(parameter):
            raise InputError(
                f"parameter '{name}' has no shape yet (a lazy module): run the module once before"
            )


def run_sample(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sample:
    """Runs the module on the first sample of its arguments, with a graph that starts at them.

    Tensors whose axis 0 is as long as that of the first are cut: to one sample, or to two of a
    module in training, whose batch norms may refuse one. Where that fails, one of them may be as long
    by chance, and the whole batch runs.
    """
    check(module)
    first = next((leaf for leaf in tensors((args, kwargs)) if leaf.is_floating_point()), None)
    if first is None:
        first = next(tensors((args, kwargs)), None)
    if first is None or first.dim() == 0:
        raise InputError("the module was called with no tensor that has a batch")
    batch = first.shape[0]
    if batch == 0:
        raise InputError(f"the input of shape {list(first.shape)} has no sample")
    is_training = any(part.training for part in module.modules())
    count = min(batch, 2 if is_training else 1)
    alike = [one for one in tensors((args, kwargs)) if one.dim() > 0 and one.shape[0] == batch]
    try:
        return _run(module, args, kwargs, first, count)
    except Exception:
        if len(alike) == 1 or count == batch:
            raise
    return _run(module, args, kwargs, first, batch)


def _run(
    module: nn.Module, args: Any, kwargs: Mapping[str, Any], first: Tensor, count: int
) -> Sample:
    batch = first.shape[0]

    def leaf(tensor: Tensor) -> Tensor:
        if tensor.dim() > 0 and tensor.shape[0] == batch:
            tensor = tensor[:count]
        copy = tensor.detach().clone()
        # A copy again: networks may write to their input, which a leaf forbids.
        return copy.requires_grad_().clone() if copy.is_floating_point() else copy

    sample = Sample(input_shape=(count, *first.shape[1:]))
    with torch.inference_mode(False), torch.enable_grad(), _as_it_was(module, first):
        own_args, own_kwargs = map_tensors(leaf, (args, dict(kwargs)))
        handles = []
        try:
            for name, part in module.named_modules():
                if name:
                    handles.append(part.register_forward_hook(_watch(sample, name)))
            sample.output = module(*own_args, **own_kwargs)
        finally:
            for handle in handles:
                handle.remove()
    return sample


def _watch(sample: Sample, name: str) -> Callable[[nn.Module, Any, Any], Tensor | None]:
    def hook(module: nn.Module, args: Any, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor):
            sample.returned[name] = _kind(output)
            return None
        replaced = None
        is_floating = output.is_floating_point()
        if is_floating and not output.is_inference():
            mark = _mark(module)
            source = value_of(args[0]) if args and isinstance(args[0], Tensor) else None
            made = value_of(output)
            if mark and source and made and source != made:
                sample.marks[made] = (mark, source)
            with torch.enable_grad():
                if not output.requires_grad:
                    # As where a layer is explained: the gradient begins anew, also behind no_grad.
                    replaced = _Tap.apply(output.detach().requires_grad_())
                elif output._is_view() or output.is_leaf:
                    replaced = _Tap.apply(output)
        if replaced is not None:
            sample.tapped.append(replaced)
        shown = output if replaced is None else replaced
        value = value_of(shown) if is_floating else None
        kind = type(module).__name__
        sample.seen.append(Seen(name, kind, tuple(output.shape), is_floating, value))
        return replaced

    return hook


def _mark(module: nn.Module) -> str | None:
    """The row of what a module does, where the graph may not tell."""
    if isinstance(module, _DropoutNd) and module.training:
        return "Dropout"
    if isinstance(module, _InstanceNorm) and (module.training or module.running_mean is None):
        return "InstanceNorm"
    return None


def _kind(output: Any) -> str:
    """A type in words, such as list[Tensor, Tensor]."""
    if isinstance(output, Mapping):
        return f"{type(output).__name__} of {', '.join(map(repr, output))}"
    if isinstance(output, (list, tuple)):
        return f"{type(output).__name__}[{', '.join(_kind(part) for part in output)}]"
    return "None" if output is None else type(output).__name__


@contextmanager
def _as_it_was(module: nn.Module, first: Tensor) -> Iterator[None]:
    """Without gradients of parameters; afterwards flags, buffers and random state are as before."""
    buffers = [
        (part, name, buffer, None if buffer is None else buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
    ]
    devices = {tensor.device for tensor in (first, *module.parameters())}
    cuda = {device.index for device in devices if device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=sorted(filter(None.__ne__, cuda))))
        stack.enter_context(frozen(module))
        try:
            yield
        finally:
            for part, name, buffer, copy in buffers:
                part._buffers[name] = buffer
                # Sparse and meta buffers are what they were: no layer counts in them.
                is_dense = buffer is not None and buffer.layout == torch.strided
                if copy is None or not is_dense or buffer.is_meta:
                    continue
                if not torch.equal(buffer, copy):
                    with torch.no_grad():
                        buffer.copy_(copy)

