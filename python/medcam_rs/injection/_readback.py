"""Small results of a device, which come to the host together: one copy, and one wait."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor


def is_on_device(tensor: Tensor) -> bool:
    """Whether a look at its values takes a wait."""
    return tensor.device.type != "cpu"


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. From the host to CUDA it goes through pinned memory, and nothing waits."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Slot:
    """Where the values of a tensor are, once the readback has fetched them."""

    def __init__(self) -> None:
        self.words: numpy.ndarray | None = None

    def integers(self) -> list[int]:
        """Integers, or booleans as 0 and 1."""
        return self._there().tolist()

    def floats(self) -> list[float]:
        """The values of a floating tensor, in float32."""
        return self._there().view(numpy.float32).tolist()

    def _there(self) -> numpy.ndarray:
        assert self.words is not None, "read before the readback was fetched"
        return self.words


class Readback:
    """Collects small tensors whose values are needed on the host, and fetches all of them at once."""

    def __init__(self) -> None:
        self._asked: list[tuple[Tensor, Slot]] = []

    def ask(self, tensor: Tensor) -> Slot:
        """Asks for the values of a tensor. Nothing waits: those of the CPU are there at once."""
        flat = tensor.detach().as_subclass(Tensor).flatten()
        if flat.is_floating_point():
            words = flat.to(torch.float32).view(torch.int32)
        else:
            words = flat.to(torch.int32)
        slot = Slot()
        if is_on_device(flat):
            self._asked.append((words, slot))
        else:
            slot.words = words.numpy()
        return slot

    def fetch(self) -> None:
        """Fills all slots. This is the wait; without a tensor on a device there is none."""
        if not self._asked:
            return
        device = self._asked[0][0].device
        parts = [words.to(device, non_blocking=True) for words, _ in self._asked]
        there = torch.cat(parts).cpu().numpy()
        start = 0
        for words, slot in self._asked:
            slot.words = there[start : start + words.numel()]
            start += words.numel()
        self._asked.clear()
