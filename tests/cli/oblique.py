"""A head on an oblique, anisotropic, flipped grid, and what nibabel says of its map.

    oblique.py write FOLDER T1     oblique.nii.gz, and canonical.nii.gz: the same voxels in RAS order
    oblique.py check FOLDER MAPS   the maps of both in MAPS against them; the maps' values as .npy
"""

import pathlib
import sys

import nibabel as nib
import numpy as np

folder, given = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])


def write():
    t1 = nib.load(given)
    image = t1.slicer[::2, ::3, ::4]
    # Stored as inferior-superior, left-right, anterior-posterior, in a head turned by 20 degrees.
    stored = nib.orientations.axcodes2ornt(("I", "R", "P"))
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), stored))
    c, s = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
    turn = np.array([[c, -s, 0, 5], [s, c, 0, -7.5], [0, 0, 1, 11], [0, 0, 0, 1]])
    tilt = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.asarray(image.dataobj), turn @ tilt @ image.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nib.save(image, folder / "oblique.nii.gz")
    nib.save(nib.as_closest_canonical(image), folder / "canonical.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("I", "R", "P"), nib.aff2axcodes(image.affine)
    assert len(set(np.round(image.header.get_zooms(), 2))) == 3, image.header.get_zooms()
    assert np.abs(image.affine[:3, :3]).min(axis=0).max() > 0.1


def check():
    maps = {}
    for stem in "oblique", "canonical":
        image, written = (nib.load(f / f"{stem}.nii.gz") for f in (folder, given))
        assert written.shape == image.shape, (written.shape, image.shape)
        assert np.allclose(written.affine, image.affine, atol=1e-5), written.affine
        assert nib.aff2axcodes(written.affine) == nib.aff2axcodes(image.affine)
        assert np.allclose(written.header.get_zooms(), image.header.get_zooms(), atol=1e-5)
        assert written.header.get_xyzt_units()[0] == image.header.get_xyzt_units()[0]
        assert written.get_data_dtype() == np.float32
        for form in "get_sform", "get_qform":
            theirs, code = getattr(written, form)(coded=True)
            expected, expected_code = getattr(image, form)(coded=True)
            assert code == expected_code, form
            assert code == 0 or np.allclose(theirs, expected, atol=1e-4), form
        values = written.get_fdata(dtype=np.float32)
        assert values.min() == 0 and values.max() == 1
        np.save(folder / f"{stem}.npy", values)
        maps[stem] = written
    # The model gets both in RAS order, so one map is the other, turned.
    turned = nib.as_closest_canonical(maps["oblique"]).get_fdata()
    worst = np.abs(turned - maps["canonical"].get_fdata()).max()
    assert worst < 1e-5, worst
    # The attention lies at the same place in millimetres, and not at the image's centre.
    def centre(image, weights):
        voxels = np.indices(image.shape).reshape(3, -1).T
        return nib.affines.apply_affine(image.affine, np.average(voxels, axis=0, weights=weights.ravel()))

    centres = [centre(image, image.get_fdata()) for image in maps.values()]
    assert np.allclose(*centres, atol=1e-3), centres
    middle = centre(maps["oblique"], np.ones(maps["oblique"].shape))
    assert np.linalg.norm(centres[0] - middle) > 2, (centres, middle)


{"write": write, "check": check}[sys.argv[1]]()
