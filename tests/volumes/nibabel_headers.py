"""NIfTI headers with faults that nibabel repairs, and the kinds of NIfTI besides a plain `.nii`.

    nibabel_headers.py write FOLDER    files, and for each NAME: NAME.npy (C, i, j, k) and NAME.txt, which
                                       has the file, part of the expected note (or -) and the affine
    nibabel_headers.py check FOLDER    NAME-map.nii.gz lies where NAME-affine.txt says
"""

import logging
import pathlib
import struct
import sys

import nibabel as nib
import numpy as np

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
folder = pathlib.Path(sys.argv[2])
rng = np.random.default_rng(0)
TURN = nib.quaternions.quat2mat(np.array([0.9, 0.1, -0.3, 0.2]) / np.linalg.norm([0.9, 0.1, -0.3, 0.2]))
AFFINE = np.eye(4)
AFFINE[:3, :3] = TURN @ np.diag([2.0, 3.0, 1.5])
AFFINE[:3, 3] = 7, -11, 30.5
NAN = float("nan")


def image(dtype="f4", kind=nib.Nifti1Image, sform=1, qform=1, order="<", shape=(5, 6, 7), scale=None):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(dtype)
    made = kind(rng.integers(0, 200, shape).astype(dtype), AFFINE, header)
    made.header.set_sform(AFFINE if sform else None, sform)
    made.header.set_qform(AFFINE if qform else None, qform)
    if not sform and not qform:
        made.header["pixdim"][1 : 1 + len(shape)] = (2, 3, 1.5)[: len(shape)]
    if scale:
        made.header.set_slope_inter(*scale)
    return made


def save(name, made, suffix=".nii", patches=(), note="-", expected=None, read=None):
    """`patches` are (offset, format, values); `expected` is the affine where nibabel's is not it."""
    path = folder / f"{name}{suffix}"
    nib.save(made, path)
    data = bytearray(path.read_bytes())
    for offset, form, *values in patches:
        struct.pack_into(form, data, offset, *values)
    path.write_bytes(bytes(data))
    back = nib.load(path)
    values = np.asarray(back.dataobj)
    if values.dtype.names:
        values = np.stack([values[channel] for channel in "RGB"], -1)
    values = np.asarray(values, "f8").astype("f4")
    values = values.reshape(*values.shape[:3], *[1] * (3 - values.ndim), -1)
    np.save(folder / f"{name}.npy", np.moveaxis(values, 3, 0))
    affine = back.affine if expected is None else expected
    numbers = " ".join(repr(float(x)) for x in np.asarray(affine).ravel())
    (folder / f"{name}.txt").write_text(f"{read or path.name}\n{note}\n{numbers}")
    NAMES.append(name)


def colours(*names):
    values = np.zeros((4, 5, 3), [(name, "u1") for name in names])
    for name in names:
        values[name] = rng.integers(0, 255, values.shape)
    made = nib.Nifti1Image(values, AFFINE)
    made.header.set_qform(AFFINE, 1)
    return made


NAMES = []


def write():
    for dtype, bits in [("u1", 32), ("i2", 8), ("f4", 0), ("f8", -64)]:
        save(f"bitpix-{dtype}", image(dtype), patches=[(72, "<h", bits)], note=f"bitpix is {bits},")
    save("bitpix-big", image("i2", order=">"), patches=[(72, ">h", 7)], note="bitpix is 7,")

    by_qform = image(sform=0).header.get_qform()
    for name, rows, fault in [
        ("zero", [0.0] * 12, "a column of zeros"),
        ("nan", [NAN] * 12, "not finite"),
        ("flat", [1.0, 1, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0], "cannot be inverted"),
        ("column", [1.0, 0, 0, 5, 0, 0, 1, 5, 0, 0, 1, 5], "a column of zeros"),
        ("infinite", [1.0, 0, 0, float("inf"), 0, 1, 0, 0, 0, 0, 1, 0], "not finite"),
    ]:
        save(f"sform-{name}", image(), patches=[(280, "<12f", *rows)], note=fault, expected=by_qform)
    save("qform-code", image(sform=0), patches=[(252, "<h", 9)], note="qform_code is 9")
    save("sform-code", image(), patches=[(254, "<h", -3)], note="sform_code is -3")
    both = [(252, "<h", 77), (254, "<h", 6)]
    save("codes", image(), patches=both, note="sform_code is 6")

    save("spacing-negative", image(sform=0), patches=[(84, "<f", -3)], note="pixdim[2] (the spacing) is -3")
    save("spacing-zero", image(sform=0, qform=0), patches=[(80, "<f", 0)], note="pixdim[1]")
    save("spacing-nan", image(), patches=[(88, "<f", NAN)], note="pixdim[3] (the spacing) is NaN: the sform")
    save("spacing-nan-all", image(qform=0), patches=[(80, "<3f", NAN, NAN, NAN)], note="pixdim[2]")
    save("qfac", image(sform=0), patches=[(76, "<f", 0.5)], note="pixdim[0] (qfac) is 0.5")
    save("qfac-zero", image(sform=0), patches=[(76, "<f", 0)])
    save("size", image("i2"), patches=[(0, "<i", 0)], note="sizeof_hdr is 0")
    save("size-big", image("i2", order=">"), patches=[(0, ">i", 1234)], note="sizeof_hdr is 1234")
    save("offset-fraction", image(), patches=[(108, "<f", 352.5)], note="vox_offset is 352.5")
    save("flat-plain", image(shape=(6, 5), sform=0, qform=0), patches=[(88, "<f", 4)])
    save("slope-nan", image("i2"), patches=[(112, "<2f", NAN, NAN)])

    for suffix in (".nii", ".nii.gz", ".hdr"):
        kind = nib.Nifti2Pair if suffix == ".hdr" else nib.Nifti2Image
        for order in "<>":
            name = f"two-{'big' if order == '>' else 'little'}{suffix.replace('.', '-')}"
            save(name, image("i2", kind, order=order, scale=(0.37, -1.5)), suffix)
    save("two-qform", image("u2", nib.Nifti2Image, sform=0))
    save("two-plain", image("f8", nib.Nifti2Image, sform=0, qform=0))
    bits = image("u1", nib.Nifti2Image)
    save("two-bitpix", bits, patches=[(14, "<h", 64)], note="bitpix is 64,")

    save("pair", image("i2", nib.Nifti1Pair), ".hdr")
    save("pair-by-img", image("f4", nib.Nifti1Pair), ".hdr", read="pair-by-img.img")
    save("pair-gz", image("u1", nib.Nifti1Pair), ".hdr.gz")
    save("pair-gz-by-img", image("u1", nib.Nifti1Pair), ".hdr.gz", read="pair-gz-by-img.img.gz")
    save("rgb", colours("R", "G", "B"))
    save("rgb-gz", colours("R", "G", "B"), ".nii.gz")
    save("rgba", colours("R", "G", "B", "A"))


def check():
    for path in folder.glob("*-map.nii.gz"):
        name = path.name.removesuffix("-map.nii.gz")
        ours = np.array((folder / f"{name}-affine.txt").read_text().split(), float)
        out = nib.load(path)
        # nibabel computes a quaternion's real part in more than double precision.
        assert np.allclose(out.affine.ravel(), ours, rtol=0, atol=1e-6), (name, out.affine, ours)
        # Nothing is left in the map for nibabel to repair.
        for report in out.header.diagnose_binaryblock(out.header.binaryblock).splitlines():
            raise AssertionError((name, report))


{"write": write, "check": check}[sys.argv[1]]()
print(*NAMES)
