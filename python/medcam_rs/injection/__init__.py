"""Attention maps of a PyTorch module as it runs: `inject`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from .._files import path_of, prepare_folder
from ..errors import DtypeError, InputError
from . import _targets
from ._explain import Explainer, Settings
from ._injection import Injection, checked_size, inside
from ._maps import METHODS, AttentionMap, AttentionWarning, Warned
from ._sample import check
from ._saving import Saving, Wanted
from ._trees import Pick

__all__ = ["AttentionMap", "AttentionWarning", "Injection", "Warned", "inject"]

Module = TypeVar("Module", bound=nn.Module)


def inject(
    model: Module,
    output_dir: str | Path | None = None,
    backend: Literal["gcam", "gcampp", "gbp", "ggcam", "hirescam", "layercam"] = "gcam",
    layer: str | list[str] = "auto",
    label: Any = "best",
    data_shape: Any = "default",
    save_maps: bool = False,
    save_pickle: bool = False,
    save_scores: bool = False,
    evaluate: bool = False,
    metric: str | tuple[str, ...] | Callable[..., float] = "wioa",
    threshold: float | Literal["otsu"] = "otsu",
    retain_graph: bool = False,
    return_score: bool = False,
    replace: bool = False,
    return_attention: bool = False,
    cudnn: bool = True,
    enabled: bool = True,
    *,
    output: int | str | None = None,
    score_at: Literal["logits", "output"] = "logits",
    guide: Literal["relu", "all"] = "relu",
    fuse: Literal["mean", "max"] | None = None,
    masks: Literal["detect", "binary", "labels"] = "detect",
    save_archive: str | Path | bool = False,
) -> Module:
    """Has a module make attention maps as it runs, and returns it: the same object.

    Each call `model(batch)` gives the module's own output, bit for bit, without its graph, and makes
    maps `(B, 1, [D,] H, W)` float32 in [0, 1], one for each sample, layer and target. Nothing but
    `model.forward` and the methods below is added, and `model.eject()` takes them away again.

    >>> import torch
    >>> from medcam_rs import inject
    >>> seeded = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(),
    ...     torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2),
    ... ).eval()
    >>> model = inject(model, layer="1", label=1)
    >>> model(torch.rand(2, 1, 8, 10, 12)).shape
    torch.Size([2, 2])
    >>> [(one.layer, one.target, tuple(one.values.shape)) for one in model.attention_maps()]
    [('1', 'class1', (2, 1, 8, 10, 12))]
    >>> model.eject()

    One forward and, for each target, one backward, which goes from the score back to the first of the
    layers and no further: up to there no graph is kept. The gradient `G` of the score with respect to a
    layer's activation `A` becomes its map when it arrives, and is dropped:

    | backend | map, before it is resampled and normalised |
    |---|---|
    | `gcam` | Grad-CAM: `ReLU(sum_c w·A)`, `w[b,c] = mean_n G` |
    | `gcampp` | Grad-CAM++: the same, `w[b,c] = sum_n alpha·ReLU(G)`, see `alpha_weights` |
    | `hirescam`, `layercam` | `ReLU(sum_c G·A)`, `ReLU(sum_c ReLU(G)·A)` |
    | `gbp` | Guided Backpropagation: the mean over the input's channels of the guided gradient; signed |
    | `ggcam` | Guided Grad-CAM: that of `gcam`, resampled, times that of `gbp`; signed |

    The first three parameters and their order are M3d-CAM's, as are all but those by keyword.

    Parameters:

    - `model`: a `torch.nn.Module` of inputs `(B, C, H, W)` or `(B, C, D, H, W)`, the first tensor of a
      call, and of outputs `(B, K)` or `(B, K, [D,] H, W)`, on the CPU or a CUDA device, in float32,
      float16, bfloat16 or float64, whose activations and gradients go to the kernels as float32. It runs
      in the mode that it is in: call `eval()` first. A `DataParallel` or `DistributedDataParallel` runs
      the module in it, on one device. What is compiled, scripted or exported is refused: inject the
      module that it was made of.
    - `output_dir`: the folder of what is written, made where it is missing.
    - `backend`: the method, see above.
    - `layer`: `"auto"` (the last layer with an image in classification, the bottleneck in
      segmentation), `"full"` (all that can carry a map), a name of `named_modules()`, or a list of
      names. `"NAME#k"` is the k-th run of a layer that runs several times, from 1; `"NAME"` the last.
      `gbp` takes none.
    - `label`: the score that is explained. `y` is the output, before a softmax or sigmoid that ends it
      (`score_at`):

      | `label` | the score of sample `b` |
      |---|---|
      | `"best"` | of the class with the highest score; in segmentation of that predicted for the most voxels, class 0 only if there is no other |
      | `k` | `y[b,k]`, in segmentation `sum_n y[b,k,n]` |
      | `[k_0, k_1, ...]` | the same, one class for each sample |
      | `None`, `"all"` | the sum of all outputs |
      | `"predicted:k"` | of class `k`, summed over the voxels that are predicted as it |
      | `(k, mask)`, `("best", mask)` | `sum_n mask[b,n]·y[b,k,n]`; the mask is `([D,] H, W)` or `(B, [D,] H, W)` |
      | a function `f` | `sum f(y)`. It must not mix samples. M3d-CAM's returns a mask, where this is `mask(y) * y` |
      | `"each"` | each class, with a map of its own |
      | `"components:k"` | each connected component of the voxels predicted as `k`, such as each lesion, with a map of its own: the 64 largest |
      | a tuple of these | each, with maps of its own |

    - `data_shape`: the size of the maps: `"default"` (the input's), `(H, W)` or `(D, H, W)`, or None
      (the layer's, for `gbp` and `ggcam` the input's). Maps are resampled linearly, then normalised.
    - `save_maps`: writes each call's maps into `output_dir/LAYER`.
    - `save_pickle`: refused; `save_archive` in its place, whose file runs no code when it is read.
    - `save_scores`: `model.dump()` writes the scores of all calls into `output_dir`.
    - `evaluate`, `metric`, `threshold`, `masks`: scores each map against the call's `mask`, see
      `medcam_rs.score`. `masks` says whether a mask is 0 and 1 (`"binary"`) or has a class at each voxel
      (`"labels"`); `"detect"` tells from its values, and refuses what may be either.
    - `retain_graph`, `cudnn`: accepted and without effect: targets share a forward, and PyTorch decides
      over cuDNN.
    - `return_score`: calls return `(output, scores)`.
    - `replace`, `return_attention`: calls return the map, or `(output, map)`; there must be one map.
    - `enabled`: whether maps are made, until `enable_medcam()` or `disable_medcam()`.
    - `output`: which of several tensors is explained: the number of a leaf of the output, from 0, or its
      dotted name, such as `"out"` or `"0.1"`; by default the first of floating point with two axes or
      more.
    - `score_at`: `"logits"`, in front of a softmax, log-softmax or sigmoid that ends the output, or
      `"output"`, behind it, where it may be saturated.
    - `guide`: what `gbp` and `ggcam` guide: `"relu"` (as a module, a function or a method, in place or
      not, and ReLU6, and clamp, hardtanh and threshold that cut off at 0), or `"all"` (LeakyReLU, PReLU,
      RReLU, ELU, SELU, CELU, GELU, SiLU, Mish and Hardswish as well).
    - `fuse`: makes one map of all layers', by their `"mean"` or `"max"` where `data_shape` gives one
      size.
    - `save_archive`: collects the maps of all calls in one `.npz` file, this one or with True
      `output_dir/attention_maps.npz`, which `model.dump()` completes. Calls after it have a file of
      their own, `attention_maps_2.npz`.

    A call takes five more arguments by keyword; all others go to the network, whose own arguments of
    these names can be given by place: `label` (in place of the one above), `mask` (`(B, 1, [D,] H, W)`,
    with `evaluate`), `affine` (4x4, or `(B, 4, 4)`, of the NIfTI files of `save_maps`; by default that
    of the batch, if it is MONAI's `MetaTensor`), `raw_input` (the images for overlays, one for each
    sample), and `name` (of the call's files, instead of its number). The first call, and one of another
    size with `auto` and `full`, runs its first sample once more to find the layers.

    Methods that the module gains, on `model.forward` too: `attention_maps()`, `warnings()`, `scores()`,
    `get_attention_map()`, `get_layers(reverse)`, `save_attention_map(map)`, `replace_output(bool)`,
    `enable_medcam()`, `disable_medcam()`, `set_label(label)`, `set_data_shape(data_shape)`,
    `test_run(batch)`, `dump()` and `eject()`, which dumps what is open. What a map cannot say is in
    `warnings()` and, once for each code and layer, an `AttentionWarning`.

    While a call runs, parameters require no gradient, and layers have hooks; both are undone, whatever
    it raises, and no `grad` is touched. Calls of several threads take turns, but no thread may use the
    module's parts otherwise meanwhile. In transformers PyTorch picks kernels by whether a gradient is
    wanted (the fast path, products of a batch of matrices with a weight): their outputs agree with those
    of the plain module to rounding, not bit for bit.

    On CUDA a call waits once, when all of its work is enqueued. `"components:k"`, a function as `label`
    that itself waits, and `gcampp` where activations are negative wait besides; `gcampp` keeps its
    gradients up to then.

    Raises `InputError` (a `ValueError`) for options that contradict each other, an unknown layer, one
    that no gradient reaches, a class out of range, shapes that don't fit, and values that are NaN or
    infinite; `DtypeError` (a `TypeError`) for what is no module, and outputs that have no gradient;
    `FileError` (an `OSError`) for files that cannot be written.
    """
    if not isinstance(model, nn.Module):
        hint = ""
        if isinstance(model, torch.export.ExportedProgram):
            hint = ", such as torch.export.unflatten(program)"
        raise DtypeError(f"model: a {type(model).__name__}; it takes a torch.nn.Module{hint}")
    if isinstance(model.__dict__.get("forward"), Injection):
        raise InputError("model: it is injected already; call model.eject() first")
    check(inside(model))
    for name, part in inside(model).named_modules():
        if name and isinstance(part.__dict__.get("forward"), Injection):
            raise InputError(
                f"model: its submodule '{name}' is injected, whose output has no graph; call its eject() "
                "first"
            )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InputError(
            "model: its parameters were made in torch.inference_mode(), which autograd cannot use; "
            "make the module outside of it"
        )
    _one_of("backend", backend, tuple(METHODS))
    _one_of("score_at", score_at, ("logits", "output"))
    _one_of("guide", guide, ("relu", "all"))
    _one_of("fuse", fuse, (None, "mean", "max"))
    _one_of("masks", masks, ("detect", "binary", "labels"))
    if not (isinstance(output, (int, str)) or output is None) or isinstance(output, bool):
        raise InputError(f"output: {output!r}; it takes the number or the name of an output")
    if isinstance(output, int) and output < 0:
        raise InputError(f"output: {output}; outputs count from 0")
    if save_pickle:
        raise InputError(
            "save_pickle: reading a pickle runs code; take save_archive=True, an .npz file that NumPy reads"
        )
    if fuse and backend == "gbp":
        raise InputError("fuse: gbp makes one map of the input, not one of each layer")
    if save_scores and not evaluate:
        raise InputError("save_scores: there are no scores without something to measure (evaluate)")
    if replace and return_attention:
        raise InputError("replace, return_attention: the map is returned alone, or with the output")
    folder = None if output_dir is None else path_of("output_dir", output_dir)
    archive = folder and folder / "attention_maps.npz" if save_archive is True else save_archive
    if folder is None and (save_maps or save_scores or archive is None):
        raise InputError("output_dir: save_maps, save_scores and save_archive=True need a folder")
    settings = Settings(backend, _layers_of(layer), score_at, guide, fuse, Pick(output))
    wanted = Wanted(
        folder,
        save_maps,
        path_of("save_archive", archive) if archive else None,
        save_scores,
        evaluate,
        metric,
        threshold,
        masks,
    )
    injection = Injection(
        model,
        Explainer(settings),
        _targets.parse(label),
        checked_size(data_shape),
        Saving(wanted),
        replace=replace,
        return_attention=return_attention,
        return_score=return_score,
        enabled=enabled,
    )
    if folder is not None:
        prepare_folder(folder)
    injection.attach()
    return model


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    # Of an array == is an array.
    if not (value is None or isinstance(value, str)) or value not in known:
        raise InputError(f"{name}: {value!r}; it takes {', '.join(map(repr, known))}")


def _layers_of(layer: Any) -> str | list[str]:
    if isinstance(layer, str):
        return layer
    if isinstance(layer, (list, tuple)) and layer and all(isinstance(name, str) for name in layer):
        return list(layer)
    raise InputError(f"layer: {layer!r}; it takes 'auto', 'full', a name or a list of names")
