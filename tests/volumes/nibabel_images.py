"""Images as nibabel writes them, and what nibabel says of the maps that medcam writes onto them.

    nibabel_images.py write FOLDER    images NAME.nii[.gz], NAME.npy (C, i, j, k), NAME.txt, and
                                      NAME-{nearest,linear}.npy: model input as torch makes it
    nibabel_images.py check FOLDER    NAME-{same,u8,half}.nii.gz against the image and NAME-map.npy
"""

import pathlib
import sys

import nibabel as nib
import numpy as np
import torch

folder = pathlib.Path(sys.argv[2])
rng = np.random.default_rng(0)


def rotation(x, y, z):
    out = np.eye(3)
    for axis, angle in enumerate(np.deg2rad([x, y, z])):
        c, s = np.cos(angle), np.sin(angle)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
        out = turn @ out
    return out


def affine(angles, spacing, origin, flip=(1, 1, 1)):
    out = np.eye(4)
    out[:3, :3] = rotation(*angles) @ np.diag(np.array(spacing) * flip)
    out[:3, 3] = origin
    return out


OBLIQUE = affine((12, -25, 40), (0.7, 1.3, 3.1), (-30.5, 22.25, 7), (-1, 1, -1))
TURNED = affine((85, 10, -95), (2, 2, 4), (1, 2, 3))

# name: shape, dtype, affine, sform code, qform code, slope, endianness
IMAGES = {
    "sform": ((6, 9, 5), np.float32, OBLIQUE, 2, 1, None, "<"),
    "qform": ((7, 4, 6), np.int16, OBLIQUE, 0, 1, (0.37, -12.5), "<"),
    "qfac": ((5, 6, 7), np.float32, TURNED @ np.diag([1, 1, -1, 1]), 0, 3, None, "<"),
    "plain": ((8, 5, 3), np.uint8, np.diag([2, 3, 4, 1.0]), 0, 0, None, "<"),
    "bigendian": ((4, 6, 8), np.float64, TURNED, 4, 4, None, ">"),
    "channels": ((4, 5, 6, 3), np.int32, OBLIQUE, 1, 0, (2.5, 1), "<"),
    "vector": ((4, 5, 6, 1, 2), np.uint16, TURNED, 1, 1, None, "<"),
    "slice": ((6, 5), np.float32, OBLIQUE, 1, 1, None, "<"),
}


def write(name, shape, dtype, matrix, sform, qform, scale, order):
    values = rng.integers(0, 200, shape).astype(dtype)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(values, matrix if sform or qform else None, header)
    zooms = nib.affines.voxel_sizes(matrix).tolist() + [1] * 4
    image.header.set_zooms(zooms[: len(shape)])
    image.header.set_sform(matrix if sform else None, sform)
    image.header.set_qform(matrix if qform else None, qform)
    image.header.set_xyzt_units("mm", "sec")
    if scale:
        image.header.set_slope_inter(*scale)
    suffix = ".nii" if name in ("plain", "slice") else ".nii.gz"
    image.to_filename(folder / f"{name}{suffix}")
    back = nib.load(folder / f"{name}{suffix}")
    data = back.get_fdata(dtype=np.float64).astype(np.float32)
    data = data.reshape(*data.shape[:3], *[1] * (3 - data.ndim), -1)
    np.save(folder / f"{name}.npy", np.moveaxis(data, 3, 0))
    if data.ndim == 4 and back.ndim == 3:
        prepare(name, back)
    numbers = " ".join(repr(float(x)) for x in back.affine.ravel())
    codes = "".join(nib.aff2axcodes(back.affine))
    (folder / f"{name}.txt").write_text(f"{name}{suffix} {codes} {numbers}")


def prepare(name, image):
    """As deepbet does it: canonical axes, resize, percentiles, scale, z-score."""
    x = nib.as_closest_canonical(image).get_fdata(dtype=np.float32)
    x = torch.from_numpy(np.ascontiguousarray(x))[None, None]
    linear = torch.nn.functional.interpolate(x, (5, 11, 4), mode="trilinear")
    np.save(folder / f"{name}-linear.npy", linear.numpy())
    x = torch.nn.functional.interpolate(x, (5, 11, 4), mode="nearest-exact")
    low, high = x.quantile(0.005), x.quantile(0.995)
    x = ((x - low) / (high - low)).clamp(min=0, max=1)
    x = 0.226 * (x - x.mean()) / x.std(correction=0) + 0.449
    np.save(folder / f"{name}-nearest.npy", x.numpy())


def check(name, *_):
    image = nib.load(next(folder.glob(f"{name}.nii*")))
    expected = np.load(folder / f"{name}-map.npy")
    for kind, tolerance in (("same", 0), ("u8", 0.5 / 255 + 1e-6), ("half", 0)):
        out = nib.load(folder / f"{name}-{kind}.nii.gz")
        header = out.header
        values = out.get_fdata(dtype=np.float32)
        assert out.get_data_dtype() == (np.uint8 if kind == "u8" else np.float32), kind
        assert nib.aff2axcodes(out.affine) == nib.aff2axcodes(image.affine), kind
        for field in ("sform_code", "qform_code"):
            assert header[field] == image.header[field], (kind, field)
        assert header["cal_min"] == 0 and header["cal_max"] == 1 and header["intent_code"] == 0
        assert header.get_xyzt_units()[0] == "mm" and header["dim"][0] == 3
        assert bytes(header["descrip"]).startswith(b"medcam"), header["descrip"]
        zooms = image.header["pixdim"][1:4]
        if kind == "half":
            shape = np.array(list(image.shape[:3]) + [1] * (3 - image.ndim))
            zooms = zooms * shape / values.shape
            for corner in ([0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 1]):
                for matrices in ((image.affine, out.affine), both_qforms(image, out)):
                    a, b = (
                        m @ [*(np.array(corner) * n - 0.5), 1]
                        for m, n in zip(matrices, (shape, values.shape))
                    )
                    assert np.allclose(a, b, atol=1e-3), (corner, a, b)
        else:
            assert np.array_equal(out.affine, image.affine), (out.affine, image.affine)
            assert values.shape == expected.shape, values.shape
            assert np.abs(values - expected).max() <= tolerance, kind
        assert np.allclose(header.get_zooms(), zooms), (header.get_zooms(), zooms)


def both_qforms(image, out):
    if image.header["qform_code"] == 0:
        return image.affine, out.affine
    return image.header.get_qform(), out.header.get_qform()


for name, image in IMAGES.items():
    {"write": write, "check": check}[sys.argv[1]](name, *image)
print(*IMAGES)
