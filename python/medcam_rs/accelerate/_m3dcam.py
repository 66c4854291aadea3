"""M3d-CAM (package `medcam`).

| patched | what runs in the kernels |
|---|---|
| `GradCAM._generate_helper` (`gcam`, and `gcam` in `ggcam`) | all of it |
| `GradCamPP._generate_helper` (`gcampp`) | all of it |
| `GuidedGradCam.generate` (`ggcam`) | resizing, product and normalising, as one call |
| `GuidedBackPropagation.generate`, `GuidedGradCam._generate_gbp` | the mean over channels |
| `_BaseWrapper._normalize_per_channel`, `GuidedGradCam._normalize_per_channel` | all of it |
| `medcam_utils.interpolate` | bilinear and trilinear |

**Convention.** ReLU, then each map to [0, 1] on the layer's grid, without epsilon; later resized to
the input's grid, where its maximum is below 1. Maps are `(B, 1, [D,] H, W)`, as M3d-CAM's;
dictionaries of NumPy arrays stay what they are. `gcampp` has the denominator `2·G² + sum(A·G³) +
1e-7`.

**Right without a fix**, because M3d-CAM gives NaN or raises there: a constant map beside others
that are not is 0; `exp(score)` of scores above 88 no longer makes `gcampp` NaN; bf16 gives f32
maps; `gcampp` runs in batches of 3D classification and, in segmentation, for layers of any number
of channels.

**Not patched.** What `gbp` does at a ReLU: M3d-CAM clamps one tensor in place of the gradient, and
there is nothing to fuse. `_compute_grad_weights`: only the search for the `auto` layer still calls
it. `medcam_utils.normalize` and all that writes pictures: float64, and cold. Models with
`medcam_dict['channels']` other than 1, which M3d-CAM never sets itself, keep M3d-CAM's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import medcam_rs

from .._chains import Denominator
from . import _tensors

PACKAGE = "medcam"
VERSIONS = ("0.1.22",)
FIXES = {
    "guided_gradcam_batch": "each sample of `ggcam` is normalised by its own range, not by that of "
    "the first sample",
    "gradcampp_score": "`gcampp` leaves exp(score) out everywhere. M3d-CAM's varies over the map "
    "in segmentation, and for several samples in 2D classification, where M3d-CAM resizes the "
    "matrix of logits to the map",
    "gradcampp_epsilon": "`gcampp` has no 1e-7 in its denominator, which outweighs gradients below "
    "2e-4",
}
FLAGS: dict[str, tuple[str, ...]] = {}


def patches(fixes: frozenset[str]) -> list[tuple[Any, str, Any]]:
    """What replaces what; the library is imported here."""
    from medcam import medcam_utils
    from medcam.backends.base import _BaseWrapper
    from medcam.backends.grad_cam import GradCAM
    from medcam.backends.grad_cam_pp import GradCamPP
    from medcam.backends.guided_backpropagation import GuidedBackPropagation
    from medcam.backends.guided_grad_cam import GuidedGradCam

    original_grad_cam: Any = GradCAM._generate_helper
    original_grad_cam_pp = GradCamPP._generate_helper
    original_normalize = _BaseWrapper._normalize_per_channel
    original_guided = GuidedGradCam.generate
    original_normalize_guided = GuidedGradCam._normalize_per_channel
    original_interpolate = medcam_utils.interpolate
    pooling = GradCAM._compute_grad_weights
    denominator: Denominator = "m3dcam" if "gradcampp_epsilon" in fixes else "m3dcam+1e-7"

    def applies(self: Any, fmaps: Any, grads: Any) -> bool:
        return (
            self.output_channels == 1
            and type(self)._compute_grad_weights is pooling
            and type(self)._normalize_per_channel is normalize_per_channel
            and _tensors.usable(fmaps, grads)
            and fmaps.dim() == self.input_dim + 2
        )

    def grad_cam_map(self: Any, fmaps: Any, grads: Any, layer: str) -> Tensor:
        if not applies(self, fmaps, grads):
            return original_grad_cam(self, fmaps, grads, layer)
        activation, gradient = _tensors.dense(fmaps, grads)
        try:
            heat = medcam_rs.cam(activation, gradient, "gradcam")
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_grad_cam(self, fmaps, grads, layer)
        return _as_array_type(heat, fmaps.dtype)[:, None]

    def grad_cam_pp_map(self: Any, fmaps: Any, grads: Any, layer: str) -> Tensor:
        if not applies(self, fmaps, grads):
            return original_grad_cam_pp(self, fmaps, grads, layer)
        # The score of a single sample is one factor of all weights, and normalising cancels it.
        cancels = self.logits.dim() == 2 and self.logits.shape[0] == 1
        if not cancels and "gradcampp_score" not in fixes:
            try:
                theirs = original_grad_cam_pp(self, fmaps, grads, layer)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError):
                theirs = None
            if theirs is not None and bool(theirs.isfinite().all()):
                return theirs
        activation, gradient = _tensors.dense(fmaps, grads)
        try:
            heat = medcam_rs.cam(activation, gradient, "gradcam++", denominator=denominator)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_grad_cam_pp(self, fmaps, grads, layer)
        return _as_array_type(heat, fmaps.dtype)[:, None]

    def channel_mean(gradient: Tensor, channels: int) -> Tensor:
        mean = None
        if _tensors.usable(gradient):
            try:
                mean = medcam_rs.channel_mean(*_tensors.dense(gradient))[:, None]
            except medcam_rs.MedcamError as error:
                _tensors.fall_back(error)
        if mean is None:
            mean = gradient.mean(dim=1, keepdim=True)
        return _as_array_type(mean.repeat(1, channels, *[1] * (mean.dim() - 2)), gradient.dtype)

    def guided_map(self: Any) -> dict[str, np.ndarray]:
        mean = channel_mean(self.data.grad, self.output_channels)
        self.data.grad.zero_()
        return {"": self._normalize_per_channel(mean).cpu().numpy()}

    def guided_map_of_grad_cam(self: Any, batch: Tensor, label: Any) -> dict[str, np.ndarray]:
        self.model_GBP.forward(batch)
        self.model_GBP.backward(label=label)
        mean = channel_mean(self.model_GBP.data.grad, self.model_GBP.output_channels)
        self.model_GBP.data.grad.zero_()
        return {"": mean.cpu().numpy()}

    def normalize_per_channel(self: Any, attention_map: Tensor) -> Tensor:
        if not _tensors.usable(attention_map):
            return original_normalize(self, attention_map)
        maps = attention_map.detach().float().flatten(0, 1).contiguous()
        try:
            unit = medcam_rs.normalize(maps)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_normalize(self, attention_map)
        return unit.view(attention_map.shape).to(attention_map.dtype)

    def guided_product(self: Any) -> dict[str, np.ndarray]:
        guided, heats = self.attention_map_GBP, self.attention_map_GCAM
        fits = all(
            array.dtype == np.float32 and array.ndim == guided.ndim and array.shape[1] == 1
            for array in (guided, *heats.values())
        )
        own_range = len(guided) == 1 or "guided_gradcam_batch" in fixes
        if not fits or type(self)._normalize_per_channel is not normalize_guided:
            return original_guided(self)
        try:
            products = {
                layer: medcam_rs.guided_product(
                    np.ascontiguousarray(heat[:, 0]),
                    np.ascontiguousarray(guided[:, 0]),
                    normalize=own_range,
                )[:, None]
                for layer, heat in heats.items()
            }
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_guided(self)
        for layer, product in products.items():
            heats[layer] = product if own_range else self._normalize_per_channel(product)
        return heats

    def normalize_guided(self: Any, attention_map: np.ndarray) -> np.ndarray:
        # With the range of the first sample, which is that of all if there is no other. Where the
        # first is constant, M3d-CAM divides by 0.
        alone = len(attention_map) == 1 or "guided_gradcam_batch" in fixes
        alone = alone or np.ptp(attention_map[0]) == 0
        if not alone or attention_map.dtype != np.float32 or attention_map.ndim not in (4, 5):
            return original_normalize_guided(self, attention_map)
        maps = np.ascontiguousarray(attention_map).reshape(-1, *attention_map.shape[2:])
        try:
            return medcam_rs.normalize(maps).reshape(attention_map.shape)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_normalize_guided(self, attention_map)

    def interpolate(data: Any, shape: Sequence[int], squeeze: bool = False) -> Any:
        takes = isinstance(data, np.ndarray) and data.dtype in (np.float32, np.float16)
        if isinstance(data, Tensor):
            takes = _tensors.usable(data) and data.dtype == torch.float32
            takes = takes and not _tensors.differentiates(data)
        if not takes or data.ndim not in (4, 5) or len(shape) != data.ndim - 2 or not len(data):
            return original_interpolate(data, shape, squeeze)
        size = tuple(int(extent) for extent in shape)
        maps = data.reshape(-1, *data.shape[2:])
        if isinstance(data, Tensor):
            maps = maps.detach().contiguous()
        else:
            maps = np.ascontiguousarray(maps, dtype=np.float32)
        try:
            resized = medcam_rs.resample(maps, size).reshape(*data.shape[:2], *size)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_interpolate(data, shape, squeeze)
        return resized.astype(data.dtype, copy=False) if isinstance(data, np.ndarray) else resized

    return [
        (GradCAM, "_generate_helper", grad_cam_map),
        (GradCamPP, "_generate_helper", grad_cam_pp_map),
        (GuidedBackPropagation, "generate", guided_map),
        (GuidedGradCam, "_generate_gbp", guided_map_of_grad_cam),
        (GuidedGradCam, "generate", guided_product),
        (_BaseWrapper, "_normalize_per_channel", normalize_per_channel),
        (GuidedGradCam, "_normalize_per_channel", normalize_guided),
        (medcam_utils, "interpolate", interpolate),
    ]


def _as_array_type(heat: Tensor, dtype: torch.dtype) -> Tensor:
    # NumPy has no bf16, so M3d-CAM fails with it; a map of f32 is one that it can go on with.
    return heat if dtype == torch.bfloat16 else heat.to(dtype)
