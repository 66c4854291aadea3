"""What must be on the machine before anything starts, each with the command that provides it."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .common import CHECKOUT

RUSTUP = "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
PYTHON_RANGE = ((3, 10), (3, 14))
LIBTORCH_RELEASE = "2.11"
# Unpacked 4.6 GB, its packages 2.6 GB, and as much again in the cache that pip itself keeps.
FREE_BYTES_FOR_TORCH = 10 * 10**9


def problems(job):
    """All that is missing whatever is installed already: compilers and tools."""
    found = [_cargo()]
    if job == "check":
        found += [_cargo_part("fmt", "rustfmt"), _cargo_part("clippy", "clippy")]
    if not shutil.which(os.environ.get("CXX") or "c++") and not shutil.which("g++"):
        found.append("a C++ compiler is missing: sudo apt install g++")
    if not shutil.which("make"):
        found.append("make is missing: sudo apt install make")
    found += [_python(), _user_libtorch(), _user_libclang()]
    if "LIBTORCH_USE_PYTORCH" in os.environ:
        found.append(
            "LIBTORCH_USE_PYTORCH is set, which takes whatever torch the first python3 has: "
            "unset LIBTORCH_USE_PYTORCH"
        )
    return [problem for problem in found if problem]


def problems_of_installing(root, with_torch):
    """What else is missing where a Python environment has to be made or filled."""
    found = []
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        found.append(
            "Python's venv module is missing: sudo apt install python3-venv "
            f"(or python{sys.version_info[0]}.{sys.version_info[1]}-venv)"
        )
    if with_torch:
        free = shutil.disk_usage(root).free
        if free < FREE_BYTES_FOR_TORCH:
            found.append(
                f"{root} has {free / 1e9:.1f} GB free and torch needs "
                f"{FREE_BYTES_FOR_TORCH / 1e9:.0f} GB: free some (the cache's old versions: "
                f"du -sh {root}/*), or put the cache on another disk: export XDG_CACHE_HOME=FOLDER"
            )
    return found


def _cargo():
    needed = re.search(
        r'^rust-version = "([0-9.]+)"', (CHECKOUT / "Cargo.toml").read_text(encoding="utf-8"), re.M
    )[1]
    output = _output(["cargo", "--version"])
    if output is None:
        if (Path.home() / ".cargo" / "bin" / "cargo").exists():
            return 'cargo is installed but not on the PATH: . "$HOME/.cargo/env"'
        return f"cargo is missing: {RUSTUP}"
    version = re.search(r"cargo ([0-9]+(?:\.[0-9]+)+)", output)
    if version and _numbers(version[1]) < _numbers(needed):
        update = "rustup update stable" if shutil.which("rustup") else RUSTUP
        return f"cargo {version[1]} is too old, {needed} or newer is needed: {update}"
    return None


def _cargo_part(command, component):
    if shutil.which("cargo") and _output(["cargo", command, "--version"]) is None:
        return f"cargo {command} is missing: rustup component add {component}"
    return None


def _python():
    low, high = PYTHON_RANGE
    if low <= sys.version_info[:2] <= high:
        return None
    return (
        f"python3 is {sys.version.split()[0]}, and torch {LIBTORCH_RELEASE} exists for Python "
        f"{low[0]}.{low[1]} to {high[0]}.{high[1]}: install one of them (sudo apt install "
        f"python3.{high[1] - 2} python3.{high[1] - 2}-venv) and name it: "
        f"export PYTHON=python3.{high[1] - 2}"
    )


def _user_libtorch():
    value = os.environ.get("LIBTORCH")
    if not value:
        return None
    folder = Path(value)
    advice = f"point LIBTORCH at a libtorch {LIBTORCH_RELEASE}, or let the set-up bring one: unset LIBTORCH"
    for part in ("include", "lib/libtorch_cpu.so"):
        if not (folder / part).exists():
            return f"LIBTORCH={value} has no {part}: {advice}"
    version = _libtorch_version(folder)
    if version is None:
        return f"LIBTORCH={value} does not say its version (no build-version, no version.h): {advice}"
    if not (version + ".").startswith(LIBTORCH_RELEASE + "."):
        return f"LIBTORCH={value} is version {version}: {advice}"
    return None


def _libtorch_version(folder):
    stated = folder / "build-version"
    if stated.exists():
        return stated.read_text(encoding="utf-8").strip()
    for place in ("headeronly", "csrc/api/include/torch"):
        header = folder / "include" / "torch" / place / "version.h"
        if header.exists():
            text = header.read_text(encoding="utf-8")
            parts = [
                re.search(rf"#define TORCH_VERSION_{part} (\d+)", text)
                for part in ("MAJOR", "MINOR", "PATCH")
            ]
            if all(parts):
                return ".".join(part[1] for part in parts)
    return None


def _user_libclang():
    value = os.environ.get("LIBCLANG_PATH")
    if not value:
        return None
    path = Path(value)
    if path.is_file() or any(path.glob("libclang*.so*")):
        return None
    return (
        f"LIBCLANG_PATH={value} has no libclang.so: sudo apt install libclang-dev, "
        "or let the set-up bring one: unset LIBCLANG_PATH"
    )


def _numbers(version):
    return tuple(int(part) for part in version.split("."))


def _output(command):
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=CHECKOUT, check=False
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
