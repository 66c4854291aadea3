"""MONAI (package `monai`).

| patched | what runs in the kernels |
|---|---|
| `GradCAM.compute_map` | all of it |
| `GradCAMpp.compute_map` | all of it |
| `CAMBase._upsample_and_post_process` (all three CAM classes) | resampling and normalising |
| `_AutoGradReLU.backward` (`GuidedBackpropGrad`, `GuidedBackpropSmoothGrad`) | the rule at a ReLU |

**Convention.** Resampled to the input's grid first, normalised afterwards, and turned round: the
minimum becomes 1, the maximum 0. A constant map keeps its value, so a map of zeros stays 0, which
reads as "maximum". Results are plain tensors `(B, 1, [D,] H, W)` of f32 on the input's device; they
do not go through NumPy, so maps of a GPU stay there. `GradCAMpp` has the denominator `2·G² +
sum(A·G³) + 1e-7`.

**Right without a fix**, because MONAI gives NaN or raises there: `exp(score)` of scores above 88,
`GradCAMpp` for more than one sample, and in segmentation for layers that are not of full
resolution; bf16.

**Differs.** `compute_map` returns a tensor without a graph; MONAI's hangs on the activation's. With
`retain_graph=True` MONAI's own runs.

**Not patched.** `CAM.compute_map`: a linear layer at each voxel, not a weighted sum. Custom
upsamplers and post-processings, which are called as before; `default_upsampler` and
`default_normalizer` called by hand. `VanillaGrad`, `SmoothGrad`: nothing but autograd.
`OcclusionSensitivity`: forward passes.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import medcam_rs

from .._chains import Denominator
from . import _tensors

PACKAGE = "monai"
VERSIONS = ("1.6.1",)
FIXES = {
    "gradcampp_score": "`GradCAMpp` leaves exp(score) out everywhere. MONAI's varies over the map "
    "in segmentation; with as many samples as the layer is wide, it gives each column the score of "
    "another sample",
    "gradcampp_epsilon": "`GradCAMpp` has no 1e-7 in its denominator, which outweighs gradients "
    "below 2e-4",
}
FLAGS: dict[str, tuple[str, ...]] = {}


def patches(fixes: frozenset[str]) -> list[tuple[Any, str, Any]]:
    """What replaces what; the library is imported here."""
    from monai.utils import convert_to_dst_type
    from monai.visualize import class_activation_maps, gradient_based

    base, grad_cam = class_activation_maps.CAMBase, class_activation_maps.GradCAM
    grad_cam_pp = class_activation_maps.GradCAMpp
    relu = gradient_based._AutoGradReLU
    denominator: Denominator = "m3dcam" if "gradcampp_epsilon" in fixes else "m3dcam+1e-7"

    original_grad_cam: Any = grad_cam.compute_map
    original_grad_cam_pp: Any = grad_cam_pp.compute_map
    original_post_process = base._upsample_and_post_process
    original_backward = relu.backward
    # What the constructors have as defaults, whatever the modules hold by now.
    upsampler = class_activation_maps.default_upsampler
    normalizer = class_activation_maps.default_normalizer

    def compute_map(
        self: Any,
        x: Tensor,
        class_idx: Any = None,
        retain_graph: bool = False,
        layer_idx: int = -1,
        **kwargs: Any,
    ) -> Tensor:
        if retain_graph:
            return original_grad_cam(self, x, class_idx, retain_graph, layer_idx, **kwargs)
        _, acti, grad = self.nn_module(x, class_idx=class_idx, retain_graph=False, **kwargs)
        acti, grad = acti[layer_idx], grad[layer_idx]
        if _tensors.usable(acti, grad):
            activation, gradient = _tensors.dense(acti, grad)
            try:
                heat = medcam_rs.cam(activation, gradient, "gradcam", normalize=False)
                return as_their_map(heat, acti)
            except medcam_rs.MedcamError as error:
                _tensors.fall_back(error)
        return original_grad_cam(replay(self, acti, grad), x)

    def compute_map_pp(
        self: Any,
        x: Tensor,
        class_idx: Any = None,
        retain_graph: bool = False,
        layer_idx: int = -1,
        **kwargs: Any,
    ) -> Tensor:
        if retain_graph:
            return original_grad_cam_pp(self, x, class_idx, retain_graph, layer_idx, **kwargs)
        _, acti, grad = self.nn_module(x, class_idx=class_idx, retain_graph=False, **kwargs)
        acti, grad = acti[layer_idx], grad[layer_idx]
        score = self.nn_module.score
        if not _tensors.usable(acti, grad):
            return original_grad_cam_pp(replay(self, acti, grad), x)
        # A single score is one factor of all weights, which normalising cancels.
        if score.numel() > 1 and "gradcampp_score" not in fixes and spreads(score, grad):
            theirs = original_grad_cam_pp(replay(self, acti, grad), x)
            if bool(theirs.isfinite().all()):
                return theirs
        activation, gradient = _tensors.dense(acti, grad)
        try:
            heat = medcam_rs.cam(
                activation, gradient, "gradcam++", denominator=denominator, normalize=False
            )
            return as_their_map(heat, acti)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_grad_cam_pp(replay(self, acti, grad), x)

    def upsample_and_post_process(self: Any, acti_map: Tensor, x: Tensor) -> Any:
        defaults = self.upsampler is upsampler and self.postprocessing is normalizer
        size = tuple(x.shape[2:])
        if not defaults or not _tensors.usable(acti_map) or len(size) != acti_map.dim() - 2:
            return original_post_process(self, acti_map, x)
        # Of a CAM's map there is one channel, and MONAI scales all channels of a sample together.
        if acti_map.shape[1] != 1:
            return original_post_process(self, acti_map, x)
        (layer_map,) = _tensors.dense(acti_map)
        try:
            heat = medcam_rs.resample(layer_map[:, 0].float().contiguous(), size, normalize=True)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_post_process(self, acti_map, x)
        constant = heat.flatten(1).amax(1) == 0
        heat.neg_().add_(1.0)
        if bool(constant.any()):
            heat[constant] = layer_map.flatten(1)[constant, 0].float().view(-1, *[1] * len(size))
        return heat[:, None]

    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        x, _ = ctx.saved_tensors
        # With create_graph=True a second derivative may follow.
        if not torch.is_grad_enabled() and _tensors.usable(x, grad_output):
            try:
                return medcam_rs.guided_activation(*_tensors.dense(x, grad_output))
            except medcam_rs.MedcamError as error:
                _tensors.fall_back(error)
        return original_backward(ctx, grad_output)

    def as_their_map(heat: Tensor, acti: Tensor) -> Tensor:
        # Of the activation's type, so a MetaTensor where that is one.
        return convert_to_dst_type(heat[:, None].to(acti.dtype), acti)[0]

    return [
        (grad_cam, "compute_map", compute_map),
        (grad_cam_pp, "compute_map", compute_map_pp),
        (base, "_upsample_and_post_process", upsample_and_post_process),
        (relu, "backward", staticmethod(backward)),
    ]


def replay(cam: Any, acti: Tensor, grad: Tensor) -> SimpleNamespace:
    """Stands for `cam` in MONAI's `compute_map`: the network has run, and does not run again."""

    class Recorded:
        score = cam.nn_module.score

        def __call__(self, *_: Any, **__: Any) -> tuple[None, tuple[Tensor], tuple[Tensor]]:
            return None, (acti,), (grad,)

    return SimpleNamespace(nn_module=Recorded())


def spreads(score: Tensor, grad: Tensor) -> bool:
    """Whether `score * grad` has the shape of `grad`: MONAI then gives a map, else it raises."""
    try:
        return torch.broadcast_shapes(score.shape, grad.shape) == grad.shape
    except RuntimeError:
        return False
