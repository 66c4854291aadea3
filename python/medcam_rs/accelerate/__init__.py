"""medcam's kernels beneath the CAM library that you use already.

```python
import medcam_rs

with medcam_rs.accelerate("pytorch_grad_cam"):
    maps = GradCAM(model, [model.layer4])(image, targets)
```

`accelerate` patches one library: its classes, functions and results stay as they are, and pooling,
weighting, ReLU, resampling and normalising run in medcam's kernels, in that library's own
convention. Wherever the kernels do not apply (other types than f32, f16 and bf16, other than 2D and
3D layers, values that are not finite, a method that a subclass overrides), the library's own code
runs. Where they fail, as without NVRTC or on a full device, it runs too, with a `RuntimeWarning`.

| `library` | package | version | what its module says |
|---|---|---|---|
| `m3dcam` | `medcam` | 0.1.22 | `_m3dcam.py` |
| `pytorch_grad_cam` | `grad-cam` | 1.5.7 | `_pytorch_grad_cam.py` |
| `monai` | `monai` | 1.6.1 | `_monai.py` |
| `torchcam` | `torchcam` | 0.5.0 | `_torchcam.py` |
| `captum` | `captum` | 0.9.0 | `_captum.py` |
"""

from __future__ import annotations

import importlib
import importlib.metadata
import threading
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from ..errors import InputError, MedcamError

__all__ = ["Acceleration", "AlreadyAccelerated", "UnknownVersion", "accelerate"]

_LIBRARIES = ("m3dcam", "pytorch_grad_cam", "monai", "torchcam", "captum")

# Stands for an attribute that the library does not have.
_ABSENT = object()

# The libraries that are patched now.
_accelerated: set[str] = set()
_lock = threading.Lock()


class UnknownVersion(MedcamError):
    """The installed version of the library is not one that the patches were made for."""


class AlreadyAccelerated(MedcamError):
    """The library is patched already; only `Acceleration.undo` makes way for other flags."""


class Acceleration:
    """The patches of one library, in force until `undo()` or the end of the `with` block."""

    def __init__(self, library: str, version: str) -> None:
        self.library = library
        self.version = version
        self._undone = False
        self._originals: list[tuple[Any, str, Any, Any]] = []

    def _apply(self, patches: Iterable[tuple[Any, str, Any]]) -> None:
        for owner, name, replacement in patches:
            # From `vars` and not with `getattr`, which would unwrap a static method and find what a
            # class merely inherits.
            original = vars(owner).get(name, _ABSENT)
            setattr(owner, name, replacement)
            self._originals.append((owner, name, original, replacement))

    def _restore(self) -> None:
        while self._originals:
            owner, name, original, replacement = self._originals.pop()
            if vars(owner).get(name, _ABSENT) is not replacement:
                message = (
                    f"{owner.__name__}.{name} was replaced after accelerate({self.library!r}) and stays "
                    "as it is; whoever replaced it has to put the library's own back"
                )
                warnings.warn(message, RuntimeWarning, stacklevel=4)
            elif original is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, original)

    def undo(self) -> None:
        """Gives every patched attribute its own object back, but for those that were replaced since: they
        stay, with a `RuntimeWarning`. A second call does nothing."""
        with _lock:
            if self._undone:
                return
            self._restore()
            self._undone = True
            _accelerated.discard(self.library)

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        state = "undone" if self._undone else "in force"
        return f"Acceleration({self.library!r}, version {self.version}, {state})"


def accelerate(library: str, *, fix: Iterable[str] = (), **flags: str) -> Acceleration:
    """Puts medcam's kernels beneath `library`, until `undo()` or the end of a `with` block.

    `library` is `"m3dcam"`, `"pytorch_grad_cam"`, `"monai"`, `"torchcam"` or `"captum"`. `fix`
    names defects of the library to put right. Without it, f32 results agree with the library's own
    within 1e-5 wherever the library gives any. Further flags differ by library; its module lists
    both.

    The patches are for the whole process, and one library can be patched once at a time. Objects
    that were made before take part.

    Raises `InputError` for an unknown library, fix or flag, `ImportError` where the library is not
    installed, `UnknownVersion` where its version is not a known one, and `AlreadyAccelerated` where
    it is patched already. Nothing is patched then.
    """
    if library not in _LIBRARIES:
        known = ", ".join(_LIBRARIES)
        raise InputError(f"accelerate: unknown library {library!r}; known are {known}")
    module = importlib.import_module(f"{__name__}._{library}")
    fixes = frozenset((fix,) if isinstance(fix, str) else fix)
    if unknown := sorted(fixes - set(module.FIXES)):
        known = ", ".join(module.FIXES) or "none"
        raise InputError(f"accelerate({library!r}): unknown fix {unknown}; known are: {known}")
    for name, value in flags.items():
        if value not in module.FLAGS.get(name, ()):
            known = ", ".join(f"{flag}={choices}" for flag, choices in module.FLAGS.items())
            message = f"accelerate({library!r}): unknown flag {name}={value!r}"
            raise InputError(f"{message}; known are: fix, {known}".rstrip(", "))
    version = _installed_version(library, module.PACKAGE, module.VERSIONS)
    with _lock:
        if library in _accelerated:
            raise AlreadyAccelerated(
                f"accelerate({library!r}): it is accelerated already; first call undo() of that "
                "acceleration, or leave its with block"
            )
        acceleration = Acceleration(library, version)
        try:
            acceleration._apply(module.patches(fixes, **flags))
        except BaseException:
            acceleration._restore()
            raise
        _accelerated.add(library)
    return acceleration


def _installed_version(library: str, package: str, known: tuple[str, ...]) -> str:
    names = " or ".join(known)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        message = (
            f"accelerate({library!r}) needs the package {package} {names}, which is not installed"
        )
        raise ImportError(message, name=package) from error
    if version not in known:
        raise UnknownVersion(
            f"accelerate({library!r}): {package} {version} is installed, and the patches know its "
            f"internals in {names} alone"
        )
    return version
