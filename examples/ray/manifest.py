"""The cases of a CSV manifest, read as `medcam cohort` reads it: columns `image` and, if they are there, `id`,
`mask` and `label`; paths are relative to the manifest's folder."""

import csv
import hashlib
import json
import os
from dataclasses import dataclass

SUFFIXES = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img", ".png", ".jpeg", ".jpg", ".npy")


class ManifestError(Exception):
    """The manifest cannot be used."""


@dataclass(frozen=True)
class Case:
    """One image to be explained; its paths are absolute."""

    id: str
    image: str
    mask: str | None = None
    label: str | None = None

    def line(self):
        """What a worker reads."""
        fields = {"id": self.id, "image": self.image, "mask": self.mask, "label": self.label}
        return json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False)


def read(path):
    """All cases, in the manifest's order."""
    # The byte order mark that spreadsheets write would become part of the first column's name.
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, strict=True)
            rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ManifestError(f"{path}: no manifest: {error}") from error
    columns = [name.lower() for name in rows[0][1]] if rows else []
    if "image" not in columns:
        raise ManifestError(f"{path}: no manifest: it has no column 'image', but {', '.join(columns) or 'nothing'}")
    folder = os.path.dirname(os.path.abspath(path))
    cases, images = [], {}
    for number, row in rows[1:]:
        if len(row) != len(columns):
            raise ManifestError(f"{path}: line {number}: {len(row)} fields in place of {len(columns)}")
        case = _case(dict(zip(columns, row)), folder, f"{path}: line {number}")
        if case.id in images:
            raise ManifestError(
                f"{path}: {images[case.id]} and {case.image} would both be called '{case.id}'; "
                "give each an id in the column 'id'"
            )
        images[case.id] = case.image
        cases.append(case)
    if not cases:
        raise ManifestError(f"{path}: a manifest without a case")
    return cases


def _case(fields, folder, where):
    if not fields["image"]:
        raise ManifestError(f"{where}: no image")
    image = os.path.join(folder, fields["image"])
    mask = fields.get("mask")
    case_id = fields.get("id") or _stem(image)
    # The id becomes a file's name.
    if case_id in ("", ".", "..") or any(letter in case_id for letter in "/\\\0"):
        raise ManifestError(f"{where}: {case_id!r} cannot be the name of a file")
    return Case(case_id, image, os.path.join(folder, mask) if mask else None, fields.get("label") or None)


def _stem(path):
    name = os.path.basename(path)
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def digest(cases):
    """Of all ids, images, masks and labels."""
    text = "".join(case.line() + "\n" for case in cases)
    return hashlib.sha256(text.encode()).hexdigest()
