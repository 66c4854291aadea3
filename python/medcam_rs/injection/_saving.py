"""What an injected module writes and scores: files of maps, overlays, an archive, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from .. import _files
from .._arrays import in_numpy
from ..errors import InputError
from ._maps import AttentionMap, Warned


@dataclass(frozen=True)
class Wanted:
    """What is written and scored, and where; `inject` describes each."""

    folder: Path | None = None
    save_maps: bool = False
    archive: Path | None = None
    save_scores: bool = False
    evaluate: bool = False
    metric: Any = "wioa"
    threshold: Any = "otsu"
    masks: str = "detect"


@dataclass(frozen=True)
class OfCall:
    """What a call says of its batch."""

    name: str
    """The name of its files."""
    one_target: bool
    """Whether there is no need to tell targets apart by the names of files."""
    mask: Any = None
    affine: Any = None
    """4x4, or one for each sample, `(B, 4, 4)`."""
    images: Any = None


class Saving:
    """Writes and scores the maps of each call, and keeps what `dump` completes.

    It is copied and pickled without an archive and scores, and only where none is open.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._reset()
        # Before the first call: files and metrics that are none are refused here.
        if wanted.archive is not None:
            _files.output_file("save_archive", wanted.archive)
        self._evaluator = self._new_evaluator()

    def _reset(self) -> None:
        self._archive: _files.Archive | None = None
        self._archives = 0
        # How many of the scores are in the tables.
        self._dumped = 0

    def _new_evaluator(self) -> _files.Evaluator | None:
        wanted = self.wanted
        if not wanted.evaluate:
            return None
        masks: Any = wanted.masks
        return _files.Evaluator(wanted.metric, wanted.threshold, masks)

    @property
    def is_open(self) -> bool:
        """Whether `dump` has something to complete."""
        scores = self._evaluator if self.wanted.save_scores else None
        return self._archive is not None or bool(scores and len(scores) > self._dumped)

    def __getstate__(self) -> Wanted:
        if self.is_open:
            raise InputError(
                "an injected model with an open archive or scores is not copied: call dump() or "
                "eject() first"
            )
        return self.wanted

    def __setstate__(self, wanted: Wanted) -> None:
        self.__init__(wanted)  # type: ignore[misc]

    def check(self, mask: Any, affine: Any, images: Any) -> None:
        """Refuses what a call gives and nothing uses, and what it lacks."""
        if self.wanted.evaluate and mask is None:
            raise InputError("evaluate: no mask: give the ground truth of the batch with mask=")
        if mask is not None and not self.wanted.evaluate:
            raise InputError("mask: nothing evaluates it: inject with evaluate=True")
        for name, given in (("affine", affine), ("raw_input", images)):
            if given is not None and not self.wanted.save_maps:
                raise InputError(f"{name}: no file takes it: inject with save_maps=True")
        if images is not None:
            _check_images(in_numpy("raw_input", images))

    def keep(
        self, maps: Sequence[AttentionMap], call: OfCall, method: str
    ) -> tuple[list[_files.Score], list[Warned]]:
        """Scores, writes and archives the maps of a call; if that fails, none of its scores stays."""
        wanted = self.wanted
        if not (wanted.evaluate or wanted.save_maps or wanted.archive):
            return [], []
        before = len(self._evaluator) if self._evaluator else 0
        values = [one.values.cpu().numpy() for one in maps]
        scores: list[_files.Score] = []
        warnings: list[Warned] = []
        try:
            for one, of_map in zip(maps, values):
                scored, warned = self._score(one, of_map, call)
                scores += scored
                warnings += warned
                if wanted.save_maps:
                    self._write(one, of_map, call, method)
            if wanted.archive:
                archive = self._open_archive(wanted.archive)
                for one, of_map in zip(maps, values):
                    archive.add(call.name, one.layer, one.target, of_map)
        except BaseException:
            if self._evaluator:
                self._evaluator.truncate(before)
            raise
        return scores, warnings

    def _score(
        self, one: AttentionMap, values: numpy.ndarray, call: OfCall
    ) -> tuple[list[_files.Score], list[Warned]]:
        if self._evaluator is None:
            return [], []
        # As the file of the map is called.
        name = call.name if call.one_target else f"{call.name}_{one.target}"
        scores, warned = self._evaluator.add(
            name, one.layer, one.target, values, in_numpy("mask", call.mask), one.classes
        )
        return scores, [Warned(of.code, of.message, one.layer, of.sample) for of in warned]

    def _write(
        self, one: AttentionMap, values: numpy.ndarray, call: OfCall, method: str
    ) -> None:
        folder = str(self.wanted.folder)
        target = None if call.one_target else one.target
        images = None if call.images is None else in_numpy("raw_input", call.images)
        for part, name, of_part, affine in _placed(call, target, values):
            _files.save_maps(folder, one.layer, of_part, values[part], name, affine=affine)
            if images is None:
                continue
            _files.save_overlays(
                folder,
                one.layer,
                of_part,
                values[part],
                name,
                images[part],
                classes=one.classes[part],
                method=method,
                signed=one.signed,
                affine=affine,
            )

    def _open_archive(self, path: Path) -> _files.Archive:
        """That of the calls since the last `dump`, whose file stays: the next has a number."""
        if self._archive is None:
            self._archives += 1
            if self._archives > 1:
                path = path.with_name(f"{path.stem}_{self._archives}{path.suffix}")
            self._archive = _files.Archive(path)
        return self._archive

    def dump(self, layer_order: Sequence[str]) -> list[str]:
        """Completes the archive, writes the scores of all calls, and returns the files."""
        written: list[str] = []
        if self._archive is not None:
            archive, self._archive = self._archive, None
            path = archive.finish()
            written += [] if path is None else [path]
        if self.wanted.save_scores and self._evaluator is not None:
            if not len(self._evaluator):
                raise InputError("save_scores: no call was evaluated yet")
            written += self._evaluator.dump(str(self.wanted.folder), layer_order)
            self._dumped = len(self._evaluator)
        return written


def _check_images(images: numpy.ndarray) -> None:
    """Refuses images of which an overlay would show nothing, or another axis than it seems."""
    if images.ndim not in (4, 5):
        raise InputError(f"raw_input: shape {images.shape}; it takes (B, C, [D,] H, W)")
    if images.shape[-1] <= 4 < images.shape[1]:
        raise InputError(
            f"raw_input: shape {images.shape}: its channels seem to be on the last axis; give "
            "(B, C, [D,] H, W)"
        )
    if images.dtype.kind == "f" and not numpy.isfinite(images).any():
        raise InputError("raw_input: no value is finite")


def _placed(
    call: OfCall, target: str | None, values: numpy.ndarray
) -> Iterator[tuple[slice, str, str | None, Any]]:
    """The parts of a batch that have one affine, and the names of their files, which are the same
    as if it were written at once."""
    affine = None if call.affine is None else in_numpy("affine", call.affine)
    if affine is None or affine.ndim != 3:
        yield slice(None), call.name, target, affine
        return
    if len(affine) != len(values):
        raise InputError(f"affine: {len(affine)} for {len(values)} samples; give one for each")
    if (affine == affine[:1]).all():
        yield slice(None), call.name, target, affine[0]
        return
    for b, of_sample in enumerate(affine):
        name = call.name if target else f"{call.name}_{b}"
        yield slice(b, b + 1), name, f"{target}_{b}" if target else None, of_sample


def affine_of(grid: torch.Tensor) -> Any:
    """The affine that a volume brings along, as MONAI's MetaTensor does: `(4, 4)` or `(B, 4, 4)`.

    None without one, and where it is the identity, which MONAI sets where it knows of none: a file
    then says that its unit is not known. One in LPS is turned to RAS+.
    """
    affine = getattr(grid, "affine", None)
    if affine is None or grid.ndim != 5:
        return None
    affine = numpy.asarray(in_numpy("affine", affine), dtype=numpy.float64)
    if affine.ndim not in (2, 3) or affine.shape[-2:] != (4, 4):
        return None
    if (affine == numpy.eye(4)).all():
        return None
    meta = getattr(grid, "meta", None)
    space = meta.get("space") if isinstance(meta, dict) else None
    if isinstance(space, (list, tuple)):
        space = space[0] if space else None
    is_lps = str(getattr(space, "value", space)) == "LPS"
    return numpy.diag([-1.0, -1.0, 1.0, 1.0]) @ affine if is_lps else affine
