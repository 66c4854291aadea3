"""Attention maps of 2D and 3D medical CNNs from the activation and the gradient of a layer.

NumPy arrays and PyTorch tensors go in and come out, on the CPU or a CUDA device, without copies, in
float32, float16 and bfloat16. On CUDA the work goes onto PyTorch's current stream, and nothing waits.

| | |
|---|---|
| `cam`, `guided_cam` | the whole chain, from the raw gradient to the finished map |
| `channel_weights`, `alpha_weights`, `project`, `elementwise`, `channel_mean` | its parts |
| `resample`, `normalize`, `guided_product`, `guided_activation` | more of them |
| `score` | maps against masks |
| `inject` | has a PyTorch module make its maps as it runs |
| `export` | a PyTorch module as the file that the `medcam` program takes |
| `accelerate` | these kernels beneath M3d-CAM, pytorch-grad-cam, MONAI, TorchCAM and Captum |
| `cuda_devices` | the devices that the kernels run on, or why there are none |

The interpreter's lock is released while the ops run. Functions may be called from any thread, and in
processes that were forked off; CUDA is not to be had in a fork of a process that used it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _native
from ._chains import MapInfo, cam, guided_cam
from ._export import export
from ._ops import (
    alpha_weights,
    channel_mean,
    channel_weights,
    elementwise,
    guided_activation,
    guided_product,
    normalize,
    project,
    resample,
    score,
)
from .accelerate import accelerate
from .errors import (
    DeviceError,
    DtypeError,
    FileError,
    InputError,
    MedcamError,
    UnavailableError,
)

if TYPE_CHECKING:
    from .injection import inject

__version__: str = _native.VERSION
__all__ = [
    "DeviceError",
    "DtypeError",
    "FileError",
    "InputError",
    "MapInfo",
    "MedcamError",
    "UnavailableError",
    "accelerate",
    "alpha_weights",
    "cam",
    "channel_mean",
    "channel_weights",
    "cuda_devices",
    "elementwise",
    "export",
    "guided_activation",
    "guided_cam",
    "guided_product",
    "inject",
    "normalize",
    "project",
    "resample",
    "score",
]


def cuda_devices() -> list[str]:
    """The names of the CUDA devices that kernels can run on.

    Raises `UnavailableError`, which says what is missing, where there are none.
    """
    return _native.cuda_devices()


def __getattr__(name: str) -> Any:
    """`inject` when it is first asked for: torch is not imported before."""
    if name != "inject":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .injection import inject
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return _inject_without_torch
    globals()[name] = inject
    return inject


def _inject_without_torch(*args: Any, **kwargs: Any) -> Any:
    """Stands for `inject` where PyTorch is missing, so that `import *` works there."""
    raise ImportError(
        "inject: PyTorch is not installed here; install it with pip install 'medcam-rs[torch]'",
        name="torch",
    )
