"""The chains: from the activation and the gradient of a layer to finished maps."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar, overload

from . import _arrays, _native

Array = TypeVar("Array")
Method = Literal["gradcam", "gradcam++", "hirescam", "layercam"]
Denominator = Literal["paper", "paper+1e-6", "m3dcam", "m3dcam+1e-7"]

LAYER = ("float32", "float16", "bfloat16")
"""The types of activations and gradients."""


class MapInfo(NamedTuple):
    """What is known of a map beside its values."""

    minimum: float
    """The least value before normalisation."""
    maximum: float
    """The greatest value before normalisation."""
    weights_cancel: bool
    """Whether Grad-CAM's weights are rounding noise, and with them the map."""


@overload
def cam(
    activation: Array,
    gradient: Array,
    method: Method = ...,
    *,
    denominator: Denominator = ...,
    size: tuple[int, ...] | None = ...,
    normalize: bool = ...,
    out_dtype: Any = ...,
    info: Literal[False] = ...,
) -> Array: ...
@overload
def cam(
    activation: Array,
    gradient: Array,
    method: Method = ...,
    *,
    denominator: Denominator = ...,
    size: tuple[int, ...] | None = ...,
    normalize: bool = ...,
    out_dtype: Any = ...,
    info: Literal[True],
) -> tuple[Array, list[MapInfo]]: ...
def cam(
    activation: Any,
    gradient: Any,
    method: Method = "gradcam",
    *,
    denominator: Denominator = "paper",
    size: tuple[int, ...] | None = None,
    normalize: bool = True,
    out_dtype: Any = None,
    info: bool = False,
) -> Any:
    """The map of a layer, from its activation `A` and the gradient `G` of the score there.

    | `method` | the map |
    |---|---|
    | `"gradcam"` | `ReLU(sum_c w[c]·A[c])`, `w[c] = mean G[c]` (arXiv 1610.02391, eqs. 1 and 2) |
    | `"gradcam++"` | the same with `alpha_weights` (arXiv 1710.11063) |
    | `"hirescam"` | `ReLU(sum_c G[c]·A[c])` (arXiv 2011.08891) |
    | `"layercam"` | `ReLU(sum_c ReLU(G[c])·A[c])` (LayerCAM, IEEE TIP 2021) |

    `denominator` is that of `alpha_weights`; the other methods have none.

    Then linear resampling to `size`, `(H, W)` or `(D, H, W)`, as PyTorch's with
    `align_corners=False`, then, with `normalize`, each map to `[0, 1]`; a constant map becomes 0.

    `activation` and `gradient` are `(B, C, H, W)` or `(B, C, D, H, W)`, float32, float16 or bfloat16
    of one type, contiguous or channels last. The map is `(B, H, W)` or `(B, D, H, W)`, of
    `out_dtype`: float32 (the default), float16 or uint8, which holds 255ths. Nothing is copied.

    With `info` the result is the map and a list of `MapInfo`, one for each sample; on CUDA that
    waits for the map, and without it nothing does. Values that are not finite raise on the CPU and,
    with `info`, on CUDA.

    Raises `InputError` (a `ValueError`) for shapes, orders in memory and values that don't fit,
    `DtypeError` (a `TypeError`) for other types, `UnavailableError` and `DeviceError` (both
    `RuntimeError`) on CUDA.

    >>> import numpy
    >>> activation = numpy.array([[[[1, 3]], [[0, 1]]]], dtype="float32")
    >>> gradient = numpy.array([[[[1, 3]], [[-1, -3]]]], dtype="float32")
    >>> cam(activation, gradient, normalize=False)
    array([[[2., 4.]]], dtype=float32)
    >>> cam(activation, gradient, size=(1, 4), out_dtype="uint8", info=True)
    (array([[[  0,  64, 191, 255]]], dtype=uint8), [MapInfo(minimum=2.0, maximum=4.0, weights_cancel=False)])
    """
    activation = _arrays.check("activation", activation, LAYER, (4, 5))
    gradient = _arrays.check("gradient", gradient, LAYER, (4, 5))
    _arrays.same_place(activation=activation, gradient=gradient)
    to = _arrays.grid(size, activation.ndim - 2) or tuple(activation.shape[2:])
    dtype = _arrays.map_dtype(out_dtype)
    out = _arrays.empty(activation, (activation.shape[0], *to), dtype)
    stream = _arrays.stream(activation)
    lent = _arrays.lend(activation, gradient, out)
    named = _arrays.name("method", method), _arrays.name("denominator", denominator)
    told = _native.cam(*lent, *named, bool(normalize), stream, bool(info))
    return (out, [MapInfo(*of_map) for of_map in told or []]) if info else out


@overload
def guided_cam(
    activation: Array,
    gradient: Array,
    guided: Array,
    method: Method = ...,
    *,
    denominator: Denominator = ...,
    normalize: bool = ...,
    out_dtype: Any = ...,
    info: Literal[False] = ...,
) -> Array: ...
@overload
def guided_cam(
    activation: Array,
    gradient: Array,
    guided: Array,
    method: Method = ...,
    *,
    denominator: Denominator = ...,
    normalize: bool = ...,
    out_dtype: Any = ...,
    info: Literal[True],
) -> tuple[Array, list[MapInfo]]: ...
def guided_cam(
    activation: Any,
    gradient: Any,
    guided: Any,
    method: Method = "gradcam",
    *,
    denominator: Denominator = "paper",
    normalize: bool = True,
    out_dtype: Any = None,
    info: bool = False,
) -> Any:
    """Guided Grad-CAM: the map of `cam`, resampled to the grid of `guided`, times `guided`.

    `guided` is Guided Backpropagation's map, `(B, H, W)` or `(B, D, H, W)` float32 (see
    `channel_mean`). Source: arXiv 1610.02391, section 3.2; with `normalize`, each product goes to
    `[0, 1]`, as in M3d-CAM. Everything else as in `cam`.

    >>> import numpy
    >>> activation = numpy.array([[[[0, 4]]]], dtype="float32")
    >>> gradient = numpy.ones_like(activation)
    >>> guided = numpy.array([[[5, -1, 1, 0.5]]], dtype="float32")
    >>> guided_cam(activation, gradient, guided)
    array([[[0.25, 0.  , 1.  , 0.75]]], dtype=float32)
    """
    activation = _arrays.check("activation", activation, LAYER, (4, 5))
    gradient = _arrays.check("gradient", gradient, LAYER, (4, 5))
    guided = _arrays.check("guided", guided, ("float32",), (activation.ndim - 1,))
    _arrays.same_place(activation=activation, gradient=gradient, guided=guided)
    dtype = _arrays.map_dtype(out_dtype)
    out = _arrays.empty(guided, tuple(guided.shape), dtype)
    stream = _arrays.stream(activation)
    lent = _arrays.lend(activation, gradient, guided, out)
    named = _arrays.name("method", method), _arrays.name("denominator", denominator)
    told = _native.guided_cam(*lent, *named, bool(normalize), stream, bool(info))
    return (out, [MapInfo(*of_map) for of_map in told or []]) if info else out


class Summarized(NamedTuple):
    """Maps that a device may still be making, and what it will tell of them."""

    values: Any
    words: Any
    """`(B, 8)` int32, where the maps are: what `read` takes once they are on the host."""
    reader: _native.Reader

    def read(self, words: list[int]) -> tuple[list[MapInfo], list[bool]]:
        """What is known of each map, and whether it is zero and so is its gradient."""
        infos, zero_gradient = self.reader.read(words)
        return [MapInfo(*of_map) for of_map in infos], zero_gradient


def summarized_cam(
    activation: Any,
    gradient: Any,
    method: Method,
    *,
    guided: Any = None,
    size: tuple[int, ...] | None = None,
) -> Summarized:
    """`cam`, or with `guided` `guided_cam`, normalised and with all that `info` tells. Nothing waits.

    Values that are not finite raise on the CPU; on CUDA they do when the words are read.
    """
    activation = _arrays.check("activation", activation, LAYER, (4, 5))
    gradient = _arrays.check("gradient", gradient, LAYER, (4, 5))
    _arrays.same_place(activation=activation, gradient=gradient)
    batch = activation.shape[0]
    if guided is None:
        to = _arrays.grid(size, activation.ndim - 2) or tuple(activation.shape[2:])
    else:
        guided = _arrays.check("guided", guided, ("float32",), (activation.ndim - 1,))
        _arrays.same_place(activation=activation, guided=guided)
        to = tuple(guided.shape[1:])
    out = _arrays.empty(activation, (batch, *to))
    words = _arrays.empty(activation, (batch, 8), "int32")
    stream = _arrays.stream(activation)
    activation, gradient = _arrays.lend(activation, gradient)
    lent_guided = None if guided is None else _arrays.lend(guided)[0]
    lent = activation, gradient, lent_guided, *_arrays.lend(out, words)
    return Summarized(out, words, _native.summarized_cam(*lent, method, "paper", stream))
