"""The scripts of `examples/python`, each as a process of its own, and the files that they write."""

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed here")
numpy = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed here")

EXAMPLES = Path(__file__).parents[3] / "examples" / "python"
RUN = {
    "torchvision_classifier": ["layer4/picture.npy", "layer4/picture.png", "layer4/picture_overlay.png"],
    "monai_segmentation": ["model.1.submodule.1/case.nii.gz"],
    "nnunet_network": [f"encoder.stages.2/patch_class{k}.nii.gz" for k in (1, 2)],
    "from_m3dcam": [
        f"attention_maps/layer4/00000{k}.{end}" for k in (0, 1) for end in ("npy", "png")
    ],
    "export_to_file": ["unet.pt", "unet.toml"],
}
PACKAGES = {
    "torchvision_classifier": "torchvision",
    "monai_segmentation": "monai",
    "nnunet_network": "dynamic_network_architectures",
    "from_m3dcam": "torchvision",
    "export_to_file": "monai",
}
SHAPES = {"torchvision_classifier": (96, 128), "from_m3dcam": (64, 64)}
VOLUMES = {
    "monai_segmentation": (
        (32, 24, 16),
        [[-2, 0, 0, 30], [0, 2, 0, -40], [0, 0, 3, 12], [0, 0, 0, 1]],
    ),
    "nnunet_network": ((16, 32, 32), numpy.diag([1, 1, 2.5, 1])),
}


def run(name, folder):
    script = [sys.executable, str(EXAMPLES / f"{name}.py"), str(folder)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_every_example_is_tested():
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(RUN)


@pytest.mark.parametrize("name", sorted(RUN))
def test_example(name, tmp_path):
    package = PACKAGES[name]
    pytest.importorskip(package, reason=f"{package} is not installed here")
    said = run(name, tmp_path)
    assert written(tmp_path) == sorted(RUN[name])
    for file in RUN[name]:
        assert f"wrote {file}" in said or f"wrote {tmp_path / file}" in said
        path = tmp_path / file
        if path.suffix == ".npy":
            in_range(numpy.load(path), SHAPES[name])
        elif path.suffix == ".png":
            wide = Image.open(path).size[::-1]
            overlay = path.stem.endswith("_overlay")
            assert wide[0] >= SHAPES[name][0] if overlay else wide == SHAPES[name]
        elif path.suffix == ".gz":
            shape, affine = VOLUMES[name]
            volume = nibabel.load(path)
            in_range(volume.get_fdata(), shape)
            numpy.testing.assert_allclose(volume.affine, affine)
            assert int(volume.header["sform_code"]) > 0
        elif path.suffix == ".pt":
            model = torch.jit.load(str(path))
            assert model(torch.rand(2, 1, 16, 16, 16)).shape == (2, 2, 16, 16, 16)
        else:
            assert 'orientation = "RAS"' in path.read_text()


def in_range(values, shape):
    assert values.shape == shape
    assert values.min() >= 0 and values.max() == 1 and len(numpy.unique(values)) > 10


def test_without_the_package_the_nnunet_example_says_why_it_skips(tmp_path):
    try:
        import dynamic_network_architectures  # noqa: F401
    except ImportError:
        assert "dynamic-network-architectures is not installed" in run("nnunet_network", tmp_path)
        assert written(tmp_path) == []
    else:
        pytest.skip("dynamic-network-architectures is installed here")
