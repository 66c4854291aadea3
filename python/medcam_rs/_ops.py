"""The ops one by one, for front ends that put them together themselves."""

from typing import Any, Literal, TypeVar

from . import _arrays, _native
from ._chains import LAYER, Denominator

Array = TypeVar("Array")


def channel_weights(gradient: Array) -> Array:
    """Grad-CAM's weights `w[b,c] = mean_n G[b,c,n]`, `(B, C)` float32.

    `gradient` is `(B, C, [D,] H, W)`, as in `cam`.

    >>> import numpy
    >>> channel_weights(numpy.array([[[[1, 3]], [[-1, -3]]]], dtype="float32"))
    array([[ 2., -2.]], dtype=float32)
    """
    gradient = _arrays.check("gradient", gradient, LAYER, (4, 5))
    out = _arrays.empty(gradient, tuple(gradient.shape[:2]))
    _native.channel_weights(*_arrays.lend(gradient, out), _arrays.stream(gradient))
    return out


def alpha_weights(activation: Array, gradient: Array, denominator: Denominator = "paper") -> Array:
    """Grad-CAM++'s weights `w[b,c] = sum_n alpha·ReLU(G[b,c,n])`, `(B, C)` float32.

    | `denominator` | `alpha` | |
    |---|---|---|
    | `"paper"` | `G² / (2·G² + (sum A)·G³)` | equation 19 of arXiv 1710.11063 |
    | `"paper+1e-6"` | `G² / (2·G² + (sum A)·G³ + 1e-6)` | pytorch-grad-cam 1.5 |
    | `"m3dcam"` | `G² / (2·G² + sum(A·G³))` | M3d-CAM and MONAI, without their epsilon |
    | `"m3dcam+1e-7"` | `G² / (2·G² + sum(A·G³) + 1e-7)` | M3d-CAM 0.1.22, MONAI 1.6 |

    Where `G` is 0, so is `alpha`; where only the denominator is 0, it is replaced by 1. With an
    epsilon, a score times a constant does not give weights times that constant. The factor
    `exp(score)` is left out: normalisation cancels it.

    >>> import numpy
    >>> activation = numpy.array([[[[0.5, 1, 0.5]]]], dtype="float32")
    >>> gradient = numpy.array([[[[1, -1, 0]]]], dtype="float32")
    >>> alpha_weights(activation, gradient)
    array([[0.25]], dtype=float32)
    """
    activation = _arrays.check("activation", activation, LAYER, (4, 5))
    gradient = _arrays.check("gradient", gradient, LAYER, (4, 5))
    _arrays.same_place(activation=activation, gradient=gradient)
    out = _arrays.empty(activation, tuple(activation.shape[:2]))
    lent, named = _arrays.lend(activation, gradient, out), _arrays.name("denominator", denominator)
    _native.alpha_weights(*lent, named, _arrays.stream(activation))
    return out


def project(weights: Array, activation: Array, *, rectify: bool = True) -> Array:
    """The weighted sum of the channels, `sum_c w[b,c]·A[b,c,n]`, with `rectify` its ReLU.

    `weights` is `(B, C)` float32 in order, `activation` `(B, C, [D,] H, W)` as in `cam`. The map is
    `(B, [D,] H, W)` float32.

    >>> import numpy
    >>> weights = numpy.array([[2, -1]], dtype="float32")
    >>> activation = numpy.array([[[[1, 2, 3]], [[4, 0, 1]]]], dtype="float32")
    >>> project(weights, activation, rectify=False)
    array([[[-2.,  4.,  5.]]], dtype=float32)
    """
    weights = _arrays.check("weights", weights, ("float32",), (2,))
    activation = _arrays.check("activation", activation, LAYER, (4, 5))
    _arrays.same_place(weights=weights, activation=activation)
    out = _layer_map(activation)
    _native.sum(*_arrays.lend(weights, activation, out), bool(rectify), _arrays.stream(activation))
    return out


def elementwise(
    activation: Array, gradient: Array, method: Literal["hirescam", "layercam"] = "hirescam"
) -> Array:
    """HiResCAM's `ReLU(sum_c G·A)` or LayerCAM's `ReLU(sum_c ReLU(G)·A)`, `(B, [D,] H, W)` float32.

    >>> import numpy
    >>> activation = numpy.array([[[[1, 3]], [[2, 1]]]], dtype="float32")
    >>> gradient = numpy.array([[[[1, 3]], [[-1, -3]]]], dtype="float32")
    >>> elementwise(activation, gradient), elementwise(activation, gradient, "layercam")
    (array([[[0., 6.]]], dtype=float32), array([[[1., 9.]]], dtype=float32))
    """
    activation = _arrays.check("activation", activation, LAYER, (4, 5))
    gradient = _arrays.check("gradient", gradient, LAYER, (4, 5))
    _arrays.same_place(activation=activation, gradient=gradient)
    out = _layer_map(activation)
    lent, named = _arrays.lend(activation, gradient, out), _arrays.name("method", method)
    _native.elementwise(*lent, named, _arrays.stream(activation))
    return out


def channel_mean(tensor: Array) -> Array:
    """The mean over the channels, `(B, [D,] H, W)` float32: Guided Backpropagation's map.

    >>> import numpy
    >>> channel_mean(numpy.array([[[[1, -2, 3]], [[4, 0, 1]]]], dtype="float32"))
    array([[[ 2.5, -1. ,  2. ]]], dtype=float32)
    """
    tensor = _arrays.check("tensor", tensor, LAYER, (4, 5))
    out = _layer_map(tensor)
    _native.sum(None, *_arrays.lend(tensor, out), False, _arrays.stream(tensor))
    return out


def resample(
    map: Array,
    size: tuple[int, ...],
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    normalize: bool = False,
    out_dtype: Any = None,
) -> Array:
    """Maps `(B, [D,] H, W)` float32 on another grid, and with `normalize` each in `[0, 1]`.

    Half-pixel centres: PyTorch's `bilinear` and `trilinear` with `align_corners=False`, and
    `nearest-exact`. `out_dtype` as in `cam`; uint8 takes `normalize`.

    >>> import numpy
    >>> resample(numpy.array([[[0, 4]]], dtype="float32"), (1, 4))
    array([[[0., 1., 3., 4.]]], dtype=float32)
    """
    map = _arrays.check("map", map, ("float32",), (3, 4))
    to = _arrays.grid(size, map.ndim - 1) or tuple(map.shape[1:])
    out = _arrays.empty(map, (map.shape[0], *to), _arrays.map_dtype(out_dtype))
    lent, named = _arrays.lend(map, out), _arrays.name("interpolation", interpolation)
    _native.resample(*lent, named, bool(normalize), _arrays.stream(map))
    return out


def normalize(map: Array) -> Array:
    """A copy of maps `(B, [D,] H, W)` float32, each brought to `[0, 1]`; a constant map becomes 0.

    >>> import numpy
    >>> normalize(numpy.array([[[2, 4, 3]], [[7, 7, 7]]], dtype="float32"))
    array([[[0. , 1. , 0.5]],
    <BLANKLINE>
           [[0. , 0. , 0. ]]], dtype=float32)
    """
    out = _arrays.copy(_arrays.check("map", map, ("float32",), (3, 4)))
    _native.normalize(*_arrays.lend(out), _arrays.stream(out))
    return out


def guided_product(
    map: Array, guided: Array, *, normalize: bool = True, out_dtype: Any = None
) -> Array:
    """Maps `(B, [D,] H, W)` float32, resampled to the grid of `guided`, times `guided`.

    With `normalize` each product goes to `[0, 1]`; see `guided_cam`.

    >>> import numpy
    >>> guided = numpy.array([[[5, -1, 1, 0.5]]], dtype="float32")
    >>> guided_product(numpy.array([[[0, 4]]], dtype="float32"), guided)
    array([[[0.25, 0.  , 1.  , 0.75]]], dtype=float32)
    """
    map = _arrays.check("map", map, ("float32",), (3, 4))
    guided = _arrays.check("guided", guided, ("float32",), (map.ndim,))
    _arrays.same_place(map=map, guided=guided)
    out = _arrays.empty(guided, tuple(guided.shape), _arrays.map_dtype(out_dtype))
    _native.guided_product(*_arrays.lend(map, guided, out), bool(normalize), _arrays.stream(map))
    return out


def guided_activation(input: Array, gradient: Array) -> Array:
    """Guided Backpropagation through a ReLU: `g·(g > 0)·(x > 0)` (arXiv 1412.6806).

    Both are of one shape, type (float32, float16, bfloat16) and order in memory, in up to 5 axes.

    >>> import numpy
    >>> x = numpy.array([1, -1, 2], dtype="float32")
    >>> guided_activation(x, numpy.array([3, 3, -3], dtype="float32"))
    array([3., 0., 0.], dtype=float32)
    """
    axes = (1, 2, 3, 4, 5)
    input = _arrays.check("input", input, LAYER, axes)
    gradient = _arrays.check("gradient", gradient, LAYER, axes)
    _arrays.same_place(input=input, gradient=gradient)
    out = _arrays.empty_like(gradient)
    _native.guided_activation(*_arrays.lend(input, gradient, out), _arrays.stream(input))
    return out


def score(
    map: Any,
    mask: Any,
    metrics: tuple[str, ...] = ("wioa",),
    *,
    threshold: float | Literal["otsu"] = "otsu",
) -> list[dict[str, float]]:
    """Scores of maps against masks, one dict for each sample.

    `map` and `mask` are `(B, [D,] H, W)`; the map's absolute value is resampled to the mask's grid and
    normalised first, and a mask holds 0 and 1. Metrics are `ioa`, `wioa`, `iou`, `wiou` (as M3d-CAM
    0.1.22), `pointing_game`, `relevance_mass` and `relevance_rank`; one that is not defined is NaN.
    Computed on the CPU, in float32: what is elsewhere, or of another type, is copied.

    >>> import numpy
    >>> map = numpy.array([[[0.1, 0.2, 0.9, 1.0]]])
    >>> score(map, numpy.array([[[0, 0, 0, 1]]]), ("ioa", "pointing_game"))
    [{'ioa': 0.5, 'pointing_game': 1.0}]
    """
    map = _arrays.on_cpu("map", map, (3, 4))
    mask = _arrays.on_cpu("mask", mask, (3, 4))
    names = _arrays.names("metrics", metrics)
    scores = _native.score(*_arrays.lend(map), *_arrays.lend(mask), names, str(threshold))
    return [dict(zip(names, of_map)) for of_map in scores]


def _layer_map(activation: Any) -> Any:
    return _arrays.empty(activation, (activation.shape[0], *activation.shape[2:]))
