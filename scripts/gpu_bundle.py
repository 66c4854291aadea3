#!/usr/bin/env python3
"""Make the folder that checks and times the CUDA kernels on a machine with a GPU.

That machine needs no cargo and no checkout: the folder holds programs built here, and `gpu-check`
runs them with the libtorch and NVRTC of the torch that its Python has. See docs/gpu/README.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setup_parts import cargo_config

CHECKOUT = Path(__file__).resolve().parents[1]
MOST_BYTES = 60 << 20
# The library of the Python package, as cargo names it.
EXTENSION = "medcam_rs"

# Tests with cases for CUDA: the target, what builds it, and the arguments that choose its tests.
TESTS = (
    # Those on the host need a compiler and the sources.
    ("cuda", ("--no-default-features", "--features", "dlpack"), ("--skip", "on_host::")),
    ("gpu", ("--all-features",), ("gpu_",)),
)
# The tests of the Python package with cases for CUDA, and what they share.
PYTHON_TESTS = ("test_cuda.py", "small.py")
# Few and small, but each kind: classification and segmentation, 2D and 3D, and one of MONAI's.
NETWORKS = ("plain2d", "softmax2d", "unet2d", "plain3d", "unet3d", "monai_dynunet3d")


def built(arguments, kind, name):
    """Build one target in release mode; returns the path of its program."""
    command = ["cargo", *arguments, "--locked", "--message-format=json-render-diagnostics"]
    # Libraries come from LD_LIBRARY_PATH there; the folder of this machine's means nothing.
    environment = {**os.environ, "MEDCAM_RUNPATH": "$ORIGIN/lib"}
    print("gpu-bundle:", " ".join(command[:-1]), flush=True)
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"gpu-bundle: {' '.join(command[:3])} failed")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        target = message.get("target", {})
        if kind in target.get("kind", ()) and target["name"] == name:
            if kind == "cdylib":
                return next(Path(file) for file in message["filenames"] if file.endswith(".so"))
            if message.get("executable"):
                return Path(message["executable"])
    sys.exit(f"gpu-bundle: cargo built no {kind} {name}")


def programs():
    """All programs by the name that they get in the bundle."""
    found = {}
    for name, features, _ in TESTS:
        arguments = ["test", "--release", "--no-run", *features, "--test", name]
        found[name] = built(arguments, "test", name)
    arguments = ["bench", "--no-run", "--all-features", "--bench", "ops"]
    found["ops"] = built(arguments, "bench", "ops")
    arguments = ["build", "--release", "--all-features", "--bin", "medcam"]
    found["medcam"] = built(arguments, "bin", "medcam")
    return found


def copy_python(target):
    """The Python package, as its wheel has it."""
    arguments = ["build", "--release", "-p", "medcam-python"]
    library = built(arguments, "cdylib", EXTENSION)
    shutil.copytree(
        CHECKOUT / "python" / "medcam_rs", target, ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy2(library, target / "_native.abi3.so")
    subprocess.run(["strip", str(target / "_native.abi3.so")], check=True)


def copy_networks(source, target):
    """Some of the networks of the tests, with a manifest of these alone."""
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    kept = [network for network in manifest["networks"] if network["name"] in NETWORKS]
    if len(kept) != len(NETWORKS):
        sys.exit(f"gpu-bundle: {source} lacks some of {', '.join(NETWORKS)}")
    target.mkdir()
    for name in sorted(files_of(kept)):
        shutil.copy2(source / name, target / name)
    manifest.update(networks=kept, odd=[], guided=[])
    (target / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def files_of(value, key=""):
    """The files that a part of the manifest names, but for the twins that are only run on the CPU."""
    if isinstance(value, dict):
        parts = [files_of(part, name) for name, part in value.items()]
    elif isinstance(value, list):
        parts = [files_of(part, key) for part in value]
    else:
        is_file = isinstance(value, str) and value.endswith((".pt", ".npy"))
        return {value} if is_file and not key.startswith(("twin", "double")) else set()
    return set().union(*parts)


def described():
    """What the bundle was made from."""

    def output(*command):
        return subprocess.run(
            command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()

    return {
        "commit": output("git", "rev-parse", "HEAD"),
        "changed_since": bool(output("git", "status", "--porcelain")),
        "rustc": output("rustc", "--version"),
        "tests": [{"name": name, "arguments": chosen} for name, _, chosen in TESTS],
    }


def main():
    """Makes the folder anew."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--output", type=Path, default=CHECKOUT / "target" / "gpu-bundle")
    output = parser.parse_args().output
    networks = os.environ.get("MEDCAM_NETWORKS") or cargo_config.read().get("MEDCAM_NETWORKS")
    if not networks:
        sys.exit("gpu-bundle: MEDCAM_NETWORKS is not set: run python3 scripts/setup.py test first")

    found = programs()
    shutil.rmtree(output, ignore_errors=True)
    (output / "bin").mkdir(parents=True)
    for name, path in found.items():
        shutil.copy2(path, output / "bin" / name)
        subprocess.run(["strip", str(output / "bin" / name)], check=True)
    shutil.copytree(
        CHECKOUT / "scripts" / "gpu",
        output,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copytree(CHECKOUT / "kernels", output / "kernels")
    shutil.copy2(CHECKOUT / "benches" / "ops" / "sizes.json", output / "sizes.json")
    shutil.copy2(CHECKOUT / "docs" / "gpu" / "README.md", output / "README.md")
    copy_networks(Path(networks), output / "networks")
    tests = output / "python_tests"
    tests.mkdir()
    for name in PYTHON_TESTS:
        shutil.copy2(CHECKOUT / "python" / "tests" / "injection" / name, tests / name)
    (output / "python").mkdir()
    copy_python(output / "python" / "medcam_rs")
    (output / "bundle.json").write_text(json.dumps(described(), indent=1) + "\n", encoding="utf-8")

    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"gpu-bundle: {output}, {size / 2**20:.1f} MiB; there: ./gpu-check")
    if size > MOST_BYTES:
        sys.exit(f"gpu-bundle: {size} bytes are more than {MOST_BYTES}")


if __name__ == "__main__":
    main()
