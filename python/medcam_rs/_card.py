"""The model card that is written beside a model: checked as the program reads it, and as TOML."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .errors import InputError

# src/volumes/card.rs has what each key means; docs/model-card.md tells users.
_TEXTS = ("name", "license", "source")
_CHOICES = {
    "spatial_dims": (2, 3),
    "interpolation": ("linear", "nearest"),
    "axes": ("xyz", "zyx"),
    "color": ("rgb", "gray"),
    "values": ("unit", "stored"),
    "nan": ("error", "zero"),
}
_INPUT = ("orientation", *_CHOICES, "size", "spacing_mm")
_GREATEST_EXTENT = 32767


def card_text(card: Mapping[str, Any] | str | os.PathLike[str], shape: Sequence[int]) -> str:
    """The TOML of a card that fits an input of `shape`, (B, C, [D,] H, W).

    A dict, or a `.json` file, has the keys of docs/model-card.md: `{"input": {"spacing_mm": [...]},
    "intensity": [{"z_score": "all"}]}`. A `.toml` file is taken as it stands. `InputError` names the
    key that the program would refuse.
    """
    if isinstance(card, Mapping):
        where, text, table = "card", None, card
    else:
        where = str(card)
        table, text = _read(Path(card))
    try:
        _check(table, shape)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return text if text is not None else _toml(table)


def _read(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """What a file holds, and its text where that is a card already."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"card: cannot read {path}: {error}") from error
    try:
        if path.suffix == ".json":
            table = json.loads(text)
            if not isinstance(table, dict):
                raise InputError(f"{path}: expected one JSON object, with the keys of a card")
            return table, None
        return _parse_toml(path, text), text
    except ValueError as error:
        raise InputError(f"{path}: not a card: {error}") from error


def _parse_toml(path: Path, text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: TOML is read from Python 3.11 on; give the card as a dict or as JSON"
        ) from None
    return tomllib.loads(text)


def _check(card: Mapping[str, Any], shape: Sequence[int]) -> None:
    _only(card, (*_TEXTS, "classes", "input", "intensity"), "a card")
    for key in _TEXTS:
        if key in card:
            _that(isinstance(card[key], str), key, card[key], "text")
    if "classes" in card:
        classes = card["classes"]
        named = _is_list(classes) and all(isinstance(name, str) for name in classes)
        _that(named, "classes", classes, "a list of texts")
    given = card.get("input", {})
    _that(isinstance(given, Mapping), "input", given, "a table")
    _check_input(given, len(shape) - 2)
    steps = card.get("intensity", [])
    _that(_is_list(steps), "intensity", steps, "a list of steps")
    for number, step in enumerate(steps, start=1):
        _check_step(step, f"intensity step {number}", shape[1])


def _check_input(given: Mapping[str, Any], axes: int) -> None:
    _only(given, _INPUT, "[input]")
    for key, choices in _CHOICES.items():
        if key in given:
            value = given[key]
            known = not isinstance(value, bool) and value in choices
            _that(known, key, value, " or ".join(json.dumps(choice) for choice in choices))
    dims = given.get("spatial_dims", axes)
    _that(dims == axes, "spatial_dims", dims, f"{axes}, as the example has")
    if "orientation" in given:
        code = given["orientation"]
        pairs = [next((p for p in ("LR", "PA", "IS") if c in p), c) for c in str(code)]
        _that(sorted(pairs) == ["IS", "LR", "PA"], "orientation", code, 'a code such as "RAS"')
    if "size" in given and "spacing_mm" in given:
        raise InputError("size and spacing_mm exclude each other; keep one")
    for key, fits, kind in (
        ("size", lambda n: _is_whole(n) and 1 <= n <= _GREATEST_EXTENT, "extents in voxels"),
        ("spacing_mm", lambda n: _is_number(n) and n > 0, "distances in mm above 0"),
    ):
        if key in given:
            value = given[key]
            right = _is_list(value) and len(value) == axes and all(map(fits, value))
            _that(right, key, value, f"{axes} {kind}, in the order {'DHW'[-axes:]}")


def _check_step(step: Any, where: str, channels: int) -> None:
    _that(isinstance(step, Mapping) and len(step) == 1, where, step, "a table with one key")
    ((kind, value),) = step.items()
    if kind not in _STEPS:
        raise InputError(f"{where}: {kind!r} is no step; there are {', '.join(_STEPS)}")
    fits, expected = _STEPS[kind]
    _that(fits(value), f"{where}, {kind}", value, expected)
    if kind == "affine":
        for key, numbers in value.items():
            if _is_list(numbers):
                wanted = f"one number, or {channels}: one for each channel of the example"
                _that(len(numbers) == channels, f"{where}, {key}", numbers, wanted)


def _is_affine(value: Any) -> bool:
    if not isinstance(value, Mapping) or not set(value) <= {"multiply", "add"}:
        return False
    return all(_is_number(n) or _is_list(n) and all(map(_is_number, n)) for n in value.values())


def _ascends(value: Any) -> bool:
    two = _is_list(value) and len(value) == 2 and all(map(_is_number, value))
    return two and value[0] < value[1]


_STEPS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "clip_percentiles": (
        lambda value: _ascends(value) and value[0] >= 0 and value[1] <= 100,
        "[low, high] within 0 and 100",
    ),
    "clip": (_ascends, "[low, high] with low < high"),
    "scale": (_ascends, "[low, high] with low < high"),
    "z_score": (
        lambda value: isinstance(value, str) and value in ("all", "nonzero"),
        '"all" or "nonzero"',
    ),
    "affine": (_is_affine, "{multiply: ..., add: ...}, each a number or one for each channel"),
}


def _only(table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise InputError(f"{key!r} is no key of {where}; there are {', '.join(keys)}")


def _that(right: bool, key: str, value: Any, expected: str) -> None:
    if not right:
        raise InputError(f"{key}: expected {expected}, got {value!r}")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _toml(card: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(card[key])}" for key in (*_TEXTS, "classes") if key in card]
    if card.get("input"):
        lines += ["", "[input]", *(f"{key} = {_value(v)}" for key, v in card["input"].items())]
    for step in card.get("intensity", ()):
        lines += ["", "[[intensity]]", *(f"{key} = {_value(v)}" for key, v in step.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _value(value: Any) -> str:
    """A value in TOML; numbers of NumPy are written as Python's."""
    if isinstance(value, str):
        # TOML's strings are JSON's, but that they escape DEL too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(v)}" for key, v in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(int(value)) if isinstance(value, Integral) else repr(float(value))
