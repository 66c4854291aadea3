"""Maps as files and scores, written by the compiled half; every file appears whole or not at all.

Maps are `(B, 1, [D,] H, W)` within `[0, 1]`, arrays or tensors. The interpreter's lock is released
while files are written. A file that cannot be written raises `FileError`, an `OSError`; what does not
fit raises `InputError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy

from . import _arrays, _native
from .errors import DtypeError, FileError, InputError

Metric = str | Callable[[numpy.ndarray, numpy.ndarray], float]


def path_of(what: str, given: Any) -> Path:
    """A path; `DtypeError` of what is none."""
    try:
        path = Path(given)
    except TypeError as error:
        raise DtypeError(f"{what}: {given!r}; it takes a path") from error
    if "\0" in str(path):
        raise InputError(f"{what}: {str(path)!r} has a null character; no path has one")
    return path


def output_file(what: str, given: Any) -> Path:
    """The path of a file that is made or replaced: a pipe or a device would be replaced by a file."""
    path = path_of(what, given)
    try:
        is_other = path.exists() and not path.is_file()
    except OSError as error:
        raise FileError(error.errno, f"{what}: cannot write {path}: {error.strerror}") from error
    if is_other:
        raise FileError(f"{what}: {path} is no regular file, and is not replaced; give another name")
    return path


def prepare_folder(folder: str | os.PathLike[str]) -> None:
    """Makes the folder for maps, and removes the temporary files that killed runs left in it."""
    _native.prepare_folder(os.fspath(folder))


def save_maps(
    folder: str | os.PathLike[str],
    layer: str,
    target: str | None,
    values: Any,
    name: str,
    *,
    affine: Any = None,
) -> list[str]:
    """Writes maps to `FOLDER/LAYER/NAME[_TARGET][_SAMPLE]` and returns the files.

    | values | files of each sample |
    |---|---|
    | `(B, 1, H, W)` | `.png`, 8 bits, and `.npy` `(H, W)` float32 |
    | `(B, 1, D, H, W)` | `.nii.gz` float32, whose voxel `[i, j, k]` is `values[b, 0, i, j, k]` |

    The target is part of the name unless it is None, the number of the sample where there are
    several. `affine`, 4x4, goes from `(i, j, k, 1)` to RAS+ mm, as nibabel's; the file keeps it in
    float32. Without one the file has the identity, and says that its unit is unknown: where the map
    lies in the scanner is then not known either. Existing files of these names are replaced.

    >>> import numpy, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> files = save_maps(folder, "up2", None, numpy.ones((2, 1, 4, 5)), "scan")
    >>> [file.removeprefix(folder) for file in files[:3]]
    ['/up2/scan_0.png', '/up2/scan_0.npy', '/up2/scan_1.png']
    """
    maps, rows = _maps(values), _affine(affine, values)
    parts = _part("layer", layer), _part("target", target) if target is not None else None
    files = _native.save_maps(os.fspath(folder), *parts, *maps, _part("name", name), rows)
    return [str(file) for file in files]


def save_overlays(
    folder: str | os.PathLike[str],
    layer: str,
    target: str | None,
    values: Any,
    name: str,
    images: Any,
    *,
    classes: Sequence[int | None],
    method: str,
    signed: bool = False,
    affine: Any = None,
) -> list[str]:
    """Draws maps over their images, as `NAME[_TARGET][_SAMPLE]_overlay.png`; returns the files.

    `images` is `(B, C, [D,] H, W)` on any grid of the same field of view; of a volume the first
    channel is drawn, of a picture three or the first. With `affine` (of the image's voxels, as in
    `save_maps`) a volume is shown in the planes of the body. Class, layer and `method` are written
    beneath. Maps with a sign, such as Guided Backpropagation's, are drawn in gray.
    """
    maps, rows = _maps(values), _affine(affine, values)
    images = _arrays.on_cpu("images", images, (values.ndim,))
    if images.shape[0] != values.shape[0]:
        raise InputError(f"images: {images.shape[0]} for {values.shape[0]} maps; give one per sample")
    volume = images.ndim == 5
    images = images[:, 0] if volume else images[:, : 3 if images.shape[1] == 3 else 1]
    files = _native.save_overlays(
        os.fspath(folder),
        _part("layer", layer),
        _part("target", target) if target is not None else None,
        *maps,
        _part("name", name),
        *_arrays.lend(_arrays.on_cpu("images", images, (3, 4))),
        _classes(classes, values),
        bool(signed),
        method,
        rows,
    )
    return [str(file) for file in files]


class Archive:
    """All maps of a run in one `.npz` file; its entry `NAME/LAYER/TARGET` is `(B, 1, [D,] H, W)`.

    An existing file stays until `finish`. If a map cannot be written, the archive is given up: later
    ones are left out, and `finish` says why there is no file.

    >>> import numpy, tempfile
    >>> archive = Archive(tempfile.mkdtemp() + "/maps.npz")
    >>> archive.add("scan", "up2", "best", numpy.ones((1, 1, 4, 5)))
    >>> numpy.load(archive.finish())["scan/up2/best"].shape
    (1, 1, 4, 5)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._native = _native.Archive(os.fspath(path))

    def add(self, name: str, layer: str, target: str, values: Any) -> None:
        """Adds maps; InputError if the archive has these already."""
        maps = _maps(values)
        parts = _part("name", name), _part("layer", layer), _part("target", target)
        self._native.add(*parts, *maps)

    def finish(self) -> str | None:
        """Completes the file and returns its path; None, without a file, if nothing was added."""
        path = self._native.finish()
        return None if path is None else str(path)


@dataclass(frozen=True)
class Score:
    """One score of one map; NaN where it is not defined. `name` is that of the tables."""

    metric: str
    score: float
    layer: str
    target: str
    class_index: int | None
    sample: int
    name: str


@dataclass(frozen=True)
class MaskWarning:
    """Something that a reader of the scores should know: `EMPTY_MASK`; no sample means all."""

    code: str
    message: str
    sample: int | None


class Evaluator:
    """Scores maps against masks, and keeps the scores of a study.

    Metrics are those of `medcam_rs.score`, or functions `(map, mask) -> float`, named as they are, of
    a map float32 within `[0, 1]` on the mask's grid and a mask uint8 of 0 and 1, both `(D, H, W)`
    with `D = 1` in 2D. How the values of masks are read:

    | `masks` | no class | class `k` |
    |---|---|---|
    | `"binary"` | 0/1 | 0/1: the class is only recorded |
    | `"labels"` | an error | the voxels whose label is `k` |
    | `"detect"` | 0/1 | the voxels whose label is `k`; an error if this is open: a mask of 0 and 1, and another class than 1 |

    >>> import numpy
    >>> evaluator = Evaluator(("ioa",))
    >>> map = numpy.array([[[[0.1, 0.2, 0.9, 1.0]]]])
    >>> mask = numpy.array([[[[0, 0, 0, 1]]]])
    >>> scores, warnings = evaluator.add("scan", "up2", "best", map, mask, [1])
    >>> scores[0].score, warnings
    (0.5, [])
    """

    def __init__(
        self,
        metrics: Metric | Sequence[Metric] = ("wioa",),
        threshold: float | Literal["otsu"] = "otsu",
        masks: Literal["detect", "binary", "labels"] = "detect",
    ) -> None:
        given = [metrics] if callable(metrics) or not isinstance(metrics, (list, tuple)) else metrics
        known = [
            (getattr(metric, "__name__", type(metric).__name__), _of_bytes(metric))
            if callable(metric)
            else (_arrays.name("metrics", metric), None)
            for metric in given
        ]
        self.metrics = tuple(name for name, _ in known)
        if not known or len(set(self.metrics)) != len(known):
            raise InputError(f"metrics: {list(self.metrics)}; give one or more, each once")
        self._native = _native.Evaluator(known, str(threshold), masks)

    def __len__(self) -> int:
        """The number of scores."""
        return len(self._native)

    def add(
        self,
        name: str,
        layer: str,
        target: str,
        values: Any,
        mask: Any,
        classes: Sequence[int | None],
    ) -> tuple[list[Score], list[MaskWarning]]:
        """Scores maps against `mask`, `(B, 1, [D,] H, W)` on any grid of the same field of view.

        `classes` are those that the maps explain, one per sample. In the tables a map is called
        `name`, with `_B` for sample `B` of several. If this fails, no score of the call is kept.
        """
        maps = _maps(values)
        mask = _arrays.on_cpu("mask", mask, (3, 4, 5))
        expected = (values.shape[0], 1)
        if mask.ndim != values.ndim or tuple(mask.shape[:2]) != expected:
            axes = "1, H, W" if values.ndim == 4 else "1, D, H, W"
            raise InputError(f"mask: shape {tuple(mask.shape)}; expected ({expected[0]}, {axes})")
        numbers = _classes(classes, values)
        mask = _arrays.on_cpu("mask", mask[:, 0], (3, 4))
        scored, warned = self._native.add(
            name, layer, target, *maps, *_arrays.lend(mask), numbers
        )
        scores = [
            Score(metric, score, layer, target, numbers[sample], sample, named)
            for sample, named, of_sample in scored
            for metric, score in zip(self.metrics, of_sample)
        ]
        return scores, [MaskWarning(*warning) for warning in warned]

    def truncate(self, count: int) -> None:
        """Keeps the first `count` scores only: as many as there were before a call that failed."""
        self._native.truncate(count)

    def dump(self, folder: str | os.PathLike[str], layer_order: Sequence[str] = ()) -> list[str]:
        """Writes `scores.xlsx`, `scores.csv` and `mean_scores.png`, and returns the files.

        `layer_order` is the order of the layers in the means and their plot, such as the network's;
        else that in which they were added. InputError if there are no scores.
        """
        files = self._native.dump(os.fspath(folder), list(layer_order))
        return [str(file) for file in files]


def components(mask: Any) -> numpy.ndarray:
    """The connected components of masks `(B, [D,] H, W)`: int32 of the same shape.

    Voxels above 0 are inside; those that share a face, an edge or a corner are connected. Each
    sample's components count from 1, the largest first, of equal ones the first in memory; 0 is
    outside.

    >>> import numpy
    >>> components(numpy.array([[[1, 0, 0], [0, 0, 1], [0, 1, 0]]]))
    array([[[2, 0, 0],
            [0, 0, 1],
            [0, 1, 0]]], dtype=int32)
    """
    mask = _arrays.on_cpu("mask", mask, (3, 4))
    labels = numpy.frombuffer(_native.components(*_arrays.lend(mask)), dtype=numpy.int32)
    return labels.reshape(tuple(mask.shape))


# How far beyond 1 rounding may bring the mean of maps.
_ROUNDING = 1e-6


def _maps(values: Any) -> tuple[Any, ...]:
    """Maps `(B, 1, [D,] H, W)` as the compiled half takes them: `(B, [D,] H, W)` float32."""
    maps = _arrays.on_cpu("values", values, (4, 5))
    if maps.shape[1] != 1:
        shape = tuple(maps.shape)
        raise InputError(f"values: shape {shape}; expected (B, 1, H, W) or (B, 1, D, H, W)")
    low, high = float(maps.min()), float(maps.max())
    # Not the other way round: NaN is in no order.
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise InputError(
            f"values: from {low:g} to {high:g}; maps are within [0, 1]: see medcam_rs.normalize"
        )
    return _arrays.lend(_arrays.on_cpu("values", maps[:, 0], (3, 4)))


def _part(what: str, text: str) -> str:
    """Refuses text that cannot be one part of a path."""
    if not isinstance(text, str) or text in ("", ".", "..") or set(text) & set("/\\\0"):
        raise InputError(f"{what}: {text!r} cannot be part of a path; give one such as 'scan-1'")
    return text


def _affine(affine: Any, values: Any) -> list[list[float]] | None:
    """The rows of an affine; the compiled half checks that it can be inverted."""
    if affine is None:
        return None
    if values.ndim != 5:
        raise InputError("affine: only volumes have one, and the maps are 2D; leave it out")
    try:
        matrix = numpy.asarray(affine, dtype=numpy.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"affine: it takes 4x4 numbers: {error}") from error
    if matrix.shape != (4, 4):
        raise InputError(f"affine: shape {matrix.shape}; it takes 4x4, as nibabel's `image.affine`")
    return matrix.tolist()


def _classes(classes: Sequence[int | None], values: Any) -> list[int | None]:
    numbers = [None if index is None else int(index) for index in classes]
    if len(numbers) != values.shape[0] or any(n is not None and n < 0 for n in numbers):
        raise InputError(f"classes: {numbers} for {values.shape[0]} maps; give a class or None each")
    return numbers


def _of_bytes(metric: Callable[[numpy.ndarray, numpy.ndarray], float]) -> Callable[..., float]:
    """A metric of the bytes that the compiled half hands over."""

    def score(map: bytearray, mask: bytearray, shape: tuple[int, int, int]) -> float:
        values = numpy.frombuffer(map, dtype=numpy.float32).reshape(shape)
        return float(metric(values, numpy.frombuffer(mask, dtype=numpy.uint8).reshape(shape)))

    return score
