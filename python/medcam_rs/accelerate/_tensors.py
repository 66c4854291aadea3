"""Which tensors the kernels take, in which layout, and arithmetic that several libraries share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DeviceError, MedcamError, UnavailableError

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# An epsilon beside a range changes the map by a factor. Factors closer to 1 than this are left out:
# applying one costs a pass over the map.
_NEGLIGIBLE = 1e-6
# Values in each block of an elementwise formula. Four f32 temporaries of a block fit into 1 MiB of
# cache; on a GPU, blocks that small would cost more in launches than in work.
_BLOCK = 1 << 16
_BLOCK_OF_GPU = 1 << 24


def usable(*tensors: Any) -> bool:
    """Whether the kernels take these as activation and gradient: `(B, C, [D,] H, W)`, alike."""
    first = tensors[0]
    return all(
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.dim() in (4, 5)
        and tensor.numel() > 0
        and tensor.dtype in FLOATS
        and tensor.device.type in ("cpu", "cuda")
        and (tensor.dtype, tensor.device, tensor.shape) == (first.dtype, first.device, first.shape)
        for tensor in tensors
    )


def dense(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors without graph and subclass, in one layout: channels last if that is the first's.

    A gradient behind global average pooling has stride 0 and is copied; a tensor whose layout the
    kernels take is not.
    """
    plain = [tensor.detach() for tensor in tensors]
    if any(type(tensor) is not Tensor for tensor in plain):
        plain = [tensor.as_subclass(Tensor) for tensor in plain]
    if all(tensor.is_contiguous() for tensor in plain):
        return tuple(plain)
    last = torch.channels_last if plain[0].dim() == 4 else torch.channels_last_3d
    lies_last = not plain[0].is_contiguous() and plain[0].is_contiguous(memory_format=last)
    layout = last if lies_last else torch.contiguous_format
    return tuple(tensor.contiguous(memory_format=layout) for tensor in plain)


def fall_back(error: MedcamError) -> None:
    """Warns, before the library's own code runs, of a device that does not run the kernels."""
    if isinstance(error, (UnavailableError, DeviceError)):
        message = f"medcam_rs.accelerate: the library's own code runs instead of the kernels: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def epsilon_factors(ranges: Sequence[float], epsilon: float) -> list[float] | None:
    """Factors that turn `x / range` into `x / (range + epsilon)`; `None` if all are negligible.

    A constant map, which is normalised to 0, has the factor 0.
    """
    factors = [float(extent) / (float(extent) + epsilon) for extent in ranges]
    return None if all(factor > 1 - _NEGLIGIBLE or factor == 0 for factor in factors) else factors


def differentiates(*tensors: Tensor) -> bool:
    """Whether autograd records what is done with these, which the kernels would cut off."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def cubed_weights(activation: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    """Grad-CAM++'s weights as M3d-CAM and MONAI compute them, without `exp(score)`; `(B, C)`.

    `sum_n ReLU(G)·G² / (D + epsilon)` with `D = 2·G² + sum_m A·G³`, and 1 where `D` is 0. Their
    epsilon outweighs `D` where `G` is small, as it is behind average pooling, so results agree only
    if it is added here, too. `medcam_rs.alpha_weights` has none.
    """

    def weights(a: Tensor, g: Tensor) -> Tensor:
        square = g.square()
        total = g.pow(3).mul_(a).sum(-1, keepdim=True)
        denominator = square.mul(2).add_(total)
        denominator.masked_fill_(denominator == 0, 1.0).add_(epsilon)
        return square.div_(denominator).mul_(g.relu()).sum(-1)

    return _by_channel(weights, activation, gradient)


def paper_weights(activation: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    """Grad-CAM++'s weights of the paper with an epsilon, as pytorch-grad-cam has them; `(B, C)`.

    `sum_n ReLU(G)·G² / (2·G² + (sum_m A)·G³ + epsilon)`.
    """

    def weights(a: Tensor, g: Tensor) -> Tensor:
        square = g.square()
        total = a.sum(-1, keepdim=True)
        denominator = (square * g).mul_(total).add_(square, alpha=2).add_(epsilon)
        return square.div_(denominator).masked_fill_(g == 0, 0.0).mul_(g.relu()).sum(-1)

    return _by_channel(weights, activation, gradient)


def undivided_weights(gradient: Tensor) -> Tensor:
    """TorchCAM's weights of Grad-CAM++, `sum_n ReLU(G)·G²`; `(B, C)`, of the gradient's type."""
    rows = gradient.flatten(0, 1).flatten(1)
    parts = [g.square().mul_(g.relu()).sum(-1) for g in rows.split(_rows_of_a_block(rows))]
    return torch.cat(parts).view(gradient.shape[:2])


def _by_channel(
    weights: Callable[[Tensor, Tensor], Tensor], activation: Tensor, gradient: Tensor
) -> Tensor:
    """`weights` of a few channels at a time, so that what is in between stays in the cache."""
    a, g = (tensor.flatten(0, 1).flatten(1) for tensor in (activation, gradient))
    # In f16 the square of a gradient below 2.4e-4 is 0.
    wide = torch.promote_types(gradient.dtype, torch.float32)
    count = _rows_of_a_block(g)
    pairs = zip(a.split(count), g.split(count), strict=True)
    parts = [weights(rows.to(wide), gradients.to(wide)) for rows, gradients in pairs]
    return torch.cat(parts).view(gradient.shape[:2])


def _rows_of_a_block(rows: Tensor) -> int:
    return max(1, (_BLOCK_OF_GPU if rows.is_cuda else _BLOCK) // rows.shape[1])
