"""Files that other programs read: NIfTI by nibabel, tables by pandas, pictures by Pillow, arrays."""

import csv
import errno
import os
import threading
import zipfile

import numpy
import pytest

from medcam_rs import _files, errors

OBLIQUE = numpy.array(
    [[1.6, -0.5, 0.25, -40.0], [0.4, 1.9, -0.125, 12.5], [-0.25, 0.5, 3.0, -7.75], [0, 0, 0, 1]]
)
FLIPPED = numpy.array([[0, -2.0, 0, 90], [0, 0, 3.5, -126], [-1.25, 0, 0, 72], [0, 0, 0, 1]])


def drawn(*shape, seed=0):
    return numpy.random.default_rng(seed).random(shape, dtype=numpy.float32)


@pytest.mark.parametrize("affine", [OBLIQUE, FLIPPED, numpy.diag([0.7, 0.7, 5, 1])])
@pytest.mark.parametrize("grid", [(5, 7, 3), (1, 9, 4), (2, 3, 1)])
def test_a_volume_is_nibabels_with_its_indices_and_affine(tmp_path, affine, grid):
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed here")
    values = drawn(1, 1, *grid)
    [file] = _files.save_maps(tmp_path, "up.2", None, values, "scan", affine=affine)
    assert file == str(tmp_path / "up.2" / "scan.nii.gz")
    image = nibabel.load(file)
    assert image.get_data_dtype() == numpy.float32
    numpy.testing.assert_array_equal(image.get_fdata(dtype=numpy.float32), values[0, 0])
    numpy.testing.assert_array_equal(image.affine, affine.astype(numpy.float32))
    own = nibabel.Nifti1Image(values[0, 0], affine)
    assert nibabel.aff2axcodes(image.affine) == nibabel.aff2axcodes(own.affine)
    numpy.testing.assert_array_equal(image.header.get_zooms(), own.header.get_zooms())
    for code in ("sform_code", "qform_code"):
        assert image.header[code] == own.header[code]
    assert image.header.get_xyzt_units()[0] == "mm"


def test_without_an_affine_a_volume_has_the_identity_and_an_unknown_unit(tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed here")
    values = drawn(3, 1, 4, 5, 6)
    files = _files.save_maps(tmp_path, "conv", "class2", values, "scan")
    assert [os.path.basename(file) for file in files] == [
        f"scan_class2_{sample}.nii.gz" for sample in range(3)
    ]
    for file, of_sample in zip(files, values):
        image = nibabel.load(file)
        numpy.testing.assert_array_equal(image.affine, numpy.eye(4))
        numpy.testing.assert_array_equal(image.get_fdata(dtype=numpy.float32), of_sample[0])
        assert image.header.get_xyzt_units()[0] == "unknown"


def test_a_2d_map_is_a_picture_and_an_array(tmp_path):
    values = drawn(1, 1, 6, 9)
    png, npy = _files.save_maps(tmp_path, "conv", "best", values, "scan")
    assert [png, npy] == [str(tmp_path / "conv" / f"scan_best{end}") for end in (".png", ".npy")]
    numpy.testing.assert_array_equal(numpy.load(npy), values[0, 0])
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed here")
    pixels = numpy.asarray(pillow.open(png))
    assert pixels.dtype == numpy.uint8
    assert numpy.abs(pixels / 255 - values[0, 0]).max() <= 0.5 / 255 + 1e-6


def test_tensors_and_other_types_and_orders_are_taken(tmp_path, library):
    values = numpy.round(drawn(2, 1, 4, 6) * 64) / 64
    for dtype in library.dtypes:
        array = library.make(values, dtype)
        files = _files.save_maps(tmp_path, "conv", None, array, dtype)
        numpy.testing.assert_array_equal(numpy.load(files[3]), values[1, 0])
    turned = library.make(values).swapaxes(2, 3)
    files = _files.save_maps(tmp_path, "conv", None, turned, "turned")
    numpy.testing.assert_array_equal(numpy.load(files[1]), values[0, 0].T)


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (numpy.eye(3), "4x4"),
        ("none", "4x4"),
        (numpy.diag([1, 1, 0, 1]), "column of zeros"),
        (numpy.array([[1, 2, 0, 0], [2, 4, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "inverted"),
        (numpy.diag([1, numpy.nan, 1, 1]), "not finite"),
        (numpy.diag([1, 1e300, 1, 1]), "not finite"),
        (numpy.diag([1, 1, 1, 2]), "last row"),
    ],
)
def test_an_affine_that_places_nothing_is_refused(tmp_path, affine, words):
    with pytest.raises(errors.InputError, match=f"affine: .*{words}"):
        _files.save_maps(tmp_path, "conv", None, drawn(1, 1, 2, 3, 4), "scan", affine=affine)
    assert not any(tmp_path.rglob("*.nii.gz"))


def test_what_is_no_map_is_refused(tmp_path):
    def save(values, name="scan", layer="conv", **options):
        return _files.save_maps(tmp_path, layer, None, values, name, **options)

    for values in (drawn(1, 2, 4, 5), drawn(4, 5)):
        with pytest.raises(errors.InputError, match="values"):
            save(values)
    for value in (1.5, -0.5, numpy.nan, numpy.inf):
        values = drawn(1, 1, 4, 5)
        values[0, 0, 2, 3] = value
        with pytest.raises(errors.InputError, match=r"within \[0, 1\]"):
            save(values)
    for part in ("", ".", "..", "a/b", "a\\b", "a\0b", None):
        with pytest.raises(errors.InputError, match="name: .*part of a path"):
            save(drawn(1, 1, 4, 5), name=part)
        with pytest.raises(errors.InputError, match="layer: .*part of a path"):
            save(drawn(1, 1, 4, 5), layer=part)
    with pytest.raises(errors.InputError, match="2D"):
        save(drawn(1, 1, 4, 5), affine=OBLIQUE)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.FileError, match="file") as raised:
        _files.save_maps(tmp_path / "file", "conv", None, drawn(1, 1, 4, 5), "scan")
    assert isinstance(raised.value, OSError) and raised.value.errno == errno.ENOTDIR
    with pytest.raises(OSError, match="archive") as raised:
        _files.Archive(tmp_path / "none" / "maps.npz")
    assert raised.value.errno == errno.ENOENT


def test_a_name_that_is_too_long_is_an_oserror(tmp_path):
    with pytest.raises(errors.FileError) as raised:
        _files.save_maps(tmp_path, "conv", None, drawn(1, 1, 4, 5), "n" * 300)
    assert raised.value.errno == errno.ENAMETOOLONG
    assert not any(file.name.startswith(".medcam") for file in tmp_path.rglob("*"))


def test_an_archive_appears_when_it_is_finished(tmp_path):
    path = tmp_path / "maps.npz"
    path.write_text("old")
    archive = _files.Archive(path)
    flat, deep = drawn(2, 1, 4, 5), drawn(1, 1, 3, 4, 5)
    archive.add("a", "conv", "best", flat)
    archive.add("b", "conv", "best", deep)
    with pytest.raises(errors.InputError, match="'a/conv/best' already"):
        archive.add("a", "conv", "best", flat)
    assert path.read_text() == "old"
    assert archive.finish() == str(path)
    with numpy.load(path) as entries:
        assert sorted(entries) == ["a/conv/best", "b/conv/best"]
        numpy.testing.assert_array_equal(entries["a/conv/best"], flat)
        numpy.testing.assert_array_equal(entries["b/conv/best"], deep)
    with pytest.raises(errors.InputError, match="finished"):
        archive.add("c", "conv", "best", flat)
    with pytest.raises(errors.InputError, match="finished"):
        archive.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["maps.npz"]


def test_an_archive_that_is_dropped_or_empty_leaves_what_was_there(tmp_path):
    path = tmp_path / "maps.npz"
    path.write_text("old")
    dropped = _files.Archive(path)
    dropped.add("a", "conv", "best", drawn(1, 1, 4, 5))
    del dropped
    assert _files.Archive(path).finish() is None
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(errors.InputError, match="no name for a file"):
        _files.Archive(tmp_path)


def test_threads_share_an_archive(tmp_path):
    archive = _files.Archive(tmp_path / "maps.npz")
    maps = {f"{number}": drawn(1, 1, 8, 9, seed=number) for number in range(32)}

    def add(names):
        for name in names:
            archive.add(name, "conv", "best", maps[name])

    threads = [threading.Thread(target=add, args=(list(maps)[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with numpy.load(archive.finish()) as entries:
        assert len(entries.files) == 32
        for name, values in maps.items():
            numpy.testing.assert_array_equal(entries[f"{name}/conv/best"], values)


def test_scores_are_written_as_tables_and_a_plot(tmp_path):
    evaluator = _files.Evaluator(("ioa", "iou"), 0.5, "binary")
    values = numpy.array([0.1, 0.6, 0.2, 1.0, 0, 0.7, 0.9, 1], dtype="float32")
    mask = numpy.array([0, 1, 1, 1, 1, 0, 0, 1])
    scores, warnings = evaluator.add(
        "scan", "b", "best", values.reshape(2, 1, 2, 2), mask.reshape(2, 1, 2, 2), [1, 3]
    )
    assert warnings == [] and len(evaluator) == 4
    rows = [(one.metric, one.score, one.class_index, one.sample, one.name) for one in scores]
    # Sample 0: attention {1, 3} after normalisation to [0, 1], within the mask {1, 2, 3}.
    assert rows == [
        ("ioa", 1.0, 1, 0, "scan_0"),
        ("iou", pytest.approx(2 / 3), 1, 0, "scan_0"),
        ("ioa", pytest.approx(1 / 3), 3, 1, "scan_1"),
        ("iou", 0.25, 3, 1, "scan_1"),
    ]
    evaluator.add("other", "a", "best", values.reshape(1, 1, 2, 4), mask.reshape(1, 1, 2, 4), [1])
    files = evaluator.dump(tmp_path / "scores", layer_order=["a", "b"])
    assert files == [
        str(tmp_path / "scores" / name) for name in ("scores.xlsx", "scores.csv", "mean_scores.png")
    ]
    with open(files[1], newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == ["scan_0"] * 2 + ["scan_1"] * 2 + ["other"] * 2
    assert [float(row["evaluation"]) for row in table[:4]] == [one.score for one in scores]
    assert zipfile.is_zipfile(files[0])
    with open(files[2], "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed here")
    means = openpyxl.load_workbook(files[0])["Mean Scores"]
    assert [row[1].value for row in means.iter_rows(min_row=2)] == ["a", "a"] + ["b"] * 4


def test_masks_are_read_as_they_say():
    values, labels = drawn(1, 1, 3, 4, 5), numpy.zeros((1, 1, 6, 4, 5))
    labels[0, 0, 2:, :2] = 2

    def add(masks, mask, class_index):
        evaluator = _files.Evaluator("relevance_mass", masks=masks)
        try:
            return evaluator.add("scan", "conv", "best", values, mask, [class_index])
        finally:
            add.kept = len(evaluator)

    [score], _ = add("detect", labels, 2)
    [binary], _ = add("binary", labels / 2, 2)
    assert score.score == binary.score and 0 < score.score < 1
    _, [warning] = add("detect", labels, 3)
    assert (warning.code, warning.sample) == ("EMPTY_MASK", None)
    for masks, mask, class_index in [
        ("detect", labels / 2, 0),
        ("detect", labels, None),
        ("labels", labels / 4, 1),
        ("labels", labels, None),
        ("binary", labels[:, :, 0], 1),
        ("binary", numpy.full_like(labels, numpy.nan), 1),
    ]:
        with pytest.raises(errors.InputError, match="mask"):
            add(masks, mask, class_index)
        assert add.kept == 0
    with pytest.raises(errors.InputError, match="detect, binary or labels"):
        add("some", labels, 2)


def test_a_metric_may_be_a_function():
    seen = []

    def greatest_inside(map, mask):
        seen.append((map.shape, map.dtype, mask.dtype))
        return map[mask == 1].max()

    values = numpy.array([[[[0, 0.25, 0.5], [1, 0, 0]]]], dtype="float32")
    mask = numpy.array([[[[0, 1, 1], [0, 0, 0]]]])
    evaluator = _files.Evaluator((greatest_inside, "ioa"))
    scores, _ = evaluator.add("scan", "conv", "best", values, mask, [None])
    assert [(one.metric, one.score) for one in scores][0] == ("greatest_inside", 0.5)
    assert seen == [((1, 2, 3), numpy.float32, numpy.uint8)]
    with pytest.raises(ValueError, match="zero-size"):
        evaluator.add("scan", "conv", "best", values, 0 * mask, [None])
    assert len(evaluator) == 2
    for wrong in ((), ("ioa", "ioa"), ("no_such",)):
        with pytest.raises(errors.InputError, match="metric"):
            _files.Evaluator(wrong)


def test_scores_of_a_call_that_failed_can_be_taken_back(tmp_path):
    evaluator = _files.Evaluator()
    evaluator.add("a", "conv", "best", drawn(1, 1, 4, 5), numpy.ones((1, 1, 4, 5)), [None])
    before = len(evaluator)
    evaluator.add("b", "conv", "best", drawn(1, 1, 4, 5), numpy.ones((1, 1, 4, 5)), [None])
    evaluator.truncate(before)
    assert len(evaluator) == before
    with pytest.raises(errors.InputError, match="no scores"):
        _files.Evaluator().dump(tmp_path)


@pytest.mark.parametrize("affine", [None, OBLIQUE])
@pytest.mark.parametrize("shape", [(2, 1, 12, 10), (1, 3, 12, 10), (1, 4, 7, 9, 8)])
def test_maps_are_drawn_over_their_images(tmp_path, shape, affine):
    values, images = drawn(shape[0], 1, *shape[2:]), 100 * drawn(*shape)
    options = {"classes": [1] * shape[0], "method": "gcam", "affine": affine}
    if affine is not None and len(shape) == 4:
        with pytest.raises(errors.InputError, match="2D"):
            _files.save_overlays(tmp_path, "conv", None, values, "scan", images, **options)
        return
    heat = _files.save_overlays(tmp_path, "conv", None, values, "scan", images, **options)
    numbers = [""] if shape[0] == 1 else ["_0", "_1"]
    assert heat == [str(tmp_path / "conv" / f"scan{one}_overlay.png") for one in numbers]
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed here")
    coloured = numpy.asarray(pillow.open(heat[0]).convert("RGB")).astype(int)
    gray = _files.save_overlays(
        tmp_path, "conv", None, values, "gray", images, signed=True, **options
    )
    drawn_gray = numpy.asarray(pillow.open(gray[0]).convert("RGB")).astype(int)
    assert coloured.shape[1] >= 900 and not numpy.array_equal(coloured, drawn_gray)
    with pytest.raises(errors.InputError, match="images"):
        _files.save_overlays(tmp_path, "conv", None, values, "scan", images[:0], **options)


def test_components_are_the_largest_first():
    mask = numpy.zeros((2, 4, 5, 6))
    mask[0, 0, 0, 0] = 1
    mask[0, 1, 1, 1] = 0.5
    mask[0, 3, 0, 2:5] = 1
    labels = _files.components(mask)
    assert labels.dtype == numpy.int32 and labels.shape == mask.shape
    assert labels[0, 3, 0, 2:5].tolist() == [1, 1, 1]
    assert labels[0, 0, 0, 0] == labels[0, 1, 1, 1] == 2
    assert numpy.count_nonzero(labels) == 5 and not labels[1].any()


@pytest.mark.parametrize("grid", [(23, 31), (9, 11, 13)])
def test_components_are_scipys(grid):
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed here")
    mask = drawn(1, *grid, seed=3) < (0.35 if len(grid) == 2 else 0.12)
    labels = _files.components(mask)[0]
    theirs, count = ndimage.label(mask[0], structure=numpy.ones((3,) * len(grid)))
    assert count > 5 and labels.max() == count
    sizes = numpy.bincount(labels.ravel())[1:]
    assert (numpy.diff(sizes) <= 0).all()
    assert len({*zip(labels.ravel().tolist(), theirs.ravel().tolist())}) == count + 1
