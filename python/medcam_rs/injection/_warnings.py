"""What an explanation warns of beside the values of its maps; the words of `src/explain/warnings.rs`."""

from __future__ import annotations

from collections import Counter

from torch import nn

from ._guided import Gates, listed
from ._layers import Selected
from ._maps import Warned
from ._targets import Named
from ._modules import modules_of

def partly_guided(gates: Gates) -> list[Warned]:
    """Warns of activations that a guided method leaves unguided while it guides others."""
    left_out, advice = gates.left_out()
    if not left_out:
        return []
    what = (
        f"ReLU is guided, {left_out} are not, so the map is between guided backpropagation and the "
        f"plain gradient. {advice}"
    )
    return [Warned("PARTLY_GUIDED", what)]


def of_layer(layer: Selected) -> list[Warned]:
    """Warns of a layer whose map may say less than it seems to."""
    found = []
    if layer.channels_last:
        found.append(
            (
                "CHANNELS_LAST",
                "its output was read as (B, [D,] H, W, C), as transformers have it. Check in its shape "
                "that the last axis is the channels",
            )
        )
    if layer.redraws_output:
        found.append(
            (
                "REDRAWS_OUTPUT",
                "only pointwise steps come between it and the score, so the gradient is the same at "
                "every voxel and the map only redraws the output. Take a layer further from it, as auto "
                "does",
            )
        )
    if layer.regrids_one_voxel:
        found.append(
            (
                "NO_IMAGE",
                "it pads or resizes a single voxel, so the map has the same form for every image. Take "
                "a layer that still has more than one, as auto does",
            )
        )
    return [Warned(code, f"layer '{layer.label}': {what}", layer.label) for code, what in found]


def empty(one: Named, samples: list[int]) -> list[Warned]:
    """Warns of samples whose score sums over no voxel."""
    if one.target.kind == "predicted":
        what = f"nothing is predicted as class {one.target.number}"
    elif one.target.component is not None:
        what = f"there is no {one.label} here"
    else:
        what = "the target mask has no voxel"
    return [
        Warned(
            "EMPTY_TARGET",
            f"sample {sample}: {what}, so the map is zero. Take another class or region",
            sample=sample,
        )
        for sample in samples
    ]


_RANDOM = (nn.modules.dropout._DropoutNd,)
_OF_BATCH = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def training(model: nn.Module) -> list[Warned]:
    """Warns of modules that act as in training."""
    random: Counter[str] = Counter()
    of_batch: Counter[str] = Counter()
    for module in modules_of(model):
        if isinstance(module, _RANDOM):
            if module.training and module.p > 0:
                random[type(module).__name__] += 1
        elif isinstance(module, _OF_BATCH):
            is_instance = isinstance(module, nn.modules.instancenorm._InstanceNorm)
            learned = module.running_mean is not None
            if (learned and module.training) or not (learned or is_instance):
                of_batch[type(module).__name__] += 1
    seen = []
    if random:
        seen.append(
            f"{listed(random)}: it draws random numbers, so output and map change from run to run"
        )
    if of_batch:
        seen.append(
            f"{listed(of_batch)}: it normalises with the statistics of its input instead of those it "
            "learned, so output and map are not those of evaluation, and behind a batch norm those of a "
            "sample depend on the others of its batch"
        )
    if not seen:
        return []
    what = f"the model has steps that act as in training: {'; '.join(seen)}. Call model.eval() first"
    return [Warned("TRAINING_MODE", what)]
