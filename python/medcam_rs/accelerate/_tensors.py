"""Which tensors the kernels take, in which layout, and arithmetic that several libraries share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DeviceError, MedcamError, UnavailableError

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# An epsilon beside a range changes the map by a factor. Factors closer to 1 than this are left out:
# applying one costs a pass over the map.
_NEGLIGIBLE = 1e-6


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
        message = f"medcam_rs.accelerate: the library's own code runs, not the kernels: {error}"
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
