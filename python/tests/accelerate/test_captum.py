"""Captum with and without the patches."""

import numpy as np
import pytest

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

pytestmark = needed("captum")
dimensions = pytest.mark.parametrize("dimensions", (2, 3))


def explained(model, x, layer="late_relu", target=1, **named):
    from captum.attr import LayerGradCam

    return LayerGradCam(model, getattr(model, layer)).attribute(x.clone(), target, **named)


def compare(calls, make, *arguments, **named):
    plain, ours = both("captum", lambda: explained(make(), *arguments, **named))
    same(plain, ours)
    varies(ours)
    assert calls["cam"] if named.get("relu_attributions") else calls["project"]
    return ours


@dimensions
@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("relu", (False, True))
def test_grad_cam(dimensions, batch, relu, calls):
    make = lambda: classifier(dimensions)  # noqa: E731
    x = image(dimensions, batch)
    ours = compare(calls, make, x, relu_attributions=relu)
    assert relu == bool((ours >= 0).all())
    compare(calls, make, x, target=[2, 0, 1][:batch])
    compare(calls, make, x, layer="late", attribute_to_layer_input=True)


@dimensions
def test_in_place_relu(dimensions, calls):
    inplace = lambda: classifier(dimensions, inplace=True)  # noqa: E731
    ours = compare(calls, inplace, image(dimensions), "late")
    same(explained(classifier(dimensions), image(dimensions), "late"), ours)


@dimensions
def test_a_voxel_of_a_segmentation(dimensions, calls):
    make = lambda: segmenter(dimensions)  # noqa: E731
    compare(calls, make, image(dimensions), "hidden_relu", (1, *(8, 8, 8)[:dimensions]))


@dimensions
@pytest.mark.parametrize("mode", ("nearest", "linear"))
def test_guided_grad_cam(dimensions, mode, calls):
    from captum.attr import GuidedGradCam

    mode = {2: "bilinear", 3: "trilinear"}[dimensions] if mode == "linear" else mode

    def run():
        model = classifier(dimensions)
        method = GuidedGradCam(model, model.late_relu)
        return method.attribute(image(dimensions, 2), 1, interpolate_mode=mode)

    plain, ours = both("captum", run)
    same(plain, ours)
    assert (ours != 0).any() and calls["cam"]
    # Nearest stays torch's.
    assert bool(calls["resample"]) == (mode != "nearest")


@dimensions
def test_interpolate(dimensions, calls):
    from captum.attr import LayerAttribution, LayerGradCam

    linear = {2: "bilinear", 3: "trilinear"}[dimensions]
    torch.manual_seed(2)
    # Within [0, 1], so that a tolerance is one of the range.
    attribution = torch.rand(2, 3, *(4, 5, 6)[:dimensions])
    size = (7, 11, 9)[:dimensions]
    run = LayerAttribution.interpolate
    for given in (size, 9, torch.Size(size)):
        plain, ours = both(
            "captum", lambda g=given: LayerAttribution.interpolate(attribution, g, linear)
        )
        same(plain, ours, 1e-6)
    assert calls["resample"] == 3
    # Through a subclass, and as a static method, as before.
    _, ours = both("captum", lambda: LayerGradCam.interpolate(attribution, size, linear))
    same(run(attribution, size, linear), ours, 1e-6)
    assert calls["resample"] == 4
    for given in ("nearest", "area"):
        plain, ours = both(
            "captum", lambda g=given: LayerAttribution.interpolate(attribution, size, g)
        )
        same(plain, ours, 0.0)
    graph = attribution.clone().requires_grad_()
    plain, ours = both("captum", lambda: LayerAttribution.interpolate(graph, size, linear))
    assert ours.requires_grad
    same(plain, ours, 0.0)
    flat = torch.randn(2, 1, 5)
    plain, ours = both("captum", lambda: LayerAttribution.interpolate(flat, 9, "linear"))
    same(plain, ours, 0.0)
    assert calls["resample"] == 4


def test_several_inputs_and_arguments(calls):
    from captum.attr import LayerGradCam

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = classifier(2)

        def forward(self, x, y, factor):
            return self.net(x + factor * y)

    def run():
        model = Two()
        return LayerGradCam(model, model.net.late_relu).attribute(
            (image(2), image(2, seed=2)), 1, additional_forward_args=(0.5,)
        )

    plain, ours = both("captum", run)
    same(plain, ours)
    assert calls["project"]


def test_what_the_kernels_do_not_take_is_the_librarys(calls):
    x = image(2)
    for model, given, layer, named in (
        (classifier(2).double(), x.double(), "late_relu", {}),
        (classifier(2), x, "head", {}),
        (classifier(2), x, "late_relu", {"attr_dim_summation": False}),
        (classifier(2), x, "late_relu", {"grad_kwargs": {"create_graph": True}}),
    ):
        run = lambda m=model, g=given, n=named, l=layer: explained(m, g, l, **n)  # noqa: E731, E741
        plain, ours = both("captum", run)
        same(plain, ours, 0.0)
        assert ours.requires_grad == plain.requires_grad
    assert not any(calls.values())


@pytest.mark.parametrize("dtype, tolerance", ((torch.float16, 5e-3), (torch.bfloat16, 3e-2)))
def test_half_precision(dtype, tolerance, calls):
    expected = explained(classifier(2), image(2)).detach()
    plain, ours = both("captum", lambda: explained(classifier(2).to(dtype), image(2).to(dtype)))
    assert plain.dtype == ours.dtype == dtype
    scale = float(expected.abs().max())
    np.testing.assert_allclose(ours.float() / scale, expected / scale, atol=tolerance)
    assert calls["project"]
