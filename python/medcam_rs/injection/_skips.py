"""The backward of a decoder at the price of what is needed.

The tape of a U-Net starts at the bottleneck. On the way up, each level concatenates the decoder's
own channels with a skip connection from before the tape, and convolves. Autograd asks only whether
the *concatenation* needs a gradient, so the convolution's backward computes that of all its
channels, and the concatenation drops those of the skip: half of the work, for nothing.
`needed_parts_only` computes the gradient of the channels that need one. It also spares what
autograd copies for activations in place behind an instance norm.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


@functools.cache
def is_available() -> bool:
    """Whether this PyTorch has the private functions that tell which calls to leave alone."""
    try:
        torch._C._are_functorch_transforms_active()
        torch._C._autograd._top_saved_tensors_default_hooks(False)
        torch.get_autocast_dtype("cpu")
        torch.is_autocast_enabled("cpu")
    except (AttributeError, TypeError):
        return False
    return True


class _Joined:
    """A concatenation along the channels, of which some parts need a gradient and some do not."""

    def __init__(
        self, result: Tensor, parts: Sequence[Tensor], gone: Callable[[Any], None]
    ) -> None:
        self.result = weakref.ref(result, gone)
        self.version = result._version
        #: (first channel, channels) of each part that needs a gradient, and the part's link.
        self.channels: list[tuple[int, int]] = []
        self.links: list[Tensor] = []
        #: Whether somebody wants the gradient of the concatenation itself.
        self.watched = False
        first = 0
        for part in parts:
            count = part.shape[1]
            if part.requires_grad:
                self.channels.append((first, count))
                self.links.append(_Link.apply(part))
            first += count

    def whole(self) -> bool:
        """Whether all channels' gradient is needed: who asks for it holds the tensor or a hook."""
        return self.watched or self.result() is not None


class _Link(torch.autograd.Function):
    """A stand-in for a part, without its data: what arrives as its gradient is the part's.

    The parts themselves are mostly gone by the time of the convolution, and are not to be kept.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        strides = [0] * part.dim()
        return torch.empty_strided(part.shape, strides, dtype=part.dtype, device=part.device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Own(torch.autograd.Function):
    """The same values in the same memory, as a tensor that is not a view."""

    @staticmethod
    def forward(ctx: Any, view: Tensor) -> Tensor:
        return view.new_empty(0).set_(view)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Convolution(torch.autograd.Function):
    """A convolution of a concatenation by frozen weights.

    The forward is the call itself. The backward needs the weights and the input's shape only, so
    the concatenation is not kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        call: Callable[[], Tensor],
        joined: _Joined,
        settings: dict[str, Any],
        result: Tensor,
        weight: Tensor,
        *links: Tensor,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight)
        ctx.joined, ctx.settings = joined, settings
        ctx.shape, ctx.format = result.shape, _memory_format(result)
        return call()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        channels = ctx.joined.channels
        nothing = (None,) * len(channels)
        if gradient is None:
            return (None, None, None, None, None, *nothing)
        (weight,) = ctx.saved_tensors
        if ctx.joined.whole():
            return (None, None, None, _input_gradient(ctx, gradient, weight), None, *nothing)
        slices = [weight.narrow(1, *part) for part in channels]
        weight = slices[0] if len(slices) == 1 else torch.cat(slices, 1)
        parts = _input_gradient(ctx, gradient, weight).split([count for _, count in channels], 1)
        return (None, None, None, None, None, *parts)


def _input_gradient(ctx: Any, gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the input channels that `weight` has."""
    batch, _, *grid = ctx.shape
    # Only its shape and memory format are read.
    like = torch.empty(
        (batch, weight.shape[1], *grid),
        dtype=weight.dtype,
        device=weight.device,
        memory_format=ctx.format,
    )
    return torch.ops.aten.convolution_backward(
        gradient,
        like,
        weight,
        None,
        **ctx.settings,
        transposed=False,
        output_padding=[0] * len(grid),
        groups=1,
        output_mask=[True, False, False],
    )[0]


class needed_parts_only(TorchFunctionMode):  # noqa: N801 - reads as torch.no_grad() does
    """Around a forward: spares its backward the gradients of concatenated parts that need none.

    A convolution (`torch.conv1d`, `conv2d`, `conv3d`) whose input is the result of `torch.cat`
    along the channels, of parts with and without `requires_grad`, gives the same output, and in the
    backward computes the gradient g of the needed parts alone: with W the weights of those
    channels, g = convolution_backward(gradient, W), the same sums as in the whole. Its input is not
    saved. On few shapes (small grids of many channels) oneDNN sums the fewer channels in another
    order; the gradient then differs by rounding, about 1e-6 of its largest value in float32.

    `instance_norm` gives the same output, but not as a view, which spares an activation that writes
    to it in place two copies of the gradient (autograd's CopySlices); the gradient is the same.

    Transposed convolutions stay: there oneDNN is often slower on fewer channels.

    It leaves a call alone that it cannot do exactly: weights or bias that require grad, groups, a
    concatenation that was written to, mixed dtypes, a cast by autocast, asymmetric 'same' padding,
    saved-tensor hooks (checkpoints, which record anew without this mode), transforms of
    `torch.func`, tensor subclasses with a `__torch_dispatch__`.

    A gradient at the concatenation itself is still right if, during the backward, its tensor is
    alive (as with `autograd.grad(score, [tensor])`), or it got its hook or `retain_grad` inside the
    `with`; then its convolutions compute all channels.

    `replaced` counts the calls replaced so far. A network where it is 0 after a forward has
    nothing to spare.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced = 0
        self._joined: dict[int, _Joined] = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._joined.clear()
        super().__exit__(kind, error, trace)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        handle = _HANDLERS.get(function)
        if handle is None:
            return function(*args, **(kwargs or {}))
        return handle(self, function, args, kwargs or {})

    def _concatenate(
        self, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        result = function(*args, **kwargs)
        parts = args[0] if args else kwargs["tensors"]
        axis = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
        if _mixed(parts) and "out" not in kwargs and _plain(result, parts, axis):
            key, joined = id(result), self._joined
            # An id is free for another tensor once this one is gone.
            joined[key] = _Joined(result, parts, lambda _: joined.pop(key, None))
        return result

    def _convolve(
        self, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        joined = self._joined.get(id(args[0] if args else kwargs.get("input")))
        if joined is None:
            return function(*args, **kwargs)
        named = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        settings = _settings(named) if _spares(joined, named) else None
        if settings is None:
            return function(*args, **kwargs)
        self.replaced += 1
        call = functools.partial(function, *args, **kwargs)
        # Of the dtype that autocast gives them.
        weight = named["weight"].to(named["input"].dtype)
        return _Convolution.apply(call, joined, settings, named["input"], weight, *joined.links)

    def _normalize(
        self, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        result = function(*args, **kwargs)
        if (
            type(result) is not Tensor
            or not (result.requires_grad and result._is_view())
            or torch._C._are_functorch_transforms_active()
        ):
            return result
        self.replaced += 1
        return _Own.apply(result)

    def _watch(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        joined = self._joined.get(id(args[0]))
        if joined is not None:
            joined.watched = True
        return function(*args, **kwargs)


def _mixed(parts: Sequence[Tensor]) -> bool:
    """Whether some of the parts need a gradient and some do not."""
    if not torch.is_grad_enabled():
        return False
    needed = sum(part.requires_grad for part in parts)
    return 0 < needed < len(parts)


def _plain(result: Tensor, parts: Sequence[Tensor], axis: Any) -> bool:
    """Whether the gradient of each part is a range of channels of that of the result."""
    return (
        axis in (1, 1 - result.dim())
        and result.dim() > 2
        and result.is_floating_point()
        and all(part.dim() == result.dim() and part.dtype == result.dtype for part in parts)
        and not any(_dispatches(tensor) for tensor in (result, *parts))
        # Checkpoints count the tensors saved, and record anew without this mode.
        and torch._C._autograd._top_saved_tensors_default_hooks(False) is None
        and not torch._C._are_functorch_transforms_active()
    )


def _dispatches(tensor: Tensor) -> bool:
    """Whether it is of a subclass that decides what an operator does."""
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _spares(joined: _Joined, named: dict[str, Any]) -> bool:
    """Whether a convolution with these arguments needs no more than the input's gradient."""
    given, weight, bias = named["input"], named["weight"], named.get("bias")
    kind = given.device.type
    as_cast = not torch.is_autocast_enabled(kind) or given.dtype == torch.get_autocast_dtype(kind)
    return (
        torch.is_grad_enabled()
        and given.requires_grad
        and given._version == joined.version
        and not joined.watched
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        # Without a batch axis, axis 1 is one of the image.
        and weight.dim() == given.dim()
        and named.get("groups", 1) == 1
        and as_cast
        and not _dispatches(weight)
    )


def _settings(named: dict[str, Any]) -> dict[str, Any] | None:
    """The settings of `aten.convolution_backward`; none if the padding of both sides differs."""
    kernel = named["weight"].shape[2:]
    each = functools.partial(_each_axis, axes=len(kernel))
    dilation, padding = each(named.get("dilation", 1)), named.get("padding", 0)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        spread = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if any(both % 2 for both in spread):
            return None
        padding = [both // 2 for both in spread]
    return {
        "stride": each(named.get("stride", 1)),
        "padding": each(padding),
        "dilation": dilation,
    }


def _each_axis(value: int | Sequence[int], axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _memory_format(tensor: Tensor) -> torch.memory_format:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = formats.get(tensor.dim())
    if last is None or tensor.is_contiguous() or not tensor.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last


_HANDLERS: dict[Any, Callable[..., Any]] = {
    torch.cat: needed_parts_only._concatenate,
    torch.concat: needed_parts_only._concatenate,
    torch.concatenate: needed_parts_only._concatenate,
    torch.conv1d: needed_parts_only._convolve,
    torch.conv2d: needed_parts_only._convolve,
    torch.conv3d: needed_parts_only._convolve,
    Tensor.register_hook: needed_parts_only._watch,
    Tensor.retain_grad: needed_parts_only._watch,
    torch.nn.functional.instance_norm: needed_parts_only._normalize,
}
