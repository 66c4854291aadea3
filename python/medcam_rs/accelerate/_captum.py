"""Captum (package `captum`).

| patched | what runs in the kernels |
|---|---|
| `LayerGradCam.attribute` (also in `GuidedGradCam`) | pooling, weighted sum, ReLU if asked for |
| `LayerAttribution.interpolate`, `bilinear` and `trilinear` (also in `GuidedGradCam`) | all of it |

**Convention.** Signed sums unless `relu_attributions=True`, nothing normalised, `(B, 1, [D,] H, W)`
on the layer's grid, of the layer's type and on its device. Maps of f16 and bf16 are computed in f32
and rounded once.

**Differs.** Attributions have no graph. Captum's hang on the network's, through the activation, and
keep its memory; with `grad_kwargs` (so with `create_graph=True`) Captum's own code runs.

**Not patched.** `interpolate_mode="nearest"`, Captum's default: torch's `nearest` takes the voxel
at `floor(i·scale)`, our kernel that of torch's `nearest-exact`, at `floor((i + 0.5)·scale)`. `area`
and `bicubic`: no kernel. `attr_dim_summation=False`: a product as large as the layer, nothing to
reduce. `GuidedBackprop`, `Deconvolution`: a ReLU of one tensor in a hook. The product in
`GuidedGradCam`, which stays unnormalised: one multiplication.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import medcam_rs

from . import _tensors

PACKAGE = "captum"
VERSIONS = ("0.9.0",)
# No defect of Captum's lies in what is patched.
FIXES: dict[str, str] = {}
FLAGS: dict[str, tuple[str, ...]] = {}
_LINEAR = {4: "bilinear", 5: "trilinear"}


def patches(fixes: frozenset[str]) -> list[tuple[Any, str, Any]]:
    """What replaces what; the library is imported here."""
    del fixes
    from captum._utils.common import (
        _format_additional_forward_args,
        _format_output,
        _format_tensor_into_tuples,
    )
    from captum._utils.gradient import compute_layer_gradients_and_eval
    from captum.attr import LayerAttribution, LayerGradCam
    from captum.log import log_usage

    original_attribute = LayerGradCam.attribute
    original_interpolate = LayerAttribution.interpolate

    # `GuidedGradCam` calls what this decorator wraps, through `__wrapped__`.
    @log_usage(part_of_slo=True)
    def attribute(
        self: Any,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if not attr_dim_summation or grad_kwargs:
            return original_attribute.__wrapped__(
                self,
                inputs,
                target,
                additional_forward_args,
                attribute_to_layer_input,
                relu_attributions,
                attr_dim_summation,
                grad_kwargs,
            )
        gradients, evals = compute_layer_gradients_and_eval(
            self.forward_func,
            self.layer,
            _format_tensor_into_tuples(inputs),
            target,
            _format_additional_forward_args(additional_forward_args),
            device_ids=self.device_ids,
            attribute_to_layer_input=attribute_to_layer_input,
        )
        maps = tuple(
            grad_cam(gradient, activation, relu_attributions)
            for gradient, activation in zip(gradients, evals, strict=True)
        )
        return _format_output(len(maps) > 1, maps)

    def interpolate(
        layer_attribution: Tensor, interpolate_dims: Any, interpolate_mode: str = "nearest"
    ) -> Tensor:
        takes = _tensors.usable(layer_attribution) and layer_attribution.dtype == torch.float32
        if (
            not takes
            or interpolate_mode != _LINEAR[layer_attribution.dim()]
            or _tensors.differentiates(layer_attribution)
        ):
            return original_interpolate(layer_attribution, interpolate_dims, interpolate_mode)
        spatial = layer_attribution.dim() - 2
        given = interpolate_dims
        size = (
            (given,) * spatial if isinstance(given, int) else tuple(int(extent) for extent in given)
        )
        maps = layer_attribution.detach().as_subclass(torch.Tensor).flatten(0, 1).contiguous()
        try:
            resized = medcam_rs.resample(maps, size)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_interpolate(layer_attribution, interpolate_dims, interpolate_mode)
        return resized.view(*layer_attribution.shape[:2], *size)

    return [
        (LayerGradCam, "attribute", attribute),
        (LayerAttribution, "interpolate", staticmethod(interpolate)),
    ]


def grad_cam(gradient: Tensor, activation: Tensor, rectify: bool) -> Tensor:
    """The map of one tensor of a layer, `(B, 1, ...)`."""
    if _tensors.usable(activation, gradient):
        activation_dense, gradient_dense = _tensors.dense(activation, gradient)
        try:
            if rectify:
                heat = medcam_rs.cam(activation_dense, gradient_dense, normalize=False)
            else:
                weights = medcam_rs.channel_weights(gradient_dense)
                heat = medcam_rs.project(weights, activation_dense, rectify=False)
            return heat[:, None].to(activation.dtype)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
    # Captum's own lines.
    spatial = tuple(range(2, gradient.dim()))
    weights = gradient.mean(dim=spatial, keepdim=True) if spatial else gradient
    heat = torch.sum(weights * activation, dim=1, keepdim=True)
    return torch.relu(heat) if rectify else heat
