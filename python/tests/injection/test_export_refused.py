"""What `export` refuses, and that it leaves no file then."""

import errno
import os

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from export_files import IMAGE, build, drawn
from test_export import CARD, Base
from torch import nn

from medcam_rs._export import export
from medcam_rs.errors import DtypeError, FileError, InputError
from medcam_rs.injection import inject


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ((torch.zeros(IMAGE), torch.zeros(IMAGE)), "2 inputs, and the program gives one"),
        (torch.zeros(IMAGE, dtype=torch.int64), "floating-point"),
        (torch.zeros(1, 16, 16), r"expected \(B, C, H, W\)"),
        ("x.npy", "expected a tensor, got str"),
    ],
)
def test_refused_examples(tmp_path, example, said):
    with pytest.raises(InputError, match=said):
        export(build(Base), example, tmp_path / "m.pt")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("error", "path", "said"),
    [
        (FileError, ".", "no regular file"),
        (FileError, "pipe", "no regular file"),
        (FileError, "m" * 300, "File name too long"),
        (DtypeError, None, "path: None"),
        (InputError, "a\0b", "null character"),
    ],
)
def test_refused_paths(tmp_path, error, path, said):
    os.mkfifo(tmp_path / "pipe")
    path = path and tmp_path / path
    with pytest.raises(error, match=said):
        export(build(Base), drawn(*IMAGE), path)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "m.toml").mkdir()
    with pytest.raises(FileError, match="cannot write.*m.toml") as raised:
        export(build(Base), drawn(*IMAGE), tmp_path / "m.pt", card=CARD)
    assert raised.value.errno == errno.EISDIR


def test_modules_that_are_none_yet(tmp_path):
    injected = inject(build(Base), layer="conv")
    for error, module, said in (
        (InputError, injected, "it is injected"),
        (InputError, nn.Sequential(injected), "submodule '0' is injected"),
        (InputError, nn.Sequential(nn.LazyConv2d(3, 3)), "0.weight.*lazy"),
        (DtypeError, len, "torch.nn.Module"),
    ):
        with pytest.raises(error, match=said):
            export(module, drawn(*IMAGE), tmp_path / "m.pt")
    assert not os.listdir(tmp_path)
    compiled = build(Base)
    compiled.compile()
    for module in (compiled, torch.compile(build(Base))):
        assert export(module, drawn(*IMAGE), tmp_path / "m.pt").difference == 0


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"clases": []}, "unknown field `clases`, expected one of `name`"),
        ({"input": {"spacing": [1, 1]}}, "unknown field `spacing`"),
        ({"input": {"spacing_mm": [1, 1, 1]}}, "`spacing_mm` is for 3 spatial axes, the input has 2"),
        ({"input": {"spacing_mm": [1, 0]}}, "above 0"),
        ({"input": {"size": [16.5, 16]}}, "expected usize"),
        ({"input": {"size": [16, 16], "spacing_mm": [1, 1]}}, "exclude each other"),
        ({"input": {"orientation": "RAP"}}, "orientation"),
        ({"input": {"axes": "yxz"}}, "expected `xyz` or `zyx`"),
        ({"input": {"spatial_dims": 3}}, "`spatial_dims` is for 3 spatial axes"),
        ({"intensity": [{"zscore": "all"}]}, "unknown variant `zscore`"),
        ({"intensity": [{"scale": [1, 0]}]}, "low < high"),
        ({"intensity": [{"clip_percentiles": [0, 101]}]}, "within 0 and 100"),
        ({"intensity": [{"scale": [0, 1], "clip": [0, 1]}]}, "exactly 1 element"),
        ({"intensity": [{"affine": {"add": [1, 2]}}]}, "2 values, the input has 1 channels"),
        ({"intensity": [{"clip": [0, float("nan")]}]}, "Out of range"),
        ({"classes": "brain"}, "expected a sequence"),
        ({"name": None}, "null"),
        ({"intensity": [{"clip": b"01"}]}, "bytes has no place in a card"),
        ("none.toml", "cannot read"),
    ],
)
def test_refused_cards(tmp_path, card, said):
    with pytest.raises(InputError, match=said):
        export(build(Base), drawn(*IMAGE), tmp_path / "m.pt", card=card)
    assert not os.listdir(tmp_path)
