"""The ops against the same formulas in float64."""

import numpy
import pytest
from conftest import drawn_layers, in_numpy

import medcam_rs

METHODS = ("gradcam", "gradcam++", "hirescam", "layercam")
EPSILONS = {"paper": 0, "paper+1e-6": 1e-6, "m3dcam": 0, "m3dcam+1e-7": 1e-7}


def over_voxels(values):
    return values.reshape(*values.shape[:2], -1)


def weights_of(a, g, method, denominator="paper"):
    """The `(B, C)` weights in float64, of activations that are not negative."""
    flat_a, flat_g = over_voxels(a), over_voxels(g)
    if method == "gradcam":
        return flat_g.mean(-1)
    if denominator.startswith("paper"):
        d = flat_a.sum(-1, keepdims=True) * flat_g**3
    else:
        d = (flat_a * flat_g**3).sum(-1, keepdims=True)
    below = 2 * flat_g**2 + d + EPSILONS[denominator]
    alpha = flat_g**2 / numpy.where(below == 0, 1, below)
    return (alpha * numpy.maximum(flat_g, 0)).sum(-1)


def layer_map(a, g, method):
    if method in ("hirescam", "layercam"):
        g = numpy.maximum(g, 0) if method == "layercam" else g
        return numpy.maximum((g * a).sum(1), 0)
    weights = weights_of(a, g, method).reshape(*a.shape[:2], *[1] * (a.ndim - 2))
    return numpy.maximum((weights * a).sum(1), 0)


def resampled(maps, size, interpolation="linear"):
    for axis, to in enumerate(size, 1):
        extent = maps.shape[axis]
        at = (numpy.arange(to) + 0.5) * extent / to
        if interpolation == "nearest":
            maps = maps.take(numpy.floor(at).astype(int), axis)
            continue
        at = numpy.clip(at - 0.5, 0, extent - 1)
        low = numpy.floor(at).astype(int)
        high = numpy.minimum(low + 1, extent - 1)
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(maps.ndim)])
        maps = (1 - part) * maps.take(low, axis) + part * maps.take(high, axis)
    return maps


def normalized(maps):
    axes = tuple(range(1, maps.ndim))
    low, high = maps.min(axes, keepdims=True), maps.max(axes, keepdims=True)
    width = numpy.where(high > low, high - low, 1)
    return (maps - low) / width


def layer(library, seed, shape, dtype="float32"):
    """An activation of a ReLU and a gradient, as the type holds them."""
    draw = numpy.random.default_rng(seed)
    activation = numpy.maximum(draw.standard_normal(shape), 0).astype("float32") + 0.01
    gradient = draw.standard_normal(shape).astype("float32")
    return library.make(activation, dtype), library.make(gradient, dtype)


@pytest.mark.parametrize(("seed", "shape", "size"), drawn_layers())
def test_cam_is_its_formula(library, seed, shape, size):
    dtype = library.dtypes[seed % len(library.dtypes)]
    activation, gradient = layer(library, seed, shape, dtype)
    a, g = in_numpy(activation), in_numpy(gradient)
    for method in METHODS:
        expected = resampled(layer_map(a, g, method), size)
        found, infos = medcam_rs.cam(activation, gradient, method, size=size, info=True)
        assert type(found) is type(activation) and found.shape == (shape[0], *size)
        largest = expected.max(tuple(range(1, expected.ndim)))
        for info, greatest in zip(infos, largest):
            assert info.maximum == pytest.approx(greatest, abs=1e-4 * max(greatest, 1))
            assert info.weights_cancel in (False, True)
        plain = medcam_rs.cam(activation, gradient, method, size=size, normalize=False)
        scale = over_voxels(abs(a)).sum((1, 2)).max() + 1
        assert abs(in_numpy(plain) - expected).max() < 1e-4 * scale
        assert abs(in_numpy(found) - normalized(in_numpy(plain))).max() < 1e-5
        again = medcam_rs.cam(
            library.channels_last(activation), library.channels_last(gradient), method, size=size
        )
        width = max(info.maximum - info.minimum for info in infos)
        assert abs(in_numpy(again) - in_numpy(found)).max() < 1e-3 or width < 1e-3 * scale
        singles = [
            medcam_rs.cam(activation[b : b + 1], gradient[b : b + 1], method, size=size)
            for b in range(shape[0])
        ]
        assert numpy.array_equal(numpy.concatenate([in_numpy(x) for x in singles]), in_numpy(found))


@pytest.mark.parametrize(("seed", "shape", "size"), drawn_layers(8))
def test_single_ops_are_their_formulas(library, seed, shape, size):
    activation, gradient = layer(library, seed, shape)
    a, g = in_numpy(activation), in_numpy(gradient)
    close = lambda found, expected: numpy.testing.assert_allclose(
        in_numpy(found), expected, rtol=1e-4, atol=1e-4 * max(abs(expected).max(), 1e-30)
    )
    close(medcam_rs.channel_weights(gradient), weights_of(a, g, "gradcam"))
    weights = medcam_rs.channel_weights(gradient)
    signed = numpy.einsum("bc,bc...->b...", in_numpy(weights), a)
    close(medcam_rs.project(weights, activation, rectify=False), signed)
    close(medcam_rs.project(weights, activation), numpy.maximum(signed, 0))
    close(medcam_rs.channel_mean(gradient), g.mean(1))
    for method in ("hirescam", "layercam"):
        close(medcam_rs.elementwise(activation, gradient, method), layer_map(a, g, method))
    small = medcam_rs.channel_mean(gradient)
    for interpolation in ("linear", "nearest"):
        found = medcam_rs.resample(small, size, interpolation=interpolation)
        close(found, resampled(in_numpy(small), size, interpolation))
    close(medcam_rs.normalize(small), normalized(in_numpy(small)))
    large = medcam_rs.resample(small, size)
    product = resampled(in_numpy(small), size) * in_numpy(large)
    found = medcam_rs.guided_product(small, large, normalize=False)
    close(found, product)
    close(medcam_rs.guided_activation(activation, gradient), g * (g > 0) * (a > 0))
    chain = medcam_rs.guided_cam(activation, gradient, large)
    parts = medcam_rs.guided_product(
        medcam_rs.cam(activation, gradient, normalize=False), large
    )
    assert numpy.array_equal(in_numpy(chain), in_numpy(parts))


@pytest.mark.parametrize(("seed", "shape", "size"), drawn_layers(8))
def test_alpha_weights_are_their_formula(library, seed, shape, size):
    activation, gradient = layer(library, seed, shape)
    # The epsilons are 1e-6 and 1e-7: nearly nothing beside the square of 1, most of the denominator
    # beside that of 1e-4.
    for scale in (1, 1e-3, 1e-4):
        for denominator, epsilon in EPSILONS.items():
            small = abs(gradient) * scale
            gradients = [small]
            if epsilon > 0 and scale == 1e-4:
                # Gradients of both signs, but for the denominators that they can bring near 0.
                gradients.append(gradient * scale)
            for g in gradients:
                expected = weights_of(in_numpy(activation), in_numpy(g), "gradcam++", denominator)
                found = medcam_rs.alpha_weights(activation, g, denominator)
                numpy.testing.assert_allclose(in_numpy(found), expected, rtol=2e-5)


def test_alpha_weights_with_an_epsilon_by_hand(library):
    # A·G is 1, and an epsilon over G² is 1e-6·2²⁰ or 1e-7·2²⁰.
    activation = library.make(numpy.array([[[[1024, 0, 0]]]]))
    gradient = library.make(numpy.array([[[[2**-10, 0, 0]]]]))
    for denominator, below in [("paper+1e-6", 4.048576), ("m3dcam+1e-7", 3.1048576)]:
        weights = medcam_rs.alpha_weights(activation, gradient, denominator)
        assert in_numpy(weights) == pytest.approx(2**-10 / below, rel=1e-6)
        found = medcam_rs.cam(
            activation, gradient, "gradcam++", denominator=denominator, normalize=False
        )
        assert in_numpy(found).ravel() == pytest.approx([1 / below, 0, 0], rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_maps_of_every_type(library, dtype):
    activation, gradient = layer(library, 3, (2, 8, 5, 6))
    exact = in_numpy(medcam_rs.cam(activation, gradient, size=(9, 7)))
    found = medcam_rs.cam(activation, gradient, size=(9, 7), out_dtype=dtype)
    assert str(found.dtype).endswith(dtype)
    scale = 255 if dtype == "uint8" else 1
    assert abs(in_numpy(found) / scale - exact).max() <= 0.5 / 255
    same = medcam_rs.cam(activation, gradient, size=(9, 7), out_dtype=found.dtype)
    assert numpy.array_equal(in_numpy(found), in_numpy(same))


def test_arrays_that_cannot_be_written_to():
    activation = numpy.random.default_rng(1).random((1, 4, 5, 6), dtype="float32")
    gradient = activation[:, ::-1].copy()
    expected = medcam_rs.cam(activation, gradient)
    activation.flags.writeable = gradient.flags.writeable = False
    assert numpy.array_equal(medcam_rs.cam(activation, gradient), expected)


def test_tensors_that_require_grad_are_detached():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    activation = torch.rand(1, 4, 5, 6, requires_grad=True)
    gradient = torch.rand(1, 4, 5, 6)
    found = medcam_rs.cam(activation * 2, gradient)
    assert not found.requires_grad and activation.grad is None


def test_negated_views():
    """Their memory holds the values of the other sign, of which DLPack tells nothing."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    activation, gradient = torch.rand(2, 1, 4, 5, 6)
    view = torch.randn(4, 5, 6, dtype=torch.complex64).conj().imag[None]
    assert view.is_neg()
    found = medcam_rs.cam(activation, view, "hirescam")
    assert found.equal(medcam_rs.cam(activation, view.clone().contiguous(), "hirescam"))
    (expected,) = medcam_rs.cam(activation, torch._neg_view(gradient), normalize=False)
    assert expected.equal(medcam_rs.cam(activation, -gradient, normalize=False)[0])


def test_any_tensor_of_dlpack_on_the_cpu():
    class Foreign:
        def __init__(self, array):
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    values = numpy.random.default_rng(2).random((1, 3, 4, 5), dtype="float32")
    found = medcam_rs.cam(Foreign(values), Foreign(values))
    assert isinstance(found, numpy.ndarray)
    assert numpy.array_equal(found, medcam_rs.cam(values, values))


def test_score_is_that_of_the_formula(library):
    draw = numpy.random.default_rng(5)
    maps = draw.random((2, 6, 7)).astype("float32")
    masks = (draw.random((2, 6, 7)) > 0.6).astype("float32")
    found = medcam_rs.score(library.make(maps), library.make(masks), ("ioa", "iou"), threshold=0.5)
    for scores, attention, mask in zip(found, normalized(maps) >= 0.5, masks > 0):
        both = (attention & mask).sum()
        assert scores["ioa"] == pytest.approx(both / attention.sum())
        assert scores["iou"] == pytest.approx(both / (attention | mask).sum())
    booleans = library.make(masks, "bool" if library.dtypes[-1] == "bfloat16" else "uint8")
    assert medcam_rs.score(library.make(maps), booleans, ("ioa", "iou"), threshold=0.5) == found
