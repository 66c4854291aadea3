"""M3d-CAM with and without the patches."""

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

pytestmark = needed("m3dcam")
dimensions = pytest.mark.parametrize("dimensions", (2, 3))


def explained(model, x, backend, layer, label=1, runs=1):
    """The attention map on the input's grid as a tensor, and on the layer's as an array."""
    from medcam import medcam

    injected = medcam.inject(
        model, backend=backend, layer=layer, label=label, return_attention=True
    )
    for _ in range(runs):
        _, attention = injected(x.clone())
    return attention, injected.get_attention_map()


def compare(calls, kernels, make, *arguments, tolerance=1e-5, flags=None, **named):
    plain, ours = both("m3dcam", lambda: explained(make(), *arguments, **named), **(flags or {}))
    same(plain[0], ours[0], tolerance)
    same(plain[1], ours[1], tolerance)
    varies(ours[0])
    assert all(calls[kernel] for kernel in kernels)


@dimensions
@pytest.mark.parametrize("batch", (1, 3))
def test_grad_cam(dimensions, batch, calls):
    x = image(dimensions, batch)
    compare(calls, ["cam", "resample"], lambda: classifier(dimensions), x, "gcam", "late_relu")
    compare(calls, ["cam"], lambda: segmenter(dimensions), x, "gcam", "hidden_relu")
    compare(calls, ["cam"], lambda: segmenter(dimensions), x, "gcam", "auto")


@dimensions
@pytest.mark.parametrize("label", (0, "best", None))
def test_labels(dimensions, label, calls):
    x = image(dimensions)
    compare(calls, ["cam"], lambda: classifier(dimensions), x, "gcam", "late_relu", label=label)


@dimensions
@pytest.mark.parametrize("layer", ("late_relu", "late"))
def test_grad_cam_plus_plus_of_one_sample(dimensions, layer, calls):
    # The convolution's own output has negative values, with which the denominator passes through 0.
    x = image(dimensions)
    compare(calls, ["cam"], lambda: classifier(dimensions), x, "gcampp", layer)


def test_grad_cam_plus_plus_of_a_2d_batch_is_the_librarys_until_fixed(calls):
    x = image(2, 2)
    plain, ours = both("m3dcam", lambda: explained(classifier(2), x, "gcampp", "late_relu"))
    same(plain[0], ours[0])
    with medcam_rs.accelerate("m3dcam", fix="gradcampp_score"):
        fixed, _ = explained(classifier(2), x, "gcampp", "late_relu")
        singles = [explained(classifier(2), one[None], "gcampp", "late_relu")[0] for one in x]
    np.testing.assert_allclose(fixed, torch.cat(singles), atol=1e-5)
    assert calls["cam"]


def test_grad_cam_plus_plus_of_a_3d_batch_runs(calls):
    x = image(3, 2)
    with pytest.raises(ValueError):
        explained(classifier(3), x, "gcampp", "late_relu")
    with medcam_rs.accelerate("m3dcam"):
        batch, _ = explained(classifier(3), x, "gcampp", "late_relu")
        singles = [explained(classifier(3), one[None], "gcampp", "late_relu")[0] for one in x]
    np.testing.assert_allclose(batch, torch.cat(singles), atol=1e-5)
    assert calls["cam"]


@dimensions
def test_grad_cam_plus_plus_in_segmentation(dimensions, calls):
    x = image(dimensions)
    # One class: M3d-CAM's exp(score), another one in each voxel.
    arguments = (x, "gcampp", "hidden_relu", 0)
    plain, ours = both("m3dcam", lambda: explained(segmenter(dimensions, 1), *arguments))
    same(plain[0], ours[0])
    with medcam_rs.accelerate("m3dcam", fix="gradcampp_score"):
        fixed, _ = explained(segmenter(dimensions, 1), *arguments)
    varies(fixed)
    assert np.abs(fixed - plain[0]).max() > 1e-4
    # Two classes and eight channels: M3d-CAM fails.
    with pytest.raises(RuntimeError):
        explained(segmenter(dimensions, 2), *arguments)
    with medcam_rs.accelerate("m3dcam"):
        varies(explained(segmenter(dimensions, 2), *arguments)[0])
    assert calls["cam"]


@dimensions
def test_great_scores_do_not_make_grad_cam_plus_plus_nan(dimensions, calls):
    def confident():
        model = classifier(dimensions)
        torch.nn.init.constant_(model.head.bias, 200.0)
        return model

    arguments = (image(dimensions), "gcampp", "late_relu")
    plain, ours = both("m3dcam", lambda: explained(confident(), *arguments))
    assert plain[0].isnan().any()
    expected, _ = explained(classifier(dimensions), *arguments)
    same(expected, ours[0])


@dimensions
def test_the_epsilon_of_grad_cam_plus_plus(dimensions, calls):
    """Without it, a score of which a millionth is taken has the same map."""

    def scaled(factor):
        model = classifier(dimensions)
        with torch.no_grad():
            model.head.weight.mul_(factor)
        return model

    arguments = (image(dimensions), "gcampp", "late_relu")
    with medcam_rs.accelerate("m3dcam", fix=("gradcampp_epsilon",)):
        reference, _ = explained(scaled(1.0), *arguments)
        small, _ = explained(scaled(1e-3), *arguments)
    assert calls["cam"]
    theirs, _ = explained(scaled(1e-3), *arguments)
    assert np.abs(theirs - small).max() > 1e-3
    varies(reference)


@dimensions
@pytest.mark.parametrize("batch", (1, 2))
def test_guided_backpropagation(dimensions, batch, calls):
    x = image(dimensions, batch)
    kernels = ["channel_mean", "normalize"]
    compare(calls, kernels, lambda: classifier(dimensions), x, "gbp", "auto", runs=2)


@dimensions
@pytest.mark.parametrize("batch", (1, 2))
def test_guided_grad_cam(dimensions, batch, calls):
    x = image(dimensions, batch)
    kernels = ["cam", "channel_mean", "guided_product"]
    make = lambda: classifier(dimensions)  # noqa: E731
    compare(calls, kernels, make, x, "ggcam", "late_relu", runs=2)


@dimensions
def test_guided_grad_cam_of_a_batch_has_the_first_samples_range_until_fixed(dimensions, calls):
    x = image(dimensions, 2)
    arguments = ("ggcam", "late_relu", 1, 2)
    plain, _ = explained(classifier(dimensions), x, *arguments)
    assert plain[1].min() != 0 or plain[1].max() != 1
    with medcam_rs.accelerate("m3dcam", fix=("guided_gradcam_batch",)):
        fixed, _ = explained(classifier(dimensions), x, *arguments)
        singles = [explained(classifier(dimensions), one[None], *arguments)[0] for one in x]
    np.testing.assert_allclose(fixed, torch.cat(singles), atol=1e-5)
    assert calls["guided_product"]


class Pooled(torch.nn.Module):
    """A convolution and global average pooling, whose gradient is one value with stride 0."""

    def __init__(self, dimensions):
        super().__init__()
        torch.manual_seed(0)
        conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dimensions]
        self.conv, self.head = conv(1, 8, 3, bias=False), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.conv(x).relu().flatten(2).mean(2))


@dimensions
def test_an_expanded_gradient(dimensions, calls):
    make = lambda: Pooled(dimensions)  # noqa: E731
    compare(calls, ["cam"], make, image(dimensions), "gcam", "conv")


@dimensions
def test_an_all_zero_map_beside_another_is_zero(dimensions, calls):
    x = image(dimensions, 2)
    x[1] = 0
    plain, ours = both("m3dcam", lambda: explained(Pooled(dimensions), x, "gcam", "conv"))
    assert np.isnan(plain[1][1]).all() and np.isfinite(plain[1][0]).all()
    assert (ours[1][1] == 0).all()
    same(plain[1][:1], ours[1][:1])
    assert calls["cam"]


def test_float64_and_layers_that_are_no_images_are_the_librarys(calls):
    x = image(2).double()
    plain, ours = both("m3dcam", lambda: explained(classifier(2).double(), x, "gcam", "late_relu"))
    same(plain[1], ours[1], 0.0)
    assert not calls["cam"]


def test_half_precision(calls):
    x = image(2)
    expected, _ = explained(classifier(2), x, "gcam", "late_relu")
    plain, ours = both(
        "m3dcam", lambda: explained(classifier(2).half(), x.half(), "gcam", "late_relu")
    )
    assert plain[1].dtype == ours[1].dtype == np.float16
    np.testing.assert_allclose(ours[0], expected, atol=5e-3)
    with pytest.raises(TypeError):
        explained(classifier(2).bfloat16(), x.bfloat16(), "gcam", "late_relu")
    with medcam_rs.accelerate("m3dcam"):
        map_of_bf16, _ = explained(classifier(2).bfloat16(), x.bfloat16(), "gcam", "late_relu")
    np.testing.assert_allclose(map_of_bf16, expected, atol=5e-2)
    assert calls["cam"]


def test_a_subclass_with_weights_of_its_own_keeps_them(calls):
    from medcam import medcam_inject
    from medcam.backends.grad_cam import GradCAM

    class Greatest(GradCAM):
        def _compute_grad_weights(self, grads):
            return grads.amax((2, 3), keepdim=True)

    def run():
        model = medcam_inject.inject(classifier(2), layer="late_relu", label=1)
        backend = Greatest(model, target_layers="late_relu")
        return backend.generate_attention_map(image(2), 1)[1]["late_relu"]

    plain, ours = both("m3dcam", run)
    same(plain, ours)
    assert not calls["cam"] and calls["normalize"]


@dimensions
def test_interpolate_as_a_function(dimensions, calls):
    from medcam import medcam_utils

    torch.manual_seed(3)
    small = torch.rand(2, 3, *(4, 5, 6)[:dimensions])
    size = (7, 11, 9)[:dimensions]
    for data in (small, small.numpy(), small.half().numpy(), small.numpy().swapaxes(2, 3)):
        plain, ours = both("m3dcam", lambda data=data: medcam_utils.interpolate(data, size))
        same(plain, ours, 1e-3 if data.dtype == np.float16 else 1e-6)
    assert calls["resample"] == 4
    # What the kernel does not take, or would cut from its graph.
    for data in (small.double(), small[0, 0], small.requires_grad_()):
        plain, ours = both("m3dcam", lambda data=data: medcam_utils.interpolate(data, size))
        same(plain, ours, 0.0)
        assert ours.requires_grad == plain.requires_grad
    assert calls["resample"] == 4
