"""The model card that is written beside a model: as TOML, checked by what the program reads it with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _native
from ._files import path_of
from .errors import InputError


def card_text(card: Mapping[str, Any] | str | os.PathLike[str], shape: Sequence[int]) -> str:
    """The TOML of a card that fits an input of `shape`, (B, C, [D,] H, W).

    A dict, or a `.json` file, has the keys of docs/model-card.md: `{"input": {"spacing_mm": [...]},
    "intensity": [{"z_score": "all"}]}`. A `.toml` file is taken as it stands. `InputError` says what
    the program would refuse.
    """
    where = "card" if isinstance(card, Mapping) else str(card)
    try:
        text = _toml(card) if isinstance(card, Mapping) else _read(path_of("card", card))
        _native.check_card(text, len(shape) - 2, shape[1])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return text


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read: {error}") from error
    return _native.toml_of(text) if path.suffix == ".json" else text


def _toml(card: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(card, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error
    return _native.toml_of(text)


def _plain(value: Any) -> Any:
    """What JSON has no form for: mappings, and the numbers and arrays of NumPy and PyTorch."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} of type {type(value).__name__} has no place in a card")
