#!/usr/bin/env python3
"""Make a cohort of real-sized volumes from one real MRI: `make_cohort.py OUT --count 200`.

Each volume is that image shifted, mirrored and with other intensities, drawn from the seed and the number of the
volume: no two are the same, and a second run writes the same voxels. They have the image's type of voxels and lie
on its grid; with `--size` they are resampled to that many voxels over the same field of view, or, with
`--fit crop`, cropped and padded with 0 at the same spacing.

Real are the sizes, the values and what gzip makes of them; the volumes are not people, so only costs may be
measured with them.
"""

import argparse
from pathlib import Path

import common
import nibabel
import numpy
import torch

IMAGE = "nilearn-0.14.1/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def name_of(index):
    """The id of a case, from 0; no id is the beginning of another."""
    return f"case_{index:04d}"


def resampled(voxels, affine, size):
    """`voxels` on a grid of `size` over the same field of view, and that grid's affine."""
    tensor = torch.from_numpy(voxels.astype(numpy.float32))[None, None]
    grid = torch.nn.functional.interpolate(tensor, size, mode="trilinear", align_corners=False)[0, 0].numpy()
    steps = [old / new for old, new in zip(voxels.shape, size)]
    # Voxel 0 has its centre half a step from the edge of the field of view.
    to_old = numpy.diag([*steps, 1.0])
    to_old[:3, 3] = [(step - 1) / 2 for step in steps]
    return _of_type(grid, voxels.dtype), affine @ to_old


def cropped(voxels, affine, size):
    """The middle of `voxels` in `size` voxels, with 0 where there are none, and that grid's affine."""
    out = numpy.zeros(size, voxels.dtype)
    starts = [(old - new) // 2 for old, new in zip(voxels.shape, size)]
    of_old = tuple(slice(max(at, 0), min(at + new, old)) for at, old, new in zip(starts, voxels.shape, size))
    of_new = tuple(slice(part.start - at, part.stop - at) for part, at in zip(of_old, starts))
    out[of_new] = voxels[of_old]
    to_old = numpy.eye(4)
    to_old[:3, 3] = starts
    return out, affine @ to_old


def varied(voxels, rng):
    """`voxels` shifted by up to a tenth of each extent, mirrored, and with another contrast and brightness."""
    shifts = [int(rng.integers(-extent // 10, extent // 10 + 1)) for extent in voxels.shape]
    out = numpy.roll(voxels, shifts, axis=(0, 1, 2))
    out = numpy.flip(out, [axis for axis in range(3) if rng.random() < 0.5])
    top = float(out.max())
    changed = (out / numpy.float32(top)) ** numpy.float32(rng.uniform(0.7, 1.4))
    return _of_type(changed * numpy.float32(top * rng.uniform(0.7, 1.0)), voxels.dtype)


def _of_type(values, dtype):
    if numpy.issubdtype(dtype, numpy.integer):
        limits = numpy.iinfo(dtype)
        values = values.round().clip(limits.min, limits.max)
    return values.astype(dtype)


def make(folder, count, size=None, image=None, fit="resample", seed=0):
    """Writes the volumes, unless the last of them is there; returns their files."""
    folder = Path(folder)
    files = [folder / f"{name_of(index)}.nii.gz" for index in range(count)]
    if files[-1].exists():
        return files
    folder.mkdir(parents=True, exist_ok=True)
    source = nibabel.load(image or common.data(IMAGE))
    voxels, affine = numpy.asarray(source.dataobj), source.affine
    voxels = voxels.reshape(voxels.shape[:3])
    if size:
        voxels, affine = (resampled if fit == "resample" else cropped)(voxels, affine, size)
    for index, file in enumerate(files):
        volume = varied(voxels, numpy.random.default_rng([seed, index]))
        made = nibabel.Nifti1Image(numpy.ascontiguousarray(volume), affine)
        made.set_sform(affine, 1)
        made.set_qform(affine, 1)
        # A file that is there is whole.
        unfinished = file.with_name(f"unfinished_{file.name}")
        nibabel.save(made, unfinished)
        unfinished.replace(file)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the volumes")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=common.size, help="voxels X,Y,Z [default: the image's]")
    parser.add_argument("--image", type=Path, help="a 3D NIfTI [default: nilearn's T1, 197x233x189, uint8]")
    parser.add_argument("--fit", choices=("resample", "crop"), default="resample")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = make(arguments.out, arguments.count, arguments.size, arguments.image, arguments.fit, arguments.seed)
    shape = nibabel.load(files[0]).shape
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    print(f"{len(files)} volumes of {'x'.join(map(str, shape))} voxels, {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
