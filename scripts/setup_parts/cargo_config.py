"""`.cargo/config.toml`: tells cargo where libtorch, libclang, the data and the networks are."""

import json
import re
from pathlib import Path

from .common import CHECKOUT, say, write_atomically

MARKER = "# Written by scripts/setup.py; a run of it writes this file again."
ENTRY = re.compile(r'^(\w+) = (".*")$')


def write(entries):
    """Write the entries, keeping those of an earlier run whose files are still there."""
    path = CHECKOUT / ".cargo" / "config.toml"
    old = path.read_text(encoding="utf-8") if path.exists() else None
    merged = {**_kept(old or ""), **{key: str(value) for key, value in entries.items()}}
    lines = [MARKER, "[env]"]
    # A JSON string is a TOML basic string.
    lines += [f"{key} = {json.dumps(merged[key], ensure_ascii=False)}" for key in sorted(merged)]
    text = "\n".join(lines) + "\n"
    if text == old:
        return
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text)
    say(f"wrote {path.relative_to(CHECKOUT)}")


def read():
    """The entries of the last run whose files are still there."""
    path = CHECKOUT / ".cargo" / "config.toml"
    return _kept(path.read_text(encoding="utf-8")) if path.exists() else {}


def problem():
    """A message where the file is somebody else's, else None."""
    path = CHECKOUT / ".cargo" / "config.toml"
    if path.exists() and MARKER not in path.read_text(encoding="utf-8").splitlines():
        return (
            f"{path} was not written by this set-up and is left as it is: move what you need of it "
            "to a config.toml in a folder above this checkout, or to ~/.cargo/config.toml, "
            f"and then: rm {path}"
        )
    return None


def _kept(text):
    entries = (ENTRY.match(line) for line in text.splitlines())
    kept = {entry[1]: json.loads(entry[2]) for entry in entries if entry}
    return {key: value for key, value in kept.items() if Path(value).exists()}
