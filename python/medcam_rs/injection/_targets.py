"""The score that a map explains: its gradient is taken."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor

from .._arrays import in_numpy, real
from .._files import components
from ..errors import DtypeError, InputError
from . import _readback
from ._readback import Readback, Slot

Shape = tuple[int, ...]

MOST_COMPONENTS = 64
"""Greatest number of components of one class that have maps, the largest first."""


@dataclass(frozen=True)
class Target:
    """One target by kind: `best`, `all`, `each`, `class`, `classes`, `predicted`, `components`,
    `region` or `function`. Kinds other than `each` and `components` have one map for each sample."""

    kind: str
    number: int | None = None
    """The class of `class`, `predicted`, `components` and `region`; None for the best one."""
    classes: tuple[int, ...] = ()
    mask: Any = None
    """The weight of each voxel of a region, `([D,] H, W)` or `(B, [D,] H, W)`."""
    function: Callable[[Tensor], Tensor] | None = None
    component: int | None = None
    """The place of a region that is a connected component, from 1."""

    @property
    def label(self) -> str:
        """The name of its maps."""
        if self.component is not None:
            return f"component{self.component}"
        numbered = self.kind in ("class", "predicted", "components")
        return f"{self.kind}{self.number}" if numbered else self.kind


def parse(label: Any) -> tuple[Target, ...]:
    """The targets that `label` asks for, as `inject` describes it."""
    if isinstance(label, tuple) and not _is_region(label):
        if not label:
            raise InputError("label: no target was given; a map needs something to explain")
        return tuple(itertools.chain.from_iterable(map(parse, label)))
    return (_parse_one(label),)


def _is_region(label: tuple[Any, ...]) -> bool:
    return len(label) == 2 and len(getattr(label[1], "shape", ())) >= 2


def _parse_one(label: Any) -> Target:
    expected = (
        "it takes None, 'best', 'all', 'each', a class, a list of one class per sample, "
        "'predicted:N', 'components:N', (class, mask), a function, or a tuple of these"
    )
    if label is None:
        return Target("all")
    if isinstance(label, tuple):
        of, mask = label
        if of is None or of == "best":
            return Target("region", mask=mask)
        return Target("region", number=_class(of, expected), mask=mask)
    if isinstance(label, list) or getattr(label, "ndim", 0) == 1:
        return Target("classes", classes=tuple(_class(of, expected) for of in label))
    if isinstance(label, str):
        if label in ("best", "all", "each"):
            return Target(label)
        kind, separator, number = label.partition(":")
        if separator and kind in ("predicted", "components") and number.isdecimal():
            return Target(kind, number=int(number))
        if label.isdecimal():
            return Target("class", number=int(label))
        raise InputError(f"label {label!r}: {expected}")
    if callable(label) and not isinstance(label, Tensor):
        return Target("function", function=label)
    return Target("class", number=_class(label, expected))


def _class(of: Any, expected: str) -> int:
    is_truth = isinstance(of, bool) or getattr(of, "dtype", None) in (torch.bool, numpy.bool_)
    try:
        number = None if is_truth else operator.index(of)
    except TypeError:
        number = None
    if number is None:
        raise InputError(f"label: {of!r} is no class; {expected}")
    if number < 0:
        raise InputError(f"label: class {number}; classes count from 0")
    return number


def batched_shape(grid: Shape, output: Shape, of_one: Shape | None) -> Shape:
    """The shape `(B, K, ...)` of an output for an input of shape `grid`, which has the batch B.

    `(B, ...)` is as it is, `(K)` or `()` of a single sample `(1, K)` or `(1, 1)`, and `(B)` is
    `(B, 1)`. `of_one` is the shape `(1, K, ...)` of a single sample's output, if it is known.
    """
    batch = grid[0]
    if not output and batch == 1:
        shape: Shape = (1, 1)
    elif len(output) == 1 and batch == 1:
        shape = (1, *output)
    elif output == (batch,):
        shape = (batch, 1)
    elif len(output) > 1 and output[0] == batch:
        shape = output
    else:
        raise _not_batched(grid, output)
    if batch > 1 and of_one and (len(of_one) != len(shape) or of_one[1] != shape[1]):
        raise _not_batched(grid, output)
    return shape


def _not_batched(grid: Shape, output: Shape) -> InputError:
    return InputError(
        f"output of shape {output} for an input of shape {grid}: its first axis is not the batch of "
        f"{grid[0]}. Samples, flips or crops are stacked, or axes squeezed or permuted, at the end of "
        "the model; let it return (B, K) or (B, K, [D,] H, W), or give one sample at a time"
    )


def task_of(grid: Shape, output: Shape) -> str:
    """`classification` or `segmentation`, from the shapes of the input and of the output `(B, K, ...)`."""
    if len(output) == 2:
        return "classification"
    if len(output) == len(grid):
        if output[1:-1] == grid[2:] and output[2:] != grid[2:]:
            raise InputError(
                f"output of shape {output} for an input of shape {grid}: its classes seem to be on the "
                "last axis; let the model return (B, K, [D,] H, W)"
            )
        return "segmentation"
    raise InputError(
        f"output of shape {output} for an input of shape {grid}: neither one score per class (B, K) "
        "nor one per class and voxel; another output may be explained with output="
    )


def differentiable(scored: Tensor) -> None:
    """Refuses a score that has no gradient."""
    if scored.is_floating_point():
        return
    if scored.is_complex():
        what = "complex numbers have no greatest, so none is a score. Return a real output"
    else:
        what = (
            "what is not floating point, as behind an argmax or a threshold, has no gradient. Let the "
            "model return its scores"
        )
    raise DtypeError(
        f"the model's output is of type {scored.dtype}: {what}; or, if it returns several tensors, have "
        "another explained with output="
    )


@dataclass(frozen=True)
class Score:
    """A score ready for backward. What a device finds out for it is known once the readback is
    fetched."""

    sum: Tensor
    """Of the scores of all samples. No score depends on another sample's activation, so its gradient
    holds that of each."""
    classes: list[int | None] | Slot
    """The class of each sample, if the target selects one."""
    any_voxel: Slot | None = None
    """Whether the score of each sample sums over any voxel, where some may not."""
    mask_is_finite: Slot | None = None

    def known_classes(self) -> list[int | None]:
        """The class of each sample, if the target selects one."""
        return [*self.classes.integers()] if isinstance(self.classes, Slot) else self.classes

    def empty(self) -> list[int]:
        """Samples whose score sums over no voxel."""
        found = self.any_voxel.integers() if self.any_voxel else []
        return [sample for sample, any_ in enumerate(found) if not any_]

    def check(self) -> None:
        """Refuses a mask with values that are NaN or infinite."""
        if self.mask_is_finite and not all(self.mask_is_finite.integers()):
            raise InputError("label: the mask has values that are NaN or infinite")


def score(target: Target, task: str, y: Tensor, logits: Tensor, readback: Readback) -> Score:
    """The score that `target` takes from `y`, `(B, K)` or `(B, K, [D,] H, W)`.

    `logits` are the scores before a final activation, or `y` again if there is none; what is predicted
    is read from them. Nothing waits for a device, unless a function of the caller's does.
    """
    batch = y.shape[0]
    if target.kind == "all":
        return Score(_sum(y), [None] * batch)
    if target.kind == "function" and target.function is not None:
        return Score(_sum(_result(target.function(y))), [None] * batch)
    classes: list[int] | Tensor
    if target.kind == "classes":
        if len(target.classes) != batch:
            raise InputError(f"label: {len(target.classes)} classes for a batch of {batch}")
        classes = list(target.classes)
    elif target.number is None:
        if target.kind == "region" and task == "classification":
            raise _no_voxels()
        classes = _best(task, logits.detach())
        if not _readback.is_on_device(classes):
            classes = classes.tolist()
    else:
        classes = [target.number] * batch
    chosen = _channels(y, classes)
    known = readback.ask(classes) if isinstance(classes, Tensor) else [*classes]
    if target.kind == "predicted":
        weights = _prediction(logits.detach()) == target.number
        any_voxel = readback.ask(weights.reshape(batch, -1).any(1))
        return Score(_sum(chosen * weights), known, any_voxel)
    if target.kind == "region":
        if task == "classification":
            raise _no_voxels()
        weights = _region(target.mask, chosen)
        any_voxel = readback.ask((weights != 0).flatten(1).any(1).expand(batch))
        made = Score(
            _sum(chosen * _readback.upload(weights, chosen.device).expand_as(chosen)),
            known,
            any_voxel,
            readback.ask(torch.isfinite(weights).all()),
        )
        if not _readback.is_on_device(weights):
            made.check()
        return made
    return Score(_sum(chosen), known)


def _no_voxels() -> InputError:
    return InputError(
        "label: a mask needs an output with one score per voxel; this network classifies"
    )


def _sum(y: Tensor) -> Tensor:
    return y.sum(dtype=torch.promote_types(y.dtype, torch.float32))


def _result(of_function: Any) -> Tensor:
    if isinstance(of_function, Tensor) and of_function.is_floating_point():
        return of_function
    kind = of_function.dtype if isinstance(of_function, Tensor) else type(of_function).__name__
    raise DtypeError(
        f"label: the function returned {kind}; it returns what is summed into the score, a floating "
        "tensor, such as (y > 0.5) * y where M3d-CAM takes the mask y > 0.5"
    )


def _channels(y: Tensor, classes: list[int] | Tensor) -> Tensor:
    """The channel `classes[b]` of each sample: `(B)` or `(B, [D,] H, W)`. A tensor of classes stays
    where it is."""
    if isinstance(classes, Tensor):
        index = classes.reshape(-1, *(1 for _ in y.shape[1:])).expand(-1, 1, *y.shape[2:])
        return y.gather(1, index).squeeze(1)
    count = y.shape[1]
    for number in classes:
        if number >= count:
            raise InputError(
                f"label: class {number} is out of range: the output has {count} class(es), 0 to "
                f"{count - 1}"
            )
    # If all samples share the class, one view of the channel: its gradient is one pass.
    if len(set(classes)) == 1:
        return y.select(1, classes[0])
    return torch.stack([y[sample, number] for sample, number in enumerate(classes)])


def _prediction(logits: Tensor) -> Tensor:
    """The predicted class of each sample or voxel. A single channel predicts class 0 where it is above
    0, and else none, -1."""
    if logits.shape[1] == 1:
        return (logits.select(1, 0) > 0).long() - 1
    return logits.argmax(1)


def _best(task: str, logits: Tensor) -> Tensor:
    """The best class of each sample, `(B)`, where the scores are. Nothing waits."""
    batch, classes = logits.shape[:2]
    if classes == 1:
        return torch.zeros(batch, dtype=torch.int64, device=logits.device)
    predicted = _prediction(logits)
    if task == "classification":
        return predicted
    # The background by convention is 0: only if there is no other.
    foreground = _counts(predicted.flatten(1), classes)[:, 1:]
    return (foreground.argmax(1) + 1) * (foreground.amax(1) > 0)


def _counts(predicted: Tensor, classes: int) -> Tensor:
    """For how many voxels of each sample `(B, N)` each class is predicted, `(B, K)`."""
    if _readback.is_on_device(predicted):
        # `bincount` waits for a device.
        return torch.stack([(predicted == k).sum(1) for k in range(classes)], 1)
    return torch.stack([torch.bincount(sample, minlength=classes) for sample in predicted])


def _region(mask: Any, chosen: Tensor) -> Tensor:
    """The mask as `(B, [D,] H, W)` or `(1, [D,] H, W)`, where it is."""
    mask = real("label: the mask", mask) if isinstance(mask, Tensor) else in_numpy("label: the mask", mask)
    weights = torch.as_tensor(mask).detach().to(torch.float32)
    grid = tuple(chosen.shape)
    if tuple(weights.shape) == grid[1:]:
        return weights.unsqueeze(0)
    if tuple(weights.shape[1:]) != grid[1:] or weights.shape[0] not in (1, grid[0]):
        raise InputError(
            f"label: mask of shape {tuple(weights.shape)} for an output grid of {grid[1:]} (batch "
            f"{grid[0]})"
        )
    return weights


@dataclass(frozen=True)
class Named:
    """A target that has one map for each sample, and the name of its maps."""

    label: str
    target: Target
    left_out: str | None = None
    """What to warn of: parts of the output that have no map."""


def named(targets: Sequence[Target], task: str, logits: Tensor) -> list[Named]:
    """The targets of one output, with `each` and `components` expanded; no two have one name."""
    found: list[Named] = []
    for target in targets:
        if target.kind == "each":
            every = (Target("class", number=k) for k in range(logits.shape[1]))
            found += [Named(one.label, one) for one in every]
        elif target.kind == "components":
            found += _components_of(target, task, logits.detach())
        else:
            found.append(Named(target.label, target))
    taken: set[str] = set()
    for place, one in enumerate(found):
        if one.label in taken:
            found[place] = replace(one, label=f"{one.label}_{place + 1}")
        taken.add(found[place].label)
    return found


def _components_of(target: Target, task: str, logits: Tensor) -> list[Named]:
    """One target for each k: the k-th largest component of each sample, up to the most that any sample
    has. If there is none, the first is asked for all the same: its map is zero, and a warning says why.

    Waits for a device: components are counted on the CPU.
    """
    if task == "classification":
        raise InputError(
            f"label: components:{target.number}: a network that classifies has no voxels to be "
            f"connected; take class {target.number}"
        )
    numbers = components(_prediction(logits) == target.number)
    most = int(numbers.max())
    left_out = None
    if most > MOST_COMPONENTS:
        left_out = (
            f"class {target.number} is predicted in {most} components; the {MOST_COMPONENTS} largest of "
            f"each sample have a map. predicted:{target.number} explains all of them in one"
        )
    found = []
    for k in range(1, min(max(most, 1), MOST_COMPONENTS) + 1):
        one = Target("region", number=target.number, mask=numbers == k, component=k)
        found.append(Named(one.label, one, left_out if k == 1 else None))
    return found
