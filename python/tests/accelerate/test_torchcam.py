"""TorchCAM with and without the patches."""

import numpy as np
import pytest

import medcam_rs

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
from comparisons import (  # noqa: E402
    both,
    calls,  # noqa: F401
    classifier,
    image,
    needed,
    quiet,  # noqa: F401
    same,
    segmenter,
    varies,
)

pytestmark = needed("torchcam")
dimensions = pytest.mark.parametrize("dimensions", (2, 3))
ONE_CALL = ("GradCAM", "LayerCAM")
OF_WEIGHTS = ("GradCAMpp", "XGradCAM", "SmoothGradCAMpp")


def explained(model, x, method="GradCAM", layer="late_relu", class_idx=1, settings=None, **named):
    from torchcam import methods

    torch.manual_seed(7)
    settings = {"input_shape": tuple(x.shape[1:]), **(settings or {})}
    with getattr(methods, method)(model, layer, **settings) as extractor:
        scores = model(x.clone().requires_grad_())
        return extractor(class_idx, scores, **named)


def compare(calls, kernels, make, *arguments, flags=None, **named):
    run = lambda: explained(make(), *arguments, **named)  # noqa: E731
    plain, ours = both("torchcam", run, **(flags or {}))
    assert len(plain) == len(ours)
    for one, other in zip(plain, ours):
        same(one, other)
        varies(other)
    assert all(calls[kernel] for kernel in kernels)
    return ours


@dimensions
@pytest.mark.parametrize("method", ONE_CALL + OF_WEIGHTS)
@pytest.mark.parametrize("batch", (1, 3))
def test_each_method(dimensions, method, batch, calls):
    kernels = ["cam"] if method in ONE_CALL else ["project", "normalize"]
    make = lambda: classifier(dimensions)  # noqa: E731
    compare(calls, kernels, make, image(dimensions, batch), method)
    compare(calls, kernels, make, image(dimensions, batch), method, class_idx=[2, 0, 1][:batch])


@dimensions
@pytest.mark.parametrize("method", ("ScoreCAM",))
def test_methods_without_a_gradient(dimensions, method, calls):
    make = lambda: classifier(dimensions)  # noqa: E731
    compare(calls, ["project", "normalize"], make, image(dimensions), method)


@dimensions
def test_signed_maps_of_cam(dimensions, calls):
    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dimensions]
            self.conv, self.fc = conv(1, 8, 3), torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(self.conv(x).relu().flatten(2).mean(2))

    settings = {"fc_layer": "fc"}
    ours = compare(
        calls,  # noqa: F401
        ["project"],
        Pooled,
        image(dimensions),
        "CAM",
        "conv",
        settings=settings,
        normalized=False,
    )
    assert ours[0].min() < 0
    compare(calls, ["normalize"], Pooled, image(dimensions), "CAM", "conv", settings=settings)


@dimensions
def test_not_normalised(dimensions, calls):
    make = lambda: classifier(dimensions)  # noqa: E731
    for method in ("GradCAM", "GradCAMpp"):
        compare(calls, [], make, image(dimensions, 2), method, normalized=False)
    assert calls["cam"] and calls["project"] and not calls["normalize"]


@dimensions
def test_several_layers_and_their_fusion(dimensions, calls):
    from torchcam.methods import GradCAM, LayerCAM

    layers = ["relu", "late_relu"]
    make = lambda: classifier(dimensions)  # noqa: E731
    compare(calls, ["cam"], make, image(dimensions, 2), "GradCAM", layers)
    cams = explained(make(), image(dimensions, 2), "GradCAM", layers)
    sizes = (None, (9, 11, 13)[:dimensions])
    for extractor in (GradCAM, LayerCAM):
        for size in sizes:
            plain, ours = both("torchcam", lambda e=extractor, s=size: e.fuse_cams(list(cams), s))
            same(plain, ours)
    assert calls["resample"] == 8
    graph = [cam.clone().requires_grad_() for cam in cams]
    plain, ours = both("torchcam", lambda: GradCAM.fuse_cams(graph))
    assert plain.requires_grad and ours.requires_grad


@dimensions
def test_refine_cam_and_finer_cam(dimensions, calls):
    make = lambda: classifier(dimensions)  # noqa: E731
    compare(calls, ["project"], make, image(dimensions), "RefineCAM", ["relu", "late_relu"])
    compare(calls, ["cam"], make, image(dimensions), "FinerCAM")


@dimensions
@pytest.mark.parametrize("method", ONE_CALL + ("GradCAMpp",))
def test_segmentation(dimensions, method, calls):
    make = lambda: segmenter(dimensions)  # noqa: E731
    compare(calls, [], make, image(dimensions, 2), method, "hidden_relu")
    target = lambda output: output[1].clamp(min=0).sum()  # noqa: E731
    arguments = {"class_idx": None, "targets": target}
    compare(calls, [], make, image(dimensions, 2), method, "hidden_relu", **arguments)
    assert calls["cam"] or calls["project"]


@dimensions
def test_the_epsilon_shows_in_tiny_maps(dimensions, calls):
    """Maps whose range is about 1e-8 reach half of 1 with TorchCAM."""

    def faint():
        model = classifier(dimensions)
        with torch.no_grad():
            model.head.weight.mul_(1e-6)
        return model

    for method in ("GradCAM", "LayerCAM", "XGradCAM"):
        ours = compare(calls, [], faint, image(dimensions, 2), method)
        assert 0.01 < ours[0].max() < 0.99
    assert calls["cam"] and calls["project"]


@dimensions
def test_the_denominator_of_grad_cam_plus_plus(dimensions, calls):
    from torchcam.methods import GradCAMpp

    x = image(dimensions, 2)
    theirs = explained(classifier(dimensions), x, "GradCAMpp")[0]
    with medcam_rs.accelerate("torchcam", fix=("gradcampp_denominator",)):
        fixed = explained(classifier(dimensions), x, "GradCAMpp")[0]
        explained(classifier(dimensions), x, "GradCAMpp", eps=1e-6)
    assert (fixed - theirs).abs().max() > 1e-2
    # The paper's equation 19 by hand, on what the extractor itself recorded.
    model = classifier(dimensions).double()
    with GradCAMpp(model, "late_relu", tuple(x.shape[1:])) as extractor:
        extractor(1, model(x.double().requires_grad_()))
        a, g = extractor.hook_a[0].flatten(2), extractor.hook_g[0].flatten(2)
        shape = extractor.hook_a[0].shape
    alpha = 1 / (2 + g * a.sum(2, keepdim=True)) * (g != 0)
    weights = (alpha * g.relu()).sum(2, keepdim=True)
    heat = (weights * a).sum(1).relu()
    heat = heat - heat.amin(1, keepdim=True)
    heat = heat / heat.amax(1, keepdim=True)
    np.testing.assert_allclose(fixed, heat.view(len(x), *shape[2:]), atol=1e-5)
    assert calls["cam"]


def test_nan_is_left_out_as_the_library_does(calls):
    def broken():
        model = classifier(2)
        with torch.no_grad():
            model.late.weight[3] = float("nan")
        return model

    # ReLU keeps NaN, so one channel of the activation is NaN everywhere, and its gradient is not.
    def run(method):
        from torchcam import methods

        with getattr(methods, method)(broken(), "late_relu", (1, 20, 28)) as extractor:
            model = extractor.model
            scores = model(image(2).requires_grad_())
            return extractor(1, torch.nan_to_num(scores), normalized=False)[0]

    for method in ("GradCAM", "GradCAMpp"):
        plain, ours = both("torchcam", lambda m=method: run(m))
        same(plain, ours, 0.0)
    assert calls["cam"]


def test_what_the_kernels_do_not_take_is_the_librarys(calls):
    from torchcam.methods import GradCAM

    x = image(2).double()
    for method in ONE_CALL + OF_WEIGHTS:
        run = lambda m=method: explained(classifier(2).double(), x, m)[0]  # noqa: E731
        plain, ours = both("torchcam", run)
        same(plain, ours, 0.0)
    assert not any(calls.values())
    with medcam_rs.accelerate("torchcam", fix="gradcampp_denominator"):
        assert explained(classifier(2).double(), x, "GradCAMpp")[0].dtype == torch.float64
    assert not any(calls.values())

    class Sharper(GradCAM):
        @staticmethod
        def _normalize(cams, spatial_dims=None, eps=1e-8):
            return GradCAM._normalize(cams, spatial_dims, eps) ** 2

    def run():
        model = classifier(2)
        with Sharper(model, "late_relu", (1, 20, 28)) as extractor:
            return extractor(1, model(image(2).requires_grad_()))[0]

    plain, ours = both("torchcam", run)
    same(plain, ours, 0.0)
    assert not any(calls.values())


@pytest.mark.parametrize("dtype, tolerance", ((torch.float16, 5e-3), (torch.bfloat16, 5e-2)))
def test_half_precision(dtype, tolerance, calls):
    expected = explained(classifier(2), image(2))[0]
    plain, ours = both(
        "torchcam", lambda: explained(classifier(2).to(dtype), image(2).to(dtype))[0]
    )
    assert plain.dtype == ours.dtype == dtype
    np.testing.assert_allclose(ours.float(), expected, atol=tolerance)
    assert calls["cam"]
