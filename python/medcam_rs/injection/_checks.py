"""Checks of what goes into a forward and what comes out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from . import _readback, _refusals
from ._layers import Selected
from ._readback import Readback, Slot
from ._tape import Record
from ._trees import tensors


def grid_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first tensor of the arguments: the batch, `(B, C, [D,] H, W)`."""
    grid = next(tensors((args, kwargs)), None)
    if grid is None:
        raise InputError("the model was called without a tensor; its first is the batch")
    if grid.ndim not in (4, 5) or 0 in grid.shape:
        raise InputError(
            f"input of shape {tuple(grid.shape)}; maps are made of batches (B, C, H, W) or "
            "(B, C, D, H, W). disable_medcam() runs the model alone"
        )
    return grid


@dataclass(frozen=True)
class Unchecked:
    """A tensor of which nobody has looked yet whether it is finite."""

    what: str
    tensor: Tensor
    sum: Slot

    def check(self) -> None:
        """Refuses NaN and infinity. Only if the sum is not finite are values counted."""
        if all(map(math.isfinite, self.sum.floats())):
            return
        bad = int((~torch.isfinite(self.tensor)).sum())
        if bad:
            count = self.tensor.numel()
            raise InputError(f"{self.what}: {bad} of {count} values are NaN or infinite")


def finite(what: str, tensor: Tensor, readback: Readback) -> list[Unchecked]:
    """Refuses NaN and infinity, where that takes no wait; else returns what is to be checked once the
    readback is fetched. The sum is one pass."""
    tensor = tensor.detach()
    if not tensor.is_floating_point():
        return []
    unchecked = Unchecked(what, tensor, readback.ask(tensor.sum(dtype=torch.float32)))
    if _readback.is_on_device(tensor):
        return [unchecked]
    unchecked.check()
    return []


def layer_fits(layer: Selected, one: Record, grid: Tensor) -> None:
    """Refuses a layer whose output can carry no map."""
    if one.tensor._version != one.own_version:
        raise InputError(
            f"layer '{layer.label}' cannot carry a map: it returns a tensor that the network has by "
            "another name too, as its input, and writes to later on. Take a layer in front of it or "
            "behind"
        )
    shape = tuple(one.tensor.shape)
    spatial = shape[1:-1] if layer.channels_last else shape[2:]
    voxels = 1
    for extent in spatial:
        voxels *= extent
    if len(shape) == grid.ndim and shape[0] != grid.shape[0]:
        why = _refusals.without_batch(shape, shape[0], grid.shape[0])
        raise InputError(f"layer '{layer.label}' cannot carry a map: {why}")
    if len(shape) != grid.ndim or voxels < 2:
        raise InputError(
            f"layer '{layer.label}': its output of shape {shape} is no batch of images for this input "
            f"of shape {tuple(grid.shape)}, and can carry no map"
        )


def no_gradient(layer: str | None) -> InputError:
    """Why no gradient reaches a layer, or the input if None."""
    if layer is None:
        return InputError("no gradient of the score reaches the input")
    return InputError(
        f"layer '{layer}': no gradient of the score reaches it; the score does not depend on it, or the "
        "network switches gradients off behind it (torch.no_grad, detach)"
    )
