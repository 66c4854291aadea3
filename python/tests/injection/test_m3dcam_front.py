"""`inject` beside M3d-CAM's own, with the same arguments, in what should be the same.

The package's own tests can't be run: they call `inject` with each backend over a downloaded resnet152
and a trained U-Net, whose network, weights and images neither the wheel nor the sdist of 0.1.22 has.
Their calls are made here, of small networks with drawn weights; they check no values, this does.
"""

import warnings

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
theirs = pytest.importorskip("medcam.medcam", reason="M3d-CAM is not installed here")

from torch import nn  # noqa: E402

from medcam_rs.injection import inject  # noqa: E402

LAYER = "3"
SIZES = {2: (16, 12), 3: (8, 16, 12)}


def network(task, axes, seed=3):
    torch.manual_seed(seed)
    convolution, up, pool = {
        2: (nn.Conv2d, nn.ConvTranspose2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.ConvTranspose3d, nn.AdaptiveAvgPool3d),
    }[axes]
    head = (
        [pool(1), nn.Flatten(), nn.Linear(8, 3)]
        if task == "classification"
        else [up(8, 6, 2, 2), nn.ReLU(), convolution(6, 3, 1)]
    )
    body = [convolution(1, 6, 3, padding=1), nn.ReLU(), convolution(6, 8, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*body, *head).eval()


@pytest.fixture(params=[(t, a) for t in ("classification", "segmentation") for a in SIZES], ids=str)
def case(request):
    """A maker of networks, and a batch of one."""
    task, axes = request.param
    draw = torch.Generator().manual_seed(7)
    return lambda: network(task, axes), torch.rand(1, 1, *SIZES[axes], generator=draw)


def both(make, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return theirs.inject(make(), **options), inject(make(), **options)


def differing(left, right):
    assert left.max() - left.min() > 0.9, "a flat map shows nothing"
    return float((left - right).abs().max())


METHODS = (
    "get_layers", "get_attention_map", "save_attention_map", "replace_output", "dump", "forward",
    "enable_medcam", "disable_medcam", "test_run",
)  # fmt: skip


def test_methods_and_layers(case):
    make, x = case
    m3dcam, ours = both(make, layer=LAYER, label=1)
    m3dcam(x), ours(x)
    for name in METHODS:
        assert callable(getattr(m3dcam, name)) and callable(getattr(ours, name)), name
    assert set(m3dcam.get_layers()) == set(ours.get_layers())
    assert ours.get_layers(reverse=True) == ours.get_layers()[::-1]


@pytest.mark.parametrize("backend", ["gcam", "gcampp", "gbp", "ggcam"])
def test_output_and_size_of_maps(case, backend):
    make, x = case
    if backend == "gcampp" and make()(x).ndim > 2:
        pytest.skip("M3d-CAM's gcampp fails in segmentation for layers of several channels")
    plain = make()(x)
    m3dcam, ours = both(make, backend=backend, layer=LAYER, label=1, return_attention=True)
    output, attention = ours(x)
    package_output, package_attention = m3dcam(x)
    assert torch.equal(output, plain) and torch.equal(package_output, plain)
    assert attention.shape == package_attention.shape == (1, 1, *x.shape[2:])
    assert not output.requires_grad

    m3dcam, ours = both(make, backend=backend, layer=LAYER, label=1, replace=True)
    assert m3dcam(x).shape == ours(x).shape == attention.shape
    m3dcam.replace_output(False), ours.replace_output(False)
    assert torch.equal(m3dcam(x), plain) and torch.equal(ours(x), plain)


@pytest.mark.parametrize("axes", SIZES)
@pytest.mark.parametrize("backend", ["gcam", "gbp"])
@pytest.mark.parametrize("label", [0, 1, 2, "best"])
def test_maps_of_a_classifier_on_the_layers_grid(axes, backend, label):
    x = torch.rand(1, 1, *SIZES[axes], generator=torch.Generator().manual_seed(7))
    options = {"backend": backend, "layer": LAYER, "label": label}
    m3dcam = theirs.inject(network("classification", axes), **options)
    ours = inject(network("classification", axes), data_shape=None, **options)
    m3dcam(x), ours(x)
    package, here = m3dcam.get_attention_map(), ours.get_attention_map()
    assert package.shape == here.shape
    assert differing(torch.tensor(package), torch.tensor(here)) <= 1e-4


def test_switched_off_and_on(case):
    make, x = case
    for model in both(make, layer=LAYER, label=1, enabled=False, replace=True):
        plain = make()(x)
        assert torch.equal(model(x), plain)
        model.enable_medcam()
        assert model(x).shape == (1, 1, *x.shape[2:])
        model.disable_medcam()
        assert torch.equal(model(x), plain)


def test_two_maps_are_not_returned(case):
    """Of two layers by name: the package's `full` fails in 3D for networks that end in a Linear."""
    make, x = case
    for model in both(make, layer=["1", LAYER], label=1, replace=True):
        with pytest.raises(ValueError):
            model(x)


def test_folders_of_saved_maps(case, tmp_path):
    make, x = case
    options = {"layer": ["1", LAYER], "label": 1, "save_maps": True}
    for package, model in (
        (theirs.inject, "m3dcam"),
        (inject, "ours"),
    ):
        folder = tmp_path / model
        package(make(), output_dir=str(folder), **options)(x)
        assert sorted(path.name for path in folder.iterdir()) == ["1", LAYER]
        assert all(list(path.iterdir()) for path in folder.iterdir())


def test_evaluation_of_a_mask(tmp_path, monkeypatch):
    """Of one map. The package's evaluation fails with current NumPy, but for an alias that that dropped."""
    monkeypatch.setattr("numpy.float", float, raising=False)
    x = torch.rand(1, 1, *SIZES[2], generator=torch.Generator().manual_seed(7))
    mask = torch.zeros(1, 1, *SIZES[2])
    mask[..., 4:12, 3:9] = 1
    ours = inject(
        network("segmentation", 2), tmp_path, layer=LAYER, label=1, evaluate=True, metric="wioa",
        save_scores=True, return_score=True,
    )  # fmt: skip
    output, scores = ours(x, mask=mask)
    values = ours.get_attention_map()[0, 0]
    package = theirs.compute_score(values, mask[0, 0].numpy(), "wioa", "otsu")
    assert scores[0].score == pytest.approx(float(package), abs=1e-3)
    assert {"scores.xlsx", "scores.csv"} <= {path.rsplit("/", 1)[-1] for path in ours.dump()}
