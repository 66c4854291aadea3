"""MONAI with and without the patches."""

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

pytestmark = needed("monai")
dimensions = pytest.mark.parametrize("dimensions", (2, 3))


def explained(model, x, method="GradCAM", layer="late_relu", class_idx=1, settings=None, **named):
    from monai import visualize

    cam = getattr(visualize, method)(nn_module=model, target_layers=layer, **(settings or {}))
    return cam(x=x.clone(), class_idx=class_idx, **named)


def compare(calls, kernels, make, *arguments, flags=None, **named):
    run = lambda: explained(make(), *arguments, **named)  # noqa: E731
    plain, ours = both("monai", run, **(flags or {}))
    same(plain, ours)
    varies(ours)
    assert all(calls[kernel] for kernel in kernels)
    return ours


@dimensions
@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("class_idx", (0, None))
def test_grad_cam(dimensions, batch, class_idx, calls):
    if class_idx is None and batch > 1:
        # MONAI takes the class of the last sample for none at all: a tensor of one index each.
        class_idx = 2
    x = image(dimensions, batch)
    ours = compare(
        calls, ["cam", "resample"], lambda: classifier(dimensions), x, class_idx=class_idx
    )
    flat = ours.flatten(1)
    assert (flat.amin(1) == 0).all() and (flat.amax(1) == 1).all()


@dimensions
def test_grad_cam_in_segmentation(dimensions, calls):
    make = lambda: segmenter(dimensions)  # noqa: E731
    compare(calls, ["cam"], make, image(dimensions, 2), layer="hidden_relu")


@dimensions
@pytest.mark.parametrize("layer", ("late_relu", "late"))
def test_grad_cam_plus_plus_of_one_sample(dimensions, layer, calls):
    make = lambda: classifier(dimensions)  # noqa: E731
    compare(calls, ["cam", "resample"], make, image(dimensions), "GradCAMpp", layer)


@dimensions
def test_grad_cam_plus_plus_of_a_batch_runs(dimensions, calls):
    x = image(dimensions, 3)
    with pytest.raises(RuntimeError):
        explained(classifier(dimensions), x, "GradCAMpp")
    with medcam_rs.accelerate("monai"):
        batch = explained(classifier(dimensions), x, "GradCAMpp")
        singles = [explained(classifier(dimensions), one[None], "GradCAMpp") for one in x]
    np.testing.assert_allclose(batch, torch.cat(singles), atol=1e-5)
    assert calls["cam"]


@dimensions
def test_as_many_samples_as_the_layer_is_wide(dimensions, calls):
    """MONAI broadcasts the scores over the columns, until fixed."""
    x = image(dimensions, 14 if dimensions == 2 else 10)
    plain, ours = both("monai", lambda: explained(classifier(dimensions), x, "GradCAMpp"))
    same(plain, ours)
    with medcam_rs.accelerate("monai", fix="gradcampp_score"):
        fixed = explained(classifier(dimensions), x, "GradCAMpp")
        single = explained(classifier(dimensions), x[:1], "GradCAMpp")
    np.testing.assert_allclose(fixed[:1], single, atol=1e-5)
    assert (fixed - ours).abs().max() > 1e-4
    assert calls["cam"]


@dimensions
def test_grad_cam_plus_plus_in_segmentation(dimensions, calls):
    x = image(dimensions)
    # At full resolution MONAI's exp(score) varies over the map.
    run = lambda: explained(segmenter(dimensions), x, "GradCAMpp", "relu")  # noqa: E731
    plain, ours = both("monai", run)
    same(plain, ours)
    with medcam_rs.accelerate("monai", fix="gradcampp_score"):
        assert (run() - plain).abs().max() > 1e-4
    with pytest.raises(RuntimeError):
        explained(segmenter(dimensions), x, "GradCAMpp", "hidden_relu")
    with medcam_rs.accelerate("monai"):
        varies(explained(segmenter(dimensions), x, "GradCAMpp", "hidden_relu"))
    assert calls["cam"]


@dimensions
def test_great_scores_do_not_make_grad_cam_plus_plus_nan(dimensions, calls):
    def confident():
        model = classifier(dimensions)
        torch.nn.init.constant_(model.head.bias, 200.0)
        return model

    run = lambda model: explained(model, image(dimensions), "GradCAMpp")  # noqa: E731
    plain, ours = both("monai", lambda: run(confident()))
    assert plain.isnan().any()
    same(run(classifier(dimensions)), ours)
    assert calls["cam"]


@dimensions
def test_the_epsilon_of_grad_cam_plus_plus(dimensions, calls):
    def scaled(factor):
        model = classifier(dimensions)
        with torch.no_grad():
            model.head.weight.mul_(factor)
        return model

    run = lambda: explained(scaled(1e-3), image(dimensions), "GradCAMpp")  # noqa: E731
    compare(calls, ["cam"], lambda: scaled(1e-3), image(dimensions), "GradCAMpp")
    with medcam_rs.accelerate("monai", fix=("gradcampp_epsilon",)):
        fixed = run()
    assert calls["cam"]
    assert (fixed - run()).abs().max() > 1e-3


@dimensions
@pytest.mark.parametrize("method", ("GradCAM", "GradCAMpp"))
def test_a_map_of_zeros_stays_zero(dimensions, method, calls):
    def zero():
        model = classifier(dimensions)
        torch.nn.init.constant_(model.late.bias, -1e3)
        return model

    plain, ours = both("monai", lambda: explained(zero(), image(dimensions), method))
    same(plain, ours, 0.0)
    assert (ours == 0).all() and calls["resample"]


@dimensions
def test_a_constant_map_keeps_its_value_beside_others(dimensions, calls):
    from monai.visualize.class_activation_maps import GradCAM

    maps = torch.rand(3, 1, *(4, 5, 6)[:dimensions])
    maps[1] = 0.25
    # At twice the size torch's weights are exact. At others, torch's rounding makes a constant map
    # vary, and MONAI stretches that noise to [0, 1]; ours stays constant at any size.
    x = torch.zeros(3, 1, *(8, 10, 12)[:dimensions])
    cam = GradCAM(classifier(dimensions), "late")
    plain, ours = both("monai", lambda: cam._upsample_and_post_process(maps, x))
    same(plain, ours)
    assert (ours[1] == 0.25).all() and calls["resample"]


@dimensions
def test_cam_is_resampled_and_normalised_by_the_kernels(dimensions, calls):
    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dimensions]
            self.conv, self.fc = conv(1, 8, 3), torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(self.conv(x).relu().flatten(2).mean(2))

    compare(calls, ["resample"], Pooled, image(dimensions), "CAM", "conv", None)


@dimensions
@pytest.mark.parametrize("method", ("GuidedBackpropGrad", "GuidedBackpropSmoothGrad"))
def test_guided_backpropagation(dimensions, method, calls):
    from monai import visualize

    def run():
        torch.manual_seed(5)
        settings = {"n_samples": 3, "verbose": False} if "Smooth" in method else {}
        return getattr(visualize, method)(classifier(dimensions), **settings)(image(dimensions), 1)

    plain, ours = both("monai", run)
    same(plain, ours, 1e-6)
    assert (plain != 0).any() and calls["guided_activation"]


def test_a_meta_tensor_gives_a_plain_tensor_and_its_map_is_one(calls):
    from monai.data import MetaTensor
    from monai.visualize import GradCAM

    x = MetaTensor(image(3), affine=2 * torch.eye(4))
    plain, ours = both("monai", lambda: explained(classifier(3), x))
    assert type(plain) is torch.Tensor
    same(plain, ours)
    plain, ours = both(
        "monai", lambda: GradCAM(classifier(3), "late_relu").compute_map(x, class_idx=1)
    )
    assert type(plain) is type(ours) is MetaTensor
    same(plain, ours)
    assert calls["cam"] == 2


def test_custom_upsamplers_and_postprocessings_are_called(calls):
    double = lambda size: lambda maps: maps + 1  # noqa: E731
    for settings in ({"upsampler": double}, {"postprocessing": lambda maps: maps * 2}):
        plain, ours = both(
            "monai", lambda s=settings: explained(classifier(2), image(2), settings=s)
        )
        same(plain, ours)
    assert calls["cam"] == 2 and not calls["resample"]


@pytest.mark.parametrize("method", ("GradCAM", "GradCAMpp"))
def test_what_the_kernels_do_not_take_is_the_librarys(method, calls):
    x = image(2).double()
    plain, ours = both("monai", lambda: explained(classifier(2).double(), x, method))
    same(plain, ours, 0.0)
    plain, ours = both(
        "monai", lambda: explained(classifier(2), image(2), method, retain_graph=True)
    )
    same(plain, ours)
    assert not calls["cam"] and not calls["project"]


def test_half_precision(calls):
    expected = explained(classifier(2), image(2))
    for dtype, tolerance in ((torch.float16, 5e-3), (torch.bfloat16, 5e-2)):
        with medcam_rs.accelerate("monai"):
            ours = explained(classifier(2).to(dtype), image(2).to(dtype))
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(ours, expected, atol=tolerance)
    with pytest.raises(TypeError):
        explained(classifier(2).bfloat16(), image(2).bfloat16())
    assert calls["cam"] == 2


@dimensions
def test_channels_last(dimensions, calls):
    last = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    make = lambda: classifier(dimensions).to(memory_format=last)  # noqa: E731
    x = image(dimensions).contiguous(memory_format=last)
    with medcam_rs.accelerate("monai"):
        ours = explained(make(), x)
    same(explained(classifier(dimensions), image(dimensions)), ours)
    assert calls["cam"]
