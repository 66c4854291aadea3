"""An injected module: its forward, and the methods that it gains."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from .. import _files
from .._arrays import in_numpy
from ..errors import FileError, InputError
from . import _targets
from ._checks import grid_of
from ._explain import Explainer, Explanation, Size
from ._maps import AttentionMap, AttentionWarning, Warned
from ._saving import OfCall, Saving, affine_of
from ._trees import map_tensors

UNSET: Any = object()
"""Of a call's label: that of the injection. None stands for all outputs."""

METHODS = (
    "attention_maps",
    "disable_medcam",
    "dump",
    "eject",
    "enable_medcam",
    "get_attention_map",
    "get_layers",
    "replace_output",
    "save_attention_map",
    "scores",
    "set_data_shape",
    "set_label",
    "test_run",
    "warnings",
)
"""What a module gains beside its forward."""


class Injection:
    """The forward of an injected module, and what it keeps between calls. `inject` makes it.

    It is copied and pickled with its module, without the maps of the last call.
    """

    def __init__(
        self,
        model: nn.Module,
        explainer: Explainer,
        targets: tuple[_targets.Target, ...],
        data_shape: Any,
        saving: Saving,
        *,
        replace: bool,
        return_attention: bool,
        return_score: bool,
        enabled: bool,
    ) -> None:
        self._model = model
        self._explainer = explainer
        self._targets = targets
        self._data_shape = data_shape
        self._saving = saving
        self._replace = replace
        self._return_attention = return_attention
        self._return_score = return_score
        self._enabled = enabled
        self._before: dict[str, Any] = {}
        self._added: list[str] = []
        self._calls = 0
        self._told: set[tuple[str, str]] = set()
        self._forget()
        self._unshared()

    def _forget(self) -> None:
        self._maps: list[AttentionMap] = []
        self._warnings: list[Warned] = []
        self._scores: list[_files.Score] = []

    def _unshared(self) -> None:
        self._lock = threading.RLock()
        self._running = False

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_lock", "_running", "_maps", "_warnings", "_scores"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
        self._unshared()

    @property
    def _inner(self) -> nn.Module:
        """The network itself: that inside a DataParallel or DistributedDataParallel."""
        return inside(self._model)

    def _plain(self, *args: Any, **kwargs: Any) -> Any:
        """The forward of the module before it was injected."""
        if "forward" in self._before:
            return self._before["forward"](*args, **kwargs)
        return type(self._model).forward(self._model, *args, **kwargs)

    @contextmanager
    def _run_alone(self) -> Iterator[None]:
        """One thread at a time; what the network calls of itself meanwhile is plain."""
        with self._lock:
            self._running = True
            try:
                yield
            finally:
                self._running = False

    def __call__(
        self,
        *args: Any,
        label: Any = UNSET,
        mask: Any = None,
        affine: Any = None,
        raw_input: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """The module's own output and, with it, its maps; see `inject`."""
        with self._lock:
            if self._running:
                return self._plain(*args, **kwargs)
            self._forget()
            number, self._calls = self._calls, self._calls + 1
            if not self._enabled:
                return self._plain(*args, **kwargs)
            targets = self._targets if label is UNSET else _targets.parse(label)
            self._saving.check(mask, affine, raw_input)
            explanation = self._explain(args, kwargs, targets)
            grid = grid_of(args, kwargs)
            call = OfCall(
                name=f"{number:06}" if name is None else name,
                one_target=len(targets) == 1 and targets[0].kind not in ("each", "components"),
                mask=mask,
                affine=affine_of(grid) if affine is None else affine,
                images=raw_input,
            )
            method = self._explainer.settings.backend
            self._scores, warned = self._saving.keep(self._maps, call, method)
            self._warnings += warned
            self._tell()
            return self._returned(map_tensors(Tensor.detach, explanation.output))

    def _explain(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        targets: tuple[_targets.Target, ...],
    ) -> Explanation:
        inner = self._inner
        forward = self._plain if inner is self._model else inner
        with self._run_alone(), _out_of_inference_mode():
            # Autograd takes no tensors of inference mode.
            args, kwargs = map_tensors(
                lambda x: x.clone() if x.is_inference() else x, (args, kwargs)
            )
            explanation = self._explainer.explain(
                inner, forward, args, kwargs, targets, self._size_of
            )
        self._maps, self._warnings = explanation.maps, explanation.warnings
        return explanation

    def _size_of(self, grid: Tensor) -> Size:
        if self._data_shape is None:
            return None
        spatial = tuple(grid.shape[2:])
        if self._data_shape == "default":
            return spatial
        if len(self._data_shape) != len(spatial):
            raise InputError(
                f"data_shape {self._data_shape} for an input of shape {tuple(grid.shape)}; it takes "
                f"{len(spatial)} whole numbers"
            )
        return tuple(self._data_shape)

    def _tell(self) -> None:
        """Each kind of warning once for each layer, by `warnings.warn`."""
        for warned in self._warnings:
            if (warned.code, warned.layer) not in self._told:
                self._told.add((warned.code, warned.layer))
                warnings.warn(str(warned), AttentionWarning, stacklevel=5)

    def _returned(self, output: Any) -> Any:
        if self._replace:
            output = self._only_map().values
        elif self._return_attention:
            output = (output, self._only_map().values)
        return (output, self.scores()) if self._return_score else output

    def _only_map(self) -> AttentionMap:
        if len(self._maps) != 1:
            listed = ", ".join(f"{one.layer}/{one.target}" for one in self._maps)
            raise InputError(
                f"a single map can be returned, this forward made {len(self._maps)}: {listed}. Choose "
                "one layer and one target, or fuse the layers"
            )
        return self._maps[0]

    # What the module gains.

    def attention_maps(self) -> list[AttentionMap]:
        """The maps of the last call, in the order of the targets, and for each of the layers."""
        return list(self._maps)

    def warnings(self) -> list[Warned]:
        """What the last call warns of; docs/diagnostics.md explains each code."""
        return list(self._warnings)

    def scores(self) -> list[_files.Score]:
        """The scores of the last call's maps, with `evaluate`."""
        return list(self._scores)

    def get_layers(self, reverse: bool = False) -> list[str]:
        """The names of the layers, parents before their children, or the other way round. Before a call
        or `test_run` has shown which run, those of all modules."""
        if self._explainer.layers is not None:
            names = [layer.name for layer in self._explainer.layers]
        else:
            names = [name for name, _ in self._inner.named_modules() if name]
        return names[::-1] if reverse else names

    def get_attention_map(self) -> numpy.ndarray | None:
        """The only map of the last call, `(B, 1, [D,] H, W)` float32; None if it made none or several."""
        return self._maps[0].values.cpu().numpy() if len(self._maps) == 1 else None

    def save_attention_map(self, attention_map: Any) -> list[str]:
        """Writes a map `(B, 1, [D,] H, W)` or `([D,] H, W)` into `output_dir`; returns the files."""
        folder = self._saving.wanted.folder
        if folder is None:
            raise InputError("save_attention_map: no folder; inject with output_dir")
        values = in_numpy("save_attention_map", attention_map)
        if values.ndim in (2, 3):
            values = values[None, None]
        layer = self._maps[0].layer if self._maps else "attention_map"
        name = f"attention_map_{self._calls:06}"
        return _files.save_maps(folder, layer, None, values, name)

    def replace_output(self, replace: bool) -> None:
        """Whether later calls return the map in place of the output."""
        self._replace = bool(replace)

    def enable_medcam(self) -> None:
        """Makes maps from now on."""
        self._enabled = True

    def disable_medcam(self) -> None:
        """Makes no maps from now on: the module is as if it were not injected."""
        self._enabled = False

    def set_data_shape(self, data_shape: Any) -> None:
        """Sets the size of the maps of later calls, as `inject` takes it."""
        self._data_shape = checked_size(data_shape)

    def set_label(self, label: Any) -> None:
        """Sets what later calls explain, as `inject` takes it."""
        self._targets = _targets.parse(label)

    def test_run(self, *args: Any, **kwargs: Any) -> list[str]:
        """The names of the layers that can carry a map for a batch like this one, found with one
        forward of its first sample. With `output_dir` also written to `registered_layers.txt`."""
        with self._run_alone():
            layers = self._explainer.find(self._inner, args, kwargs)
        names = [layer.name for layer in layers if layer.can_carry_map]
        folder = self._saving.wanted.folder
        if folder is not None:
            path = folder / "registered_layers.txt"
            try:
                path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            except OSError as error:
                raise FileError(error.errno, f"cannot write {path}: {error.strerror}") from error
        return names

    def dump(self) -> list[str]:
        """Completes the archive, writes the scores of all calls, and returns the files."""
        with self._lock:
            layers = self._explainer.layers or ()
            return self._saving.dump([layer.name for layer in layers])

    def attach(self) -> None:
        """Makes this the module's forward, and gives it the methods that it has none of yet."""
        found = self._model.__dict__
        if "forward" in found:
            self._before["forward"] = found["forward"]
        taken = [name for name in METHODS if hasattr(self._model, name)]
        if taken:
            warnings.warn(
                f"the model has {', '.join(taken)} of its own, which stay: call them of model.forward, "
                f"as in model.forward.{taken[0]}()",
                AttentionWarning,
                stacklevel=3,
            )
        self._added = [name for name in METHODS if name not in taken]
        for name in self._added:
            found[name] = getattr(self, name)
        found["forward"] = self

    def eject(self) -> None:
        """Makes the module what it was before `inject`, object by object, and dumps what is open."""
        found = self._model.__dict__
        if found.get("forward") is not self:
            raise InputError("eject: the model's forward was replaced after inject; put it back first")
        for name in self._added:
            found.pop(name, None)
        if "forward" in self._before:
            found["forward"] = self._before["forward"]
        else:
            del found["forward"]
        if self._saving.is_open:
            self.dump()


@contextmanager
def _out_of_inference_mode() -> Iterator[None]:
    """`torch.no_grad` where `torch.inference_mode` is on: there is no autograd in that."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def inside(model: nn.Module) -> nn.Module:
    """The network in a DataParallel or DistributedDataParallel; any other is itself."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model


def checked_size(data_shape: Any) -> Any:
    """`default`, None or a tuple of 2 or 3 whole numbers."""
    if data_shape is None or (isinstance(data_shape, str) and data_shape == "default"):
        return data_shape
    try:
        size = tuple(int(extent) for extent in data_shape)
        fits = len(size) in (2, 3) and min(size) > 0
        fits = fits and all(int(extent) == extent for extent in data_shape)
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise InputError(
            f"data_shape: {data_shape!r}; it takes 'default', None, (H, W) or (D, H, W)"
        )
    return size
