"""A module of PyTorch as the TorchScript file that the `medcam` program takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._candidates import WAYS, Source
from ._card import card_text
from ._files import output_file
from ._torchscript import listed, still
from .errors import FileError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Exported:
    """What `export` wrote, and what was lost on the way; `print` it."""

    path: Path
    #: "script", "trace", or "export" (`torch.export`, then a trace).
    way: str
    #: The layers that the file runs under a name of `named_modules()`.
    names: tuple[str, ...]
    #: Layers that ran in the module, and that the file does not know by any name.
    lost_names: tuple[str, ...]
    #: Layers with more than one name in the module that the file knows by another than the first.
    renamed: Mapping[str, str]
    #: Greatest |output of the file - output of the module|, over all outputs of both inputs.
    difference: float
    #: What else is to be known, a sentence each.
    notes: tuple[str, ...]
    #: The model card that was written beside the file.
    card: Path | None = None

    def __str__(self) -> str:
        total = len(self.names) + len(self.lost_names)
        same = "equal" if self.difference == 0 else f"within {self.difference:.2g} of"
        lines = [
            f"{self.path}: {WAYS[self.way]}",
            f"  output: {same} {'to ' if self.difference == 0 else ''}the module's, on two inputs",
            f"  layers: {len(self.names)} of {total} have their names",
        ]
        if self.lost_names:
            lines.append(f"  lost: {listed(self.lost_names)}")
        pairs = [f"{old} is {new}" for old, new in self._outermost()]
        if pairs:
            lines.append(f"  under another name: {listed(pairs)}")
        if self.card:
            lines.append(f"  card: {self.card}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def _outermost(self) -> list[tuple[str, str]]:
        """Of the layers under another name those whose name does not follow from their parent's."""

        def follows(old: str, new: str) -> bool:
            while "." in old and old.rpartition(".")[2] == new.rpartition(".")[2]:
                old, new = old.rpartition(".")[0], new.rpartition(".")[0]
                if self.renamed.get(old) == new:
                    return True
            return False

        return [pair for pair in self.renamed.items() if not follows(*pair)]


def export(
    module: nn.Module,
    example: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str] = "model.pt",
    *,
    card: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    second: Tensor | Sequence[Tensor] | None = None,
    check: float = 1e-5,
) -> Exported:
    """Writes a module as the TorchScript file that `medcam map MODEL.pt ...` takes.

    Tried are `torch.jit.script`, `torch.jit.trace` and `torch.export` with a trace of its graph. Each
    file is loaded again and must give the module's own output, in evaluation mode on the CPU, on
    `example` and on `second`. Taken is the one that loses the fewest names of layers; of those the
    one whose output is nearest; of those the first.

    - `example`: an input as the program gives it, (B, C, H, W) or (B, C, D, H, W), alone or in a
      tuple of one. Its values should be those of an image.
    - `second`: another one, that takes the other branches of the network if it has any. By default
      normal deviates with the spread of the example and its mean negated, two samples of them (one
      where the example has two), if the module takes that many.
    - `card`: what the model expects of its input (docs/model-card.md), as a dict or the path of a TOML
      or JSON file; written beside the model, where the program looks for it.
    - `check`: the greatest difference of an output that is let pass, as a part of the greatest
      magnitude in the module's; 0 asks for equal outputs.

    The module stays as it is. Files are replaced only once all is well, and whole. Warns of nothing:
    what is to be known is in the result.

    Raises `InputError` where no way gives such a file, with the reason for each; where the module
    takes more than one tensor or returns none; and where the card is none. Raises `FileError` (an
    `OSError`) where a file cannot be written.

    >>> import tempfile, torch
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ... )
    >>> done = export(model, torch.rand(1, 1, 8, 8), tempfile.mkdtemp() + "/model.pt")
    >>> done.way, done.names, done.difference
    ('script', ('0', '1', '2', '3'), 0.0)
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ImportError(
            "export: PyTorch is not installed here; install it with pip install 'medcam-rs[torch]'",
            name="torch",
        ) from error

    first = _one_tensor(example, "example")
    path = output_file("path", path)
    if not path.parent.is_dir():
        raise InputError(f"path: the folder {path.parent} is not there; make it first")
    if card is not None and path.suffix == ".toml":
        raise InputError(f"path: {path.name} is where the card goes; call the model MODEL.pt")
    text = None if card is None else card_text(card, first.shape)
    given = None if second is None else _one_tensor(second, "second")
    if not (isinstance(check, (int, float)) and check >= 0):
        raise InputError(f"check: expected a number from 0 on, got {check!r}")
    with still(torch):
        source = Source.of(torch, module, first, given, check)
        best = source.best()
        notes = [*source.notes, *best.notes, *source.size_notes(best)]
    written = path.with_suffix(".toml")
    if text is None:
        if written.is_file():
            notes.append(f"the program will read {written}, which was there before, as its card.")
        _write({path: best.data})
    else:
        _write({path: best.data, written: text.encode()})
    return Exported(
        path=path,
        way=best.way,
        names=best.names,
        lost_names=best.lost,
        renamed=best.renamed,
        difference=best.difference,
        notes=tuple(notes),
        card=written if text is not None else None,
    )


def _one_tensor(example: Any, name: str) -> Tensor:
    """The one input of a network of images, on the CPU."""
    import torch

    if isinstance(example, (tuple, list)):
        if len(example) != 1:
            raise InputError(
                f"{name}: {len(example)} inputs, and the program gives one tensor. Wrap the module in "
                "one that sets the others, and export that"
            )
        example = example[0]
    if not isinstance(example, torch.Tensor):
        raise InputError(f"{name}: expected a tensor, got {type(example).__name__}")
    if not example.is_floating_point():
        raise InputError(f"{name}: {example.dtype}, and the program gives floating-point images")
    if example.dim() not in (4, 5) or example.numel() == 0:
        raise InputError(
            f"{name}: expected (B, C, H, W) or (B, C, D, H, W), got {tuple(example.shape)}"
        )
    return example.detach().cpu()


def _write(files: Mapping[Path, bytes]) -> None:
    """All files are there, whole, before the first takes its place."""
    files = {path.resolve(): data for path, data in files.items()}  # a link stays one
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, data in files.items():
            temporary[path].write_bytes(data)
        for path, written in temporary.items():
            os.replace(written, path)
    except OSError as error:
        raise FileError(error.errno, f"path: cannot write {path}: {error.strerror}") from error
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)
