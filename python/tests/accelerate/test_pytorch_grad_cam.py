"""pytorch-grad-cam with and without the patches."""

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

pytestmark = needed("pytorch_grad_cam")
dimensions = pytest.mark.parametrize("dimensions", (2, 3))
FUSED = ("GradCAM", "HiResCAM", "LayerCAM", "GradCAMPlusPlus")
OTHERS = ("GradCAMElementWise", "XGradCAM", "EigenCAM", "EigenGradCAM", "RandomCAM")


def explained(model, x, method="GradCAM", layers=("late_relu",), category=1, **named):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    np.random.seed(3)
    with getattr(pytorch_grad_cam, method)(model, [getattr(model, name) for name in layers]) as cam:
        targets = None if category is None else [ClassifierOutputTarget(category)] * len(x)
        return cam(x.clone(), targets, **named)


def compare(calls, kernels, make, *arguments, flags=None, **named):
    run = lambda: explained(make(), *arguments, **named)  # noqa: E731
    plain, ours = both("pytorch_grad_cam", run, **(flags or {}))
    same(plain, ours)
    varies(ours)
    assert all(calls[kernel] for kernel in kernels)
    return ours


@dimensions
@pytest.mark.parametrize("method", FUSED)
@pytest.mark.parametrize("batch", (1, 3))
def test_each_fused_method(dimensions, method, batch, calls):
    kernels = ["cam", "normalize"]
    kernels += ["resample"] if dimensions == 2 else []
    make = lambda: classifier(dimensions)  # noqa: E731
    x = image(dimensions, batch)
    compare(calls, kernels, make, x, method)
    compare(calls, kernels, make, x, method, ("relu", "late_relu"))
    compare(calls, kernels, make, x, method, ("late",), category=None)
    # SciPy's zoom stays in 3D.
    assert bool(calls["resample"]) == (dimensions == 2)


@dimensions
@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_are_scaled_by_the_kernels(dimensions, method, calls):
    make = lambda: classifier(dimensions)  # noqa: E731
    compare(calls, ["normalize"], make, image(dimensions, 2), method)
    assert not calls["cam"]
    assert bool(calls["project"]) == (method in ("XGradCAM", "RandomCAM"))


@pytest.mark.parametrize("method", ("ScoreCAM", "AblationCAM", "FullGrad"))
def test_methods_in_2d_alone(method, calls):
    compare(calls, ["normalize"], lambda: classifier(2), image(2), method)
    assert bool(calls["project"]) == (method != "FullGrad")


@dimensions
def test_shapley_cam_keeps_its_graph(dimensions, calls):
    compare(calls, ["normalize"], lambda: classifier(dimensions), image(dimensions), "ShapleyCAM")


@pytest.mark.parametrize("method", FUSED)
def test_smoothing(method, calls):
    make = lambda: classifier(2)  # noqa: E731
    compare(calls, ["normalize"], make, image(2), method, aug_smooth=True)
    fused = calls["cam"] + calls["project"]
    assert fused
    compare(calls, [], make, image(2), method, eigen_smooth=True)
    assert calls["cam"] + calls["project"] == fused


@dimensions
def test_segmentation(dimensions, calls):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget

    x = image(dimensions, 2)
    mask = np.float32(np.random.default_rng(0).random(x.shape[2:]) > 0.5)

    def run():
        model = segmenter(dimensions)
        with GradCAM(model, [model.hidden_relu]) as cam:
            return cam(x, [SemanticSegmentationTarget(1, mask)] * 2)

    plain, ours = both("pytorch_grad_cam", run)
    same(plain, ours)
    varies(ours)
    assert calls["cam"]


@pytest.mark.parametrize("method", FUSED)
def test_linear_interpolation_in_3d(method, calls):
    x = image(3, 2)
    with medcam_rs.accelerate("pytorch_grad_cam", interpolation="linear"):
        ours = explained(classifier(3), x, method)
    assert calls["resample"]
    # The library's own map on the layer's grid, resized by torch.
    import pytorch_grad_cam

    with getattr(pytorch_grad_cam, method)(*_model_and_layer()) as cam:
        cam(x, _targets(2))
        recorded = cam.activations_and_grads
        pair = [recorded.activations[0].numpy(), recorded.gradients[0].numpy()]
        heat = cam.get_cam_image(x, cam.target_layers[0], _targets(2), *pair, False)
    heat = torch.from_numpy(np.maximum(heat, 0))[:, None]
    heat = torch.nn.functional.interpolate(heat, x.shape[2:], mode="trilinear").flatten(1)
    low, high = heat.amin(1, keepdim=True), heat.amax(1, keepdim=True)
    expected = ((heat - low) / (high - low)).view(len(x), *x.shape[2:])
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def _model_and_layer():
    model = classifier(3)
    return model, [model.late_relu]


def _targets(count):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    return [ClassifierOutputTarget(1)] * count


@dimensions
def test_the_epsilon_of_grad_cam_plus_plus(dimensions, calls):
    def scaled(factor):
        model = classifier(dimensions)
        with torch.no_grad():
            model.head.weight.mul_(factor)
        return model

    arguments = (image(dimensions), "GradCAMPlusPlus")
    compare(calls, ["cam"], lambda: scaled(1e-3), *arguments)
    with medcam_rs.accelerate("pytorch_grad_cam", fix=("gradcampp_epsilon",)):
        fixed = explained(scaled(1e-3), *arguments)
    assert calls["cam"]
    assert np.abs(fixed - explained(scaled(1e-3), *arguments)).max() > 1e-3


@dimensions
def test_the_epsilons_show_in_tiny_maps(dimensions, calls):
    """Maps whose range is far below 1e-7 fade with pytorch-grad-cam."""

    def faint(factor):
        model = classifier(dimensions)
        with torch.no_grad():
            model.head.weight.mul_(factor)
        return model

    for factor in (1e-6, 1e-12):
        compare(calls, ["cam"], lambda f=factor: faint(f), image(dimensions, 2))
    ours = compare(calls, ["cam"], lambda: faint(1e-12), image(dimensions, 2), "HiResCAM")
    assert ours.max() < 0.99


@dimensions
def test_a_map_of_zeros_stays_zero(dimensions, calls):
    def zero():
        model = classifier(dimensions)
        torch.nn.init.constant_(model.late.bias, -1e3)
        return model

    plain, ours = both("pytorch_grad_cam", lambda: explained(zero(), image(dimensions)))
    same(plain, ours, 0.0)
    assert (ours == 0).all() and calls["cam"]


def test_finer_cam_and_refine_cam(calls):
    import pytorch_grad_cam

    def run(method, layers):
        model = classifier(2)
        return getattr(pytorch_grad_cam, method)(model, [getattr(model, name) for name in layers])(
            image(2), None if method == "FinerCAM" else _targets(1)
        )

    for method, layers in (("FinerCAM", ["late_relu"]), ("RefineCAM", ["relu", "late_relu"])):
        plain, ours = both("pytorch_grad_cam", lambda m=method, n=layers: run(m, n))
        same(plain, ours)
    assert calls["cam"]


def test_a_reshape_transform(calls):
    """A layer whose channels are last, as those of transformers are."""

    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm = torch.nn.Conv2d(1, 8, 4, 4), torch.nn.LayerNorm(8)
            self.head = torch.nn.Linear(8 * 35, 3)

        def forward(self, x):
            tokens = self.norm(self.conv(x).flatten(2).transpose(1, 2))
            return self.head(tokens.flatten(1))

    from pytorch_grad_cam import GradCAM

    def reshape(tokens):
        return tokens.reshape(len(tokens), 5, 7, 8).permute(0, 3, 1, 2)

    def run():
        model = Tokens()
        with GradCAM(model, [model.norm], reshape_transform=reshape) as cam:
            return cam(image(2, 2), _targets(2))

    plain, ours = both("pytorch_grad_cam", run)
    same(plain, ours)
    varies(ours)
    assert calls["cam"]


def test_methods_of_a_subclass_and_of_an_object_are_kept(calls):
    from pytorch_grad_cam import GradCAM, HiResCAM

    class Greatest(GradCAM):
        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            return grads.max(axis=(2, 3))

    class Squared(HiResCAM):
        def get_cam_image(self, *arguments):
            return super().get_cam_image(*arguments) ** 2

    def run(kind, own=None):
        model = classifier(2)
        with kind(model, [model.late_relu]) as cam:
            if own is not None:
                cam.get_cam_weights = own
            return cam(image(2), _targets(1))

    ones = lambda *arguments: np.ones((1, 8), np.float32)  # noqa: E731
    for kind, own in ((Greatest, None), (Squared, None), (GradCAM, ones)):
        plain, ours = both("pytorch_grad_cam", lambda k=kind, o=own: run(k, o))
        same(plain, ours)
    assert not calls["cam"]


@pytest.mark.parametrize("method", FUSED)
def test_float64_is_the_librarys(method, calls):
    x = image(2).double()
    plain, ours = both("pytorch_grad_cam", lambda: explained(classifier(2).double(), x, method))
    same(plain, ours)
    assert not calls["cam"] and not calls["project"]


def test_half_precision(calls):
    expected = explained(classifier(2), image(2))
    for dtype, tolerance in ((torch.float16, 5e-3), (torch.bfloat16, 5e-2)):
        with medcam_rs.accelerate("pytorch_grad_cam"):
            ours = explained(classifier(2).to(dtype), image(2).to(dtype))
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, expected, atol=tolerance)
    with pytest.raises(TypeError):
        explained(classifier(2).bfloat16(), image(2).bfloat16())
    assert calls["cam"] == 2


def test_guided_backpropagation(calls):
    from pytorch_grad_cam import GuidedBackpropReLUModel

    plain, ours = both(
        "pytorch_grad_cam",
        lambda: GuidedBackpropReLUModel(classifier(2), "cpu")(image(2), 1),
    )
    same(plain, ours, 1e-6)
    assert (ours != 0).any() and calls["guided_activation"] == 2


@dimensions
def test_scale_cam_image_as_a_function(dimensions, calls):
    from pytorch_grad_cam.utils import image as functions

    size = (9, 7, 11)[:dimensions]
    maps = np.random.default_rng(1).random((3, *(4, 5, 6)[:dimensions]), np.float32)
    maps[1] = 0.5
    for target in (None, size):
        plain, ours = both("pytorch_grad_cam", lambda t=target: functions.scale_cam_image(maps, t))
        same(plain, ours)
    assert calls["normalize"] == 2
    for other in (list(maps), maps.astype(np.float64), np.where(maps > 0.9, np.nan, maps)):
        plain, ours = both("pytorch_grad_cam", lambda o=other: functions.scale_cam_image(o))
        np.testing.assert_array_equal(plain, ours)
