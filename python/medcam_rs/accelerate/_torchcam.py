"""TorchCAM (package `torchcam`).

| patched | what runs in the kernels |
|---|---|
| `_CAM.compute_cams` (`GradCAM`, `LayerCAM`) | weights, weighted sum, ReLU, normalising: one call |
| the same (other methods of one weight per channel) | weighted sum, ReLU, normalising |
| `GradCAMpp._get_weights` | nothing: leaves an unused denominator out; with a fix, as `GradCAM` |
| `_CAM._fuse_cams` | bilinear and trilinear |

The others are `GradCAMpp`, `SmoothGradCAMpp`, `XGradCAM`, `CAM`, `ScoreCAM`, `SSCAM`, `ISCAM`, and
`RefineCAM` and `FinerCAM` on top of them: their weights are TorchCAM's own.

**Convention.** ReLU (only where the method has one), then each map to [0, 1] on the layer's grid,
`(x - minimum) / (range + 1e-8)`: where the range is so small that the epsilon shows, it does here,
too. Maps are `(B, [D,] H, W)`, on the activation's device and of its type. Maps of f16 and bf16 are
computed in f32 and rounded once, so they differ from TorchCAM's, which rounds at each step.

**Not patched.** `_CAM._normalize` as such, which works in place: `RefineCAM`, and `ScoreCAM` on its
masks, call it. `LeGrad`: attention, no convolutions. The metrics and `explain`: forward passes and
files. `nansum`: where a product is NaN, TorchCAM's own code runs, and leaves it out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import medcam_rs

from .._chains import Method
from . import _tensors

PACKAGE = "torchcam"
VERSIONS = ("0.5.0",)
FIXES = {
    "gradcampp_denominator": "`GradCAMpp` divides by its denominator, that of the paper and of "
    "its own docstring. TorchCAM divides a copy, so its weights are sum(ReLU(G)·G²)",
}
FLAGS: dict[str, tuple[str, ...]] = {}
_EPSILON = 1e-8
# Values in each block of an elementwise formula: the f32 temporaries of a block fit into 1 MiB of
# cache. On a GPU, blocks that small would cost more in launches than in work.
_BLOCK = 1 << 16
_BLOCK_OF_GPU = 1 << 24


def patches(fixes: frozenset[str]) -> list[tuple[Any, str, Any]]:
    """What replaces what; the library is imported here."""
    from torchcam.methods import core, gradient

    base = core._CAM
    original_compute = base.compute_cams
    original_fuse = base._fuse_cams
    original_weights = gradient.GradCAMpp._get_weights
    normalize = base._normalize
    methods: dict[Any, Method] = {
        gradient.GradCAM._get_weights: "gradcam",
        gradient.LayerCAM._get_weights: "layercam",
    }
    if "gradcampp_denominator" in fixes:
        methods[original_weights] = "gradcam++"

    def compute_cams(
        self: Any,
        class_idx: Any = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: Any = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        replaced = {"_get_weights", "_normalize"} & vars(self).keys()
        if replaced or type(self)._normalize is not normalize:
            return original_compute(self, class_idx, scores, normalized, targets=targets, **kwargs)
        if targets is not None:
            kwargs["targets"] = targets
        method = methods.get(type(self)._get_weights)
        if method is None:
            weights = self._get_weights(class_idx, scores, **kwargs)
            pairs = zip(weights, self.hook_a, strict=True)
            return [from_weights(self, weight, fmap, normalized) for weight, fmap in pairs]
        # GradCAMpp's own epsilon has no place in the paper's denominator.
        if method == "gradcam++":
            kwargs.pop("eps", None)
        self._backprop(scores, class_idx, **kwargs)
        pairs = zip(self.hook_a, self.hook_g, strict=True)
        return [from_gradient(self, method, fmap, grad, normalized) for fmap, grad in pairs]

    def undivided(
        self: Any, class_idx: Any, scores: Any, eps: float = _EPSILON, **kwargs: Any
    ) -> list[Tensor]:
        # TorchCAM's own result, without the denominators that it computes and does not use.
        self._backprop(scores, class_idx, **kwargs)
        return [undivided_weights(grad) for grad in self.hook_g]

    def from_gradient(
        self: Any, method: Method, fmap: Tensor, grad: Tensor, normalized: bool
    ) -> Tensor:
        if self._relu and _tensors.usable(fmap, grad):
            activation, grad_dense = _tensors.dense(fmap, grad)
            try:
                heat, infos = medcam_rs.cam(
                    activation, grad_dense, method, normalize=normalized, info=True
                )
            except medcam_rs.MedcamError as error:
                _tensors.fall_back(error)
            else:
                if normalized:
                    ranges = [info.maximum - info.minimum for info in infos]
                    heat = with_epsilon(heat, ranges)
                return heat.to(fmap.dtype)
        if method == "layercam":
            return theirs(self, torch.relu(grad), fmap, normalized)
        if method == "gradcam":
            return theirs(self, grad.flatten(2).mean(-1), fmap, normalized)
        return theirs(self, paper_weights(fmap, grad), fmap, normalized)

    def from_weights(self: Any, weight: Tensor, fmap: Tensor, normalized: bool) -> Tensor:
        if not _tensors.usable(fmap) or weight.shape != fmap.shape[:2]:
            return theirs(self, weight, fmap, normalized)
        try:
            heat = medcam_rs.project(
                weight.detach().float().contiguous(), *_tensors.dense(fmap), rectify=self._relu
            )
            flat = heat.flatten(1)
            ranges = (flat.amax(1) - flat.amin(1)).tolist()
            # A GPU's kernel does not wait to see what is not finite.
            if not all(map(math.isfinite, ranges)):
                return theirs(self, weight, fmap, normalized)
            if normalized:
                heat = with_epsilon(medcam_rs.normalize(heat), ranges)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return theirs(self, weight, fmap, normalized)
        return heat.to(torch.promote_types(weight.dtype, fmap.dtype))

    def theirs(self: Any, weight: Tensor, fmap: Tensor, normalized: bool) -> Tensor:
        """TorchCAM's own code, with weights that are there already."""
        recorded = Recorded(self, weight, fmap)
        return original_compute(recorded, None, None, normalized)[0]

    def fuse_cams(cams: list[Tensor], target_shape: tuple[int, ...]) -> Tensor:
        alike = all(_tensors.usable(cam[:, None]) and cam.dtype == torch.float32 for cam in cams)
        fits = all(len(target_shape) == cam.dim() - 1 for cam in cams)
        if not alike or not fits or _tensors.differentiates(*cams):
            return original_fuse(cams, target_shape)
        size = tuple(int(extent) for extent in target_shape)
        try:
            resized = [medcam_rs.resample(cam.detach().contiguous(), size) for cam in cams]
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_fuse(cams, target_shape)
        fused = resized[0]
        for cam in resized[1:]:
            torch.maximum(fused, cam, out=fused)
        return fused

    class Recorded:
        """Stands for an extractor in `compute_cams` once its weights are known."""

        def __init__(self, cam: Any, weight: Tensor, fmap: Tensor) -> None:
            self.hook_a, self._relu, self._normalize = [fmap], cam._relu, cam._normalize
            self._get_weights = lambda *_, **__: [weight]

    weights = (
        []
        if "gradcampp_denominator" in fixes
        else [(gradient.GradCAMpp, "_get_weights", undivided)]
    )
    return [
        (base, "compute_cams", compute_cams),
        (base, "_fuse_cams", staticmethod(fuse_cams)),
        *weights,
    ]


def undivided_weights(gradient: Tensor) -> Tensor:
    """TorchCAM's weights of Grad-CAM++, `sum_n ReLU(G)·G²`; `(B, C)`, of the gradient's type."""
    rows = gradient.flatten(0, 1).flatten(1)
    count = max(1, (_BLOCK_OF_GPU if rows.is_cuda else _BLOCK) // rows.shape[1])
    parts = [g.square().mul_(g.relu()).sum(-1) for g in rows.split(count)]
    return torch.cat(parts).view(gradient.shape[:2])


def paper_weights(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM++'s weights `sum_n ReLU(G)·G² / (2·G² + (sum_m A)·G³ + 1e-8)`, `(B, C)`."""
    a, g = activation.flatten(2), gradient.flatten(2)
    square = g.square()
    denominator = 2 * square + a.sum(-1, keepdim=True) * square * g + _EPSILON
    return (g.relu() * square / denominator).masked_fill(g == 0, 0.0).sum(-1)


def with_epsilon(heat: Tensor, ranges: list[float]) -> Tensor:
    """The normalised map as `(x - minimum) / (range + 1e-8)`."""
    factors = _tensors.epsilon_factors(ranges, _EPSILON)
    if factors is None:
        return heat
    return heat.mul_(heat.new_tensor(factors).view(-1, *[1] * (heat.dim() - 1)))
