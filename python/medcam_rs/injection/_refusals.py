"""What is said of layers that cannot carry a map; in the words of `src/torch/layers/refusals.rs`."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ._layers import Layer, Layers

ONLY_MODULES = "Only modules can be layers, not operations that a forward calls as functions"


def without_batch(shape: tuple[int, ...], extent: int, batch: int) -> str:
    """Of an output whose axis 0 has `extent` places for a batch of `batch`."""
    return (
        f"the output of shape {list(shape)} has {extent} along its first axis for a batch of "
        f"{batch}: its first axis is not the batch, but flips, crops or windows that the model "
        "stacks. Inject the model without such test-time augmentation"
    )


def unknown_layer(layers: Layers, name: str) -> InputError:
    """Of a name that no layer has."""
    names = [layer.name for layer in layers]
    if name in layers.returned:
        inside = [layer for layer in names if layer.startswith(f"{name}.")]
        what = f"Take a layer inside, such as '{inside[-1]}', or one" if inside else "Take a layer"
        return InputError(
            f"layer '{name}' cannot carry a map: it returns {layers.returned[name]}, and a map needs "
            f"a single tensor. {what} behind it"
        )
    if name in layers.registered:
        inside = [layer for layer in names if layer.startswith(f"{name}.")]
        what = f"Take a layer inside, such as '{inside[-1]}'" if inside else _all(near(name, names))
        return InputError(
            f"layer '{name}' cannot carry a map: the module did not run it for this input. {what}"
        )
    return InputError(
        f"layer '{name}': the network has none of this name. {_all(near(name, names))}"
    )


def near(name: str, names: Iterable[str]) -> list[str]:
    """The five names that are most like one."""

    def key(known: str) -> tuple[bool, float, str]:
        contained = known in name or name in known
        return (not contained, -SequenceMatcher(None, name, known).ratio(), known)

    return sorted(names, key=key)[:5]


def _all(near: list[str]) -> str:
    if not near:
        return f"It has no layers at all. {ONLY_MODULES}"
    return f"Near it: {', '.join(near)}. All of them: get_layers()"


def cannot_carry(layers: Layers, layer: Layer) -> InputError:
    """Of a layer that cannot carry a map."""
    auto = layers.auto()
    other = f" Layer auto would take is '{auto.name}'." if auto else ""
    spatial = len(layer.shape) >= 4 and layer.voxels > 1
    if not layer.is_floating_point:
        why = "its output is not floating point, so it has no gradient"
    elif layer.is_product:
        why = f"its output of shape {list(layer.shape)} is no image, but attention weights or windows"
    elif spatial and not layer.has_batch:
        why = without_batch(layer.shape, layer.shape[0], layers.batch)
    elif spatial:
        why = "no gradient reaches it: the score does not depend on it"
    else:
        why = f"its output of shape {list(layer.shape)} has no spatial extent"
    return InputError(f"layer '{layer.name}' cannot carry a map: {why}.{other}")


def no_auto(layers: Layers) -> InputError:
    """Of a network of which `auto` takes no layer."""
    best = layers.best_by_hand()
    if best is None:
        return no_layer(layers)
    if not best.shows_image:
        why = (
            "only pad, crop or resize others, or come from a single voxel, so that a map shows "
            "nothing of the image"
        )
    elif best.channels == 1:
        why = "have a single channel, which a map could only repeat"
    elif best.weights_cancel:
        why = (
            "have weights that cancel in front of an instance norm, so that Grad-CAM's map is "
            "rounding noise"
        )
    else:
        why = (
            "are separated from the score by pointwise steps and resizing alone, so that a map only "
            "redraws the output"
        )
    return InputError(
        f"layer auto: this network has no good one. Those that can carry a map {why}. The best of "
        f"them to take by hand: layer='{best.name}'. {ONLY_MODULES}"
    )


def no_layer(layers: Layers) -> InputError:
    """Of a network without a layer that can carry a map."""
    images = [layer for layer in layers if layer.is_floating_point and len(layer.shape) >= 4]
    stacked = [layer for layer in images if not layer.has_batch]
    large = [layer for layer in images if layer.voxels > 1]
    if stacked:
        why = f"of layer '{stacked[-1].name}' "
        why += without_batch(stacked[-1].shape, stacked[-1].shape[0], layers.batch)
    elif not list(layers) and layers.registered:
        why = (
            f"its forward runs none of its {len(layers.registered)} submodules. {ONLY_MODULES}. Of a "
            "program of torch.export, inject torch.export.unflatten(program), whose modules run"
        )
    elif not list(layers):
        why = f"it has no submodules. {ONLY_MODULES}"
    elif large:
        why = (
            f"no gradient reaches those with more than one voxel, such as '{large[-1].name}': the "
            "score does not depend on them"
        )
    else:
        why = f"none has an output with more than one voxel. {ONLY_MODULES}"
    return InputError(f"no layer of this network can carry a map: {why}")
