"""NumPy arrays and PyTorch tensors alike: checks, new outputs, and the stream."""

import sys
from typing import Any

import numpy

from .errors import DtypeError, InputError

Shape = tuple[int, ...]


def _torch(array: Any) -> Any:
    """The module `torch` if this is one of its tensors, else None. It is never imported here."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else None


def dtype_name(array: Any) -> str:
    """`float32`, of arrays and tensors."""
    return str(array.dtype).removeprefix("torch.")


def check(name: str, array: Any, dtypes: tuple[str, ...], axes: tuple[int, ...]) -> Any:
    """The array, detached if it is a tensor; refuses what the ops don't take."""
    torch = _torch(array)
    if torch is not None:
        if array.layout != torch.strided:
            raise InputError(f"{name}: a tensor of layout {array.layout}; make it .to_dense()")
        if array.device.type not in ("cpu", "cuda"):
            raise InputError(f"{name}: a tensor on {array.device}; there are cpu and cuda")
        # Of the rest of what DLPack does not tell, conjugates are complex.
        array = array.detach().resolve_neg()
    elif not isinstance(real(name, array), numpy.ndarray):
        if not hasattr(array, "__dlpack__"):
            kind = type(array).__name__
            raise DtypeError(f"{name}: a {kind}; it takes a NumPy array or a PyTorch tensor")
        kind, _ = array.__dlpack_device__()
        if kind != 1:
            raise InputError(f"{name}: on a device; only PyTorch tensors are taken from devices")
        try:
            array = numpy.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{name}: NumPy cannot take it by DLPack: {error}") from error
    if dtype_name(array) not in dtypes:
        expected = ", ".join(dtypes)
        raise DtypeError(f"{name}: {dtype_name(array)} values; it takes {expected}")
    if array.ndim not in axes:
        shape, expected = tuple(array.shape), " or ".join(map(str, axes))
        raise InputError(f"{name}: {array.ndim} axes {shape}; it takes {expected}")
    if 0 in array.shape:
        raise InputError(f"{name}: shape {tuple(array.shape)} holds no values")
    return array


def lend(*arrays: Any) -> tuple[Any, ...]:
    """What the compiled half takes: NumPy arrays, and capsules of DLPack for PyTorch's tensors.

    Not by `Tensor.__dlpack__`, which takes ten times as long, and refuses a tensor of a device that is
    not the current one.
    """
    torch = _torch(arrays[0])
    if torch is None:
        return arrays
    try:
        return tuple(map(torch.utils.dlpack.to_dlpack, arrays))
    except (BufferError, RuntimeError) as error:
        raise InputError(f"a tensor that PyTorch does not export by DLPack: {error}") from error


def same_place(**arrays: Any) -> None:
    """Refuses arrays of two libraries or devices, which no call can work on."""
    first = next(iter(arrays.values()))
    torch = _torch(first)
    if any(
        _torch(array) is not torch or (torch is not None and array.device != first.device)
        for array in arrays.values()
    ):
        places = {name: _place(array) for name, array in arrays.items()}
        listed = ", ".join(f"{name} is {place}" for name, place in places.items())
        raise InputError(f"{listed}; give all of one kind, on one device")


def _place(array: Any) -> str:
    return "a NumPy array" if _torch(array) is None else f"a tensor on {array.device}"


def empty(like: Any, shape: Shape, dtype: str = "float32") -> Any:
    """A new array of the same library and device."""
    torch = _torch(like)
    try:
        if torch is None:
            return numpy.empty(shape, dtype)
        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
    except (MemoryError, ValueError, RuntimeError) as error:
        raise InputError(f"no memory for a result of {shape} {dtype} values: {error}") from error


def empty_like(array: Any) -> Any:
    """A new array of the same type, with its values in the same order in memory."""
    torch = _torch(array)
    if torch is None:
        return numpy.empty_like(array, order="K", subok=False)
    return torch.empty_like(array, memory_format=torch.preserve_format)


def copy(array: Any) -> Any:
    """The same values in order, in memory of their own."""
    torch = _torch(array)
    if torch is None:
        return numpy.array(array, order="C")
    return array.clone(memory_format=torch.contiguous_format)


def on_cpu(name: str, array: Any, axes: tuple[int, ...]) -> Any:
    """The array as float32 in order on the CPU, copied where it is something else."""
    kinds = ("float32", "float16", "bfloat16", "float64", "uint8", "bool")
    kinds += ("int8", "int16", "int32", "int64")
    array = check(name, array, kinds, axes)
    torch = _torch(array)
    if torch is None:
        return numpy.ascontiguousarray(array, dtype=numpy.float32)
    return array.to(device="cpu", dtype=torch.float32).contiguous()


def map_dtype(out_dtype: Any) -> str:
    """The name of a type of finished maps."""
    if out_dtype is None:
        return "float32"
    try:
        name = str(out_dtype).removeprefix("torch.")
        name = name if name in ("float32", "float16", "uint8") else numpy.dtype(out_dtype).name
    except TypeError:
        name = str(out_dtype)
    if name not in ("float32", "float16", "uint8"):
        raise DtypeError(f"out_dtype: {name}; maps are float32, float16 or uint8")
    return name


def name(what: str, text: Any) -> str:
    """Refuses what is no name; the compiled half knows which names there are."""
    if not isinstance(text, str):
        raise DtypeError(f"{what}: {text!r}; it takes a name")
    return text


def names(what: str, given: Any) -> list[str]:
    """One name or several."""
    if not isinstance(given, (str, list, tuple)):
        raise DtypeError(f"{what}: {given!r}; it takes a name, or several in a tuple")
    return [name(what, text) for text in ((given,) if isinstance(given, str) else given)]


def real(what: str, array: Any) -> Any:
    """Refuses what a conversion would take a part of: masked arrays and complex numbers."""
    if isinstance(array, numpy.ma.MaskedArray):
        raise InputError(f"{what}: a masked array; fill it first, with .filled(0)")
    if "complex" in str(getattr(array, "dtype", "")):
        raise DtypeError(f"{what}: complex numbers; it takes real ones")
    return array


def in_numpy(what: str, array: Any) -> numpy.ndarray:
    """An array, nested lists or a tensor of any device, in NumPy."""
    torch = _torch(array)
    if torch is not None:
        array = array.detach().cpu()
        if array.dtype == torch.bfloat16:
            array = array.float()
        array = array.as_subclass(torch.Tensor).numpy()
    array = real(what, array)
    try:
        array = numpy.asarray(array)
    except ValueError as error:
        raise InputError(f"{what}: NumPy makes no array of it: {error}") from error
    return real(what, array)


def stream(array: Any) -> int:
    """PyTorch's current stream of the array's device, as a number; 0 on the CPU."""
    torch = _torch(array)
    if torch is None or array.device.type == "cpu":
        return 0
    return int(torch.cuda.current_stream(array.device).cuda_stream)


def grid(size: Any, axes: int) -> Shape | None:
    """`size` as whole numbers, one for each spatial axis."""
    if size is None:
        return None
    try:
        extents = tuple(int(extent) for extent in size)
        exact = all(int(extent) == extent for extent in size)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"size: {size!r}; it takes {axes} whole numbers") from None
    if len(extents) != axes or not exact or min(extents) < 1 or max(extents) > 1 << 30:
        names = "(H, W)" if axes == 2 else "(D, H, W)"
        raise InputError(f"size: {size!r}; it takes {names}, each from 1 to 2^30")
    return extents
