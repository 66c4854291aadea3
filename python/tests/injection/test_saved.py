"""What an injected module writes: maps, overlays, archives and scores, as other programs read them."""

import copy
import csv
import os

import numpy
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed here")
pytest.importorskip("monai", reason="MONAI is not installed here")

from monai.data import MetaTensor
from torch import nn

from medcam_rs.errors import DtypeError, FileError, InputError
from medcam_rs.injection import inject

AFFINE = numpy.array(
    [[1.6, -0.5, 0.25, -40.0], [0.4, 1.9, -0.125, 12.5], [-0.25, 0.5, 3.0, -7.75], [0, 0, 0, 1]]
)


class Net(nn.Module):
    """Convolutions, and one score per class and voxel."""

    def __init__(self, axes=2, classes=3):
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.first = conv(1, 4, 3, padding=1)
        self.second = conv(4, 4, 3, padding=1)
        self.head = conv(4, classes, 3, padding=1)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu())


def made(axes, batch=1):
    torch.manual_seed(axes)
    return Net(axes).eval(), torch.randn(batch, 1, *(9, 8, 7)[:axes])


def below(folder):
    return sorted(
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
    )


def values(model):
    return {(one.layer, one.target): one.values.numpy() for one in model.attention_maps()}


def read(file):
    return nibabel.load(file).get_fdata(dtype=numpy.float32)


def test_pictures_and_arrays_of_layers_and_targets(tmp_path):
    net, x = made(2, batch=2)
    inject(net, tmp_path, layer=["first", "second"], label=(1, 2), save_maps=True)
    net(x)
    net(x, name="scan", label=0)
    names = [f"000000_class{k}_{b}" for k in (1, 2) for b in (0, 1)] + ["scan_0", "scan_1"]
    expected = [f"{of}/{name}.{end}" for of in ("first", "second") for name in names
                for end in ("npy", "png")]  # fmt: skip
    assert below(tmp_path) == sorted(expected)
    for (layer, _), of_layer in values(net).items():
        for b in range(2):
            saved = numpy.load(tmp_path / layer / f"scan_{b}.npy")
            numpy.testing.assert_array_equal(saved, of_layer[b, 0])
    net(x)
    for (layer, target), of_layer in values(net).items():
        saved = numpy.load(tmp_path / layer / f"000002_{target}_1.npy")
        numpy.testing.assert_array_equal(saved, of_layer[1, 0])


def test_volumes_with_the_affine_of_the_call(tmp_path):
    net, x = made(3)
    inject(net, tmp_path, layer="second", save_maps=True)
    net(x, affine=AFFINE)
    net(x, name="without")
    (expected,) = values(net).values()
    for name, affine in (("000000", AFFINE.astype("f4")), ("without", numpy.eye(4))):
        file = tmp_path / "second" / f"{name}.nii.gz"
        numpy.testing.assert_array_equal(read(file), expected[0, 0])
        numpy.testing.assert_array_equal(nibabel.load(file).affine, affine)


@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "full"])
def test_a_metatensor_goes_through_activations_in_place_as_a_tensor_does(layer):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(inplace=True),
        nn.Conv3d(8, 8, 3, padding=1),
        nn.LeakyReLU(inplace=True),
        nn.Conv3d(8, 2, 3, padding=1),
    ).eval()
    x = torch.randn(2, 1, 9, 8, 7)
    with torch.no_grad():
        plain = net(x)
    inject(net, layer=layer, label=1)
    net(x)
    expected = values(net)
    output = net(MetaTensor(x))
    assert type(output) is MetaTensor and torch.equal(output.as_tensor(), plain)
    found = values(net)
    assert found.keys() == expected.keys()
    for key, map_ in expected.items():
        numpy.testing.assert_allclose(found[key], map_, atol=1e-5, err_msg=str(key))
    # The layers may be found with either.
    net.eject()
    inject(net, layer=layer, label=1)
    net(MetaTensor(x))
    assert values(net).keys() == expected.keys()


def test_a_metatensor_brings_its_affine_and_one_of_the_call_goes_before(tmp_path):
    net, x = made(3)
    inject(net, tmp_path, layer="second", save_maps=True)
    net(MetaTensor(x, affine=torch.tensor(AFFINE)), name="own")
    (expected,) = values(net).values()
    other = numpy.diag([2.0, 3, 4, 1])
    net(MetaTensor(x, affine=torch.tensor(AFFINE)), name="given", affine=other)
    net(MetaTensor(x), name="none")
    lps = numpy.diag([-1.0, -1, 1, 1]) @ AFFINE
    net(MetaTensor(x, affine=torch.tensor(lps), meta={"space": "LPS"}), name="lps")
    for name, affine in (("own", AFFINE), ("given", other), ("none", numpy.eye(4)), ("lps", AFFINE)):
        image = nibabel.load(tmp_path / "second" / f"{name}.nii.gz")
        numpy.testing.assert_array_equal(image.affine, affine.astype("f4"))
        numpy.testing.assert_allclose(image.get_fdata(), expected[0, 0], atol=1e-6)
        assert image.header.get_xyzt_units()[0] == ("unknown" if name == "none" else "mm")


def test_each_sample_of_a_batch_has_its_affine(tmp_path):
    net, x = made(3, batch=2)
    inject(net, tmp_path, layer="second", save_maps=True)
    both = numpy.stack([AFFINE, numpy.diag([2.0, 3, 4, 1])])
    net(x, affine=both, name="scan")
    net(x, affine=both, name="scan", label=(0, 1))
    net(x, affine=both[[0, 0]], name="same")
    for b in (0, 1):
        for name in (f"scan_{b}", f"scan_class1_{b}"):
            image = nibabel.load(tmp_path / "second" / f"{name}.nii.gz")
            numpy.testing.assert_array_equal(image.affine, both[b].astype("f4"))
        image = nibabel.load(tmp_path / "second" / f"same_{b}.nii.gz")
        numpy.testing.assert_array_equal(image.affine, AFFINE.astype("f4"))
    with pytest.raises(InputError, match="3 for 2 samples"):
        net(x, affine=both[[0, 0, 1]])


def test_an_archive_has_all_calls_and_the_next_one_another_name(tmp_path):
    net, x = made(3, batch=2)
    inject(net, tmp_path, layer="second", label=(0, 1), save_archive=True)
    assert net.dump() == []
    net(x, name="a")
    first = values(net)
    net(x.flip(2), name="b")
    second = values(net)
    with pytest.raises(InputError, match="dump"):
        copy.deepcopy(net)
    (file,) = net.dump()
    assert file == str(tmp_path / "attention_maps.npz") and net.dump() == []
    with numpy.load(file) as archive:
        assert len(archive.files) == 4
        for name, of_call in (("a", first), ("b", second)):
            for (layer, target), expected in of_call.items():
                numpy.testing.assert_array_equal(archive[f"{name}/{layer}/{target}"], expected)
    assert copy.deepcopy(net).attention_maps() == []
    net(x, name="a")
    net.eject()
    assert below(tmp_path) == ["attention_maps.npz", "attention_maps_2.npz"]
    with numpy.load(tmp_path / "attention_maps_2.npz") as archive:
        assert len(archive.files) == 2


def test_scores_of_several_targets_have_the_names_of_their_files(tmp_path):
    net, x = made(2)
    mask = torch.zeros(1, 1, 9, 8)
    mask[..., 2:6, 2:6] = 1
    options = {"evaluate": True, "save_maps": True, "masks": "binary"}
    inject(net, tmp_path, layer="second", label=(0, 1), **options)
    net(x, mask=mask, name="scan")
    assert [one.name for one in net.scores()] == ["scan_class0", "scan_class1"]
    assert {one.name for one in net.scores()} == {p.stem for p in tmp_path.rglob("*.npy")}
    with pytest.raises(InputError, match=r"mask: shape \(1, 9, 8\); expected \(1, 1, H, W\)"):
        net(x, mask=mask[0])


def test_scores_of_masks_and_their_tables(tmp_path):
    net, x = made(2, batch=2)
    options = {"evaluate": True, "save_scores": True, "metric": "ioa", "threshold": 0.5}
    inject(net, tmp_path, layer=["second", "first"], label=1, return_score=True, **options)
    with pytest.raises(InputError, match="no call"):
        net.dump()
    mask = torch.zeros(2, 1, 9, 8)
    mask[0, 0, 2:6, 2:6] = 1
    output, scores = net(x, mask=mask, name="scan")
    assert output.shape == (2, 3, 9, 8) and scores == net.scores()
    maps = values(net)
    assert [(one.layer, one.sample, one.class_index) for one in scores] == [
        (layer, b, 1) for layer in ("second", "first") for b in (0, 1)
    ]
    for one in scores[::2]:
        inside = maps[one.layer, "class1"][0, 0] >= 0.5
        within = mask[0, 0].numpy() == 1
        assert one.score == pytest.approx((inside & within).sum() / inside.sum(), abs=1e-6)
    assert all(one.score == 0 for one in scores[1::2])
    empty = [w for w in net.warnings() if w.code == "EMPTY_MASK"]
    assert {(w.layer, w.sample) for w in empty} == {("second", 1), ("first", 1)}
    files = net.dump()
    assert {os.path.basename(file) for file in files} >= {"scores.xlsx", "scores.csv"}
    assert all(os.path.getsize(file) for file in files)
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) > 4 and any("scan_0" in cell for row in rows for cell in row)
    # A later dump has the scores of all calls.
    net(x, mask=mask, name="later")
    net.dump()
    text = (tmp_path / "scores.csv").read_text()
    assert "scan_0" in text and "later_0" in text
    assert copy.deepcopy(net).scores() == []


def test_overlays_are_drawn_of_the_raw_input(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed here")
    for axes in (2, 3):
        net, x = made(axes)
        folder = tmp_path / str(axes)
        inject(net, folder, layer="second", save_maps=True)
        net(x, raw_input=x.to(torch.bfloat16), name="scan")
        net(x, raw_input=-x, name="other")
        net.eject()
        drawn = [
            numpy.asarray(image.open(folder / "second" / f"{name}_overlay.png"))
            for name in ("scan", "other")
        ]
        assert drawn[0].shape == drawn[1].shape and (drawn[0] != drawn[1]).any()


def test_a_call_that_cannot_be_written_leaves_no_scores(tmp_path):
    net, x = made(2)
    mask = torch.ones(1, 1, 9, 8)
    options = {"evaluate": True, "save_scores": True, "save_maps": True}
    inject(net, tmp_path, layer=["first", "second"], **options)
    net(x, mask=mask, name="good")
    # A file where the folder of the second layer would be made.
    for file in (tmp_path / "second").iterdir():
        file.unlink()
    (tmp_path / "second").rmdir()
    (tmp_path / "second").write_text("")
    with pytest.raises(FileError, match="second") as raised:
        net(x, mask=mask, name="bad")
    assert isinstance(raised.value, OSError)
    assert net.scores() == []
    net.dump()
    text = (tmp_path / "scores.csv").read_text()
    assert "good" in text and "bad" not in text


def test_what_cannot_be_written_or_scored_is_refused(tmp_path):
    net, x = made(2)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file"):
        inject(net, tmp_path / "file" / "folder", save_maps=True)
    with pytest.raises(InputError, match="metric"):
        inject(net, tmp_path, evaluate=True, metric="none")
    assert "forward" not in net.__dict__
    inject(net, tmp_path, layer="second", save_maps=True, evaluate=True)
    for match, options in (
        ("no mask", {}),
        ("mask: shape", {"mask": torch.ones(1, 2, 9, 8)}),
        ("part of a path", {"mask": torch.ones(1, 1, 9, 8), "name": "a/b"}),
        ("only volumes", {"mask": torch.ones(1, 1, 9, 8), "affine": AFFINE}),
        ("images", {"mask": torch.ones(1, 1, 9, 8), "raw_input": torch.ones(3, 1, 9, 8)}),
        ("last axis", {"mask": torch.ones(1, 1, 9, 8), "raw_input": torch.ones(1, 9, 8, 3)}),
        ("no value is finite", {"mask": torch.ones(1, 1, 9, 8), "raw_input": x * float("nan")}),
        ("raw_input: shape", {"mask": torch.ones(1, 1, 9, 8), "raw_input": 3}),
        ("mask: a masked array", {"mask": numpy.ma.masked_array(numpy.ones((1, 1, 9, 8)), True)}),
        ("label: the mask: a masked array", {"mask": torch.ones(1, 1, 9, 8),
                                             "label": (1, numpy.ma.masked_array(numpy.ones((9, 8))))}),
    ):
        with pytest.raises(InputError, match=match):
            net(x, **options)
        assert net.scores() == []


def test_what_no_file_takes_is_refused(tmp_path):
    net, x = made(3)
    inject(net, tmp_path, layer="second", save_archive=True)
    for options in ({"affine": AFFINE}, {"raw_input": x}):
        with pytest.raises(InputError, match=f"{next(iter(options))}.*save_maps=True"):
            net(x, **options)
    net.eject()
    inject(net, tmp_path, layer="second", save_maps=True)
    for match, affine in (("complex", AFFINE + 1j), ("masked", numpy.ma.masked_array(AFFINE))):
        with pytest.raises((InputError, DtypeError), match=f"affine: .*{match}"):
            net(x, affine=affine)
    for masked in (torch.ones(9, 8, 7) * 1j, numpy.ones((9, 8, 7)) * 1j):
        with pytest.raises(DtypeError, match="label: the mask: complex"):
            net(x, label=(1, masked))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_an_archive_replaces_no_pipe_and_no_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", tmp_path):
        with pytest.raises(FileError, match="no regular file"):
            inject(made(2)[0], save_archive=path)


def test_a_batch_of_monais_loader_brings_the_affine_of_each_sample(tmp_path):
    from monai.data import DataLoader, Dataset

    net, x = made(3, batch=2)
    both = [AFFINE, numpy.diag([2.0, 3, 4, 1])]
    images = [MetaTensor(one, affine=torch.tensor(of)) for one, of in zip(x, both)]
    (batch,) = DataLoader(Dataset(images), batch_size=2)
    inject(net, tmp_path, layer="second", save_maps=True)
    net(batch, name="scan")
    (expected,) = values(net).values()
    for b in (0, 1):
        image = nibabel.load(tmp_path / "second" / f"scan_{b}.nii.gz")
        numpy.testing.assert_array_equal(image.affine, both[b].astype("f4"))
        numpy.testing.assert_allclose(image.get_fdata(), expected[b, 0], atol=1e-6)


def test_one_map_is_written_by_hand_and_the_layers_are_listed(tmp_path):
    net, x = made(3)
    inject(net, tmp_path / "made", layer="second")
    assert net.test_run(x) == (tmp_path / "made" / "registered_layers.txt").read_text().split()
    net(x)
    attention = net.get_attention_map()
    (file,) = net.save_attention_map(attention)
    numpy.testing.assert_array_equal(read(file), attention[0, 0])
    (again,) = net.save_attention_map(attention[0, 0])
    assert again == file
    net.eject()
    inject(net, layer="second")
    with pytest.raises(InputError, match="output_dir"):
        net.save_attention_map(attention)
