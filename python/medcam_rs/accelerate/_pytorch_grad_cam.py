"""pytorch-grad-cam (package `grad-cam`).

| patched | what runs in the kernels |
|---|---|
| `BaseCAM.compute_cam_per_layer` (`GradCAM`, `HiResCAM`, `LayerCAM`) | all but the zoom in 3D |
| the same (`GradCAMPlusPlus`) | the same |
| `BaseCAM.get_cam_image` (`XGradCAM`, `ScoreCAM`, `AblationCAM`, `RandomCAM`) | the weighted sum |
| `scale_cam_image`, wherever the package has it | normalising; bilinear in 2D |
| `BaseCAM.aggregate_multi_layers` | normalising |
| `ActivationsAndGradients.save_activation`, `save_gradient` | nothing: GPU tensors stay there |
| `GuidedBackpropReLU.backward` (`GuidedBackpropReLUModel`) | the rule at a ReLU |

**Convention.** Per layer ReLU, `(x - minimum) / (range + 1e-7)`, then to the input's grid; the mean
over the layers; once more ReLU and `(x - minimum) / (range + 1e-7)`. Results are NumPy arrays of
f32, `(B, [D,] H, W)`. Maps are resized bilinearly in 2D, as OpenCV does. In 3D SciPy's cubic `zoom`
stays: it aligns the corner voxels of both grids, and undershoots. `accelerate("pytorch_grad_cam",
interpolation="linear")` takes our trilinear kernel in its place, on the grid of torch's
`align_corners=False`. `GradCAMPlusPlus` has the denominator `2·G² + sum(A)·G³ + 1e-6`.

**Right without a fix**, because pytorch-grad-cam raises there: bf16 with given targets.

**Differs.** `cam.activations_and_grads.activations` and `.gradients` hold tensors of the GPU where
the model is on one, and no copies on the CPU.

**Not patched.** `GradCAMElementWise.get_cam_image` (ReLU before the sum: no kernel), `EigenCAM`,
`EigenGradCAM`, `SegEigenCAM`, `KPCA_CAM`, `FEM` and `eigen_smooth=True` (decompositions, in NumPy),
the weights of `XGradCAM`, `ScoreCAM`, `AblationCAM` and `ShapleyCAM`; their scaling is ours all the
same. `FullGrad`'s reduction: biases, not activations. `GuidedBackpropReLUModel` itself, which
returns the first sample alone, fails in 3D and leaves its own ReLU in the model: what it does with
modules is not ours.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

import medcam_rs

from .._chains import Denominator, Method
from . import _tensors

PACKAGE = "grad-cam"
VERSIONS = ("1.5.7",)
FIXES = {
    "gradcampp_epsilon": "`GradCAMPlusPlus` has no 1e-6 in its denominator, which outweighs "
    "gradients below 7e-4",
}
FLAGS = {"interpolation": ("cubic", "linear")}
_EPSILON = 1e-7


def patches(fixes: frozenset[str], interpolation: str = "cubic") -> list[tuple[Any, str, Any]]:
    """What replaces what; the library is imported here."""
    import pytorch_grad_cam as library
    from pytorch_grad_cam.base_cam import BaseCAM
    from pytorch_grad_cam.guided_backprop import GuidedBackpropReLU
    from pytorch_grad_cam.utils import image

    recorder = library.ActivationsAndGradients
    denominator: Denominator = "paper" if "gradcampp_epsilon" in fixes else "paper+1e-6"
    original_per_layer = BaseCAM.compute_cam_per_layer
    original_image = BaseCAM.get_cam_image
    original_aggregate = BaseCAM.aggregate_multi_layers
    original_scale = image.scale_cam_image
    original_save_activation = recorder.save_activation
    original_save_gradient = recorder.save_gradient
    original_backward = GuidedBackpropReLU.backward
    by_image: dict[Any, Method] = {
        library.HiResCAM.get_cam_image: "hirescam",
        library.LayerCAM.get_cam_image: "layercam",
    }
    by_weights: dict[Any, Method] = {
        library.GradCAM.get_cam_weights: "gradcam",
        library.GradCAMPlusPlus.get_cam_weights: "gradcam++",
    }

    def method_of(cam: Any) -> Method | None:
        """The kernel's name for the method, unless a subclass or the object itself has another."""
        if {"get_cam_image", "get_cam_weights"} & vars(cam).keys():
            return None
        if type(cam).get_cam_image is get_cam_image:
            return by_weights.get(type(cam).get_cam_weights)
        return by_image.get(type(cam).get_cam_image)

    def compute_cam_per_layer(
        self: Any, input_tensor: Tensor, targets: Any, eigen_smooth: bool
    ) -> list[np.ndarray]:
        method = method_of(self)
        activations = self.activations_and_grads.activations
        gradients = self.activations_and_grads.gradients
        size = tuple(self.get_target_width_height(input_tensor))[::-1]
        layers = len(self.target_layers)
        if (
            method is None
            or eigen_smooth
            or not self.detach
            or not len(activations) == len(gradients) == layers
            or not all(map(_tensors.usable, activations, gradients))
            or not all(activation.dim() == len(size) + 2 for activation in activations)
        ):
            return original_per_layer(self, input_tensor, targets, eigen_smooth)
        try:
            return [
                layer_map(method, activation, gradient, size)[:, None]
                for activation, gradient in zip(activations, gradients, strict=True)
            ]
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_per_layer(self, input_tensor, targets, eigen_smooth)

    def layer_map(
        method: Method, activation: Tensor, gradient: Tensor, size: tuple[int, ...]
    ) -> np.ndarray:
        activation, gradient = _tensors.dense(activation, gradient)
        run = functools.partial(medcam_rs.cam, denominator=denominator)
        if stays_cubic(len(size)):
            heat = run(activation, gradient, method, normalize=False)
            return scale_cam_image(heat.cpu().numpy(), size[::-1])
        heat, infos = run(activation, gradient, method, info=True)
        ranges = [info.maximum - info.minimum for info in infos]
        factors = _tensors.epsilon_factors(ranges, _EPSILON)
        if factors is not None:
            heat.mul_(heat.new_tensor(factors).view(-1, *[1] * len(size)))
        return medcam_rs.resample(heat, size).cpu().numpy()

    def get_cam_image(
        self: Any,
        input_tensor: Tensor,
        target_layer: Any,
        targets: Any,
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        arguments = (input_tensor, target_layer, targets, activations, grads, eigen_smooth)
        takes = isinstance(activations, np.ndarray) and activations.dtype == np.float32
        if eigen_smooth or not takes or activations.ndim not in (4, 5):
            return original_image(self, *arguments)
        weights = self.get_cam_weights(input_tensor, target_layer, targets, activations, grads)
        weights = np.asarray(weights)
        if weights.shape == activations.shape[:2]:
            dense = np.ascontiguousarray(activations)
            try:
                return medcam_rs.project(np.asarray(weights, np.float32), dense, rectify=False)
            except medcam_rs.MedcamError as error:
                _tensors.fall_back(error)
        # The library's own lines: its method would compute the weights again.
        return (weights[(...,) + (None,) * (activations.ndim - 2)] * activations).sum(axis=1)

    def aggregate_multi_layers(self: Any, cam_per_target_layer: list[np.ndarray]) -> np.ndarray:
        if len(cam_per_target_layer) != 1 or cam_per_target_layer[0].shape[1] != 1:
            return original_aggregate(self, cam_per_target_layer)
        # The mean of one layer needs no copies.
        return scale_cam_image(np.maximum(cam_per_target_layer[0][:, 0], 0))

    def scale_cam_image(cam: Any, target_size: Any = None) -> np.ndarray:
        takes = isinstance(cam, np.ndarray) and cam.dtype == np.float32 and cam.ndim in (3, 4)
        fits = target_size is None or len(target_size) == cam.ndim - 1 if takes else False
        if not takes or not fits or cam.size == 0:
            return original_scale(cam, target_size)
        cam = np.ascontiguousarray(cam)
        flat = cam.reshape(len(cam), -1)
        try:
            unit = medcam_rs.normalize(cam)
            factors = _tensors.epsilon_factors(flat.max(1) - flat.min(1), _EPSILON)
            if factors is not None:
                unit *= np.array(factors, np.float32).reshape(-1, *[1] * (cam.ndim - 1))
            if target_size is None:
                return unit
            size = tuple(int(extent) for extent in target_size[::-1])
            if not stays_cubic(len(size)):
                return medcam_rs.resample(unit, size)
        except medcam_rs.MedcamError as error:
            _tensors.fall_back(error)
            return original_scale(cam, target_size)
        return np.stack([image.zoom(one, np.divide(size, one.shape)) for one in unit])

    def stays_cubic(dimensions: int) -> bool:
        return dimensions == 3 and interpolation == "cubic"

    def save_activation(self: Any, module: Any, input: Any, output: Any) -> None:
        if not self.detach or not isinstance(output, Tensor) or not output.is_cuda:
            return original_save_activation(self, module, input, output)
        if self.reshape_transform is not None:
            output = self.reshape_transform(output)
        # A copy, as the library's on the CPU is one: a ReLU in place may follow.
        self.activations.append(output.detach().clone())
        return None

    def save_gradient(self: Any, module: Any, input: Any, output: Any) -> None:
        if not self.detach or not getattr(output, "is_cuda", False) or not output.requires_grad:
            return original_save_gradient(self, module, input, output)

        def store(gradient: Tensor) -> None:
            if self.reshape_transform is not None:
                gradient = self.reshape_transform(gradient)
            self.gradients = [gradient.detach(), *self.gradients]

        output.register_hook(store)
        return None

    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        input_img, _ = ctx.saved_tensors
        # With create_graph=True a second derivative may follow.
        if not torch.is_grad_enabled() and _tensors.usable(input_img, grad_output):
            try:
                return medcam_rs.guided_activation(*_tensors.dense(input_img, grad_output))
            except medcam_rs.MedcamError as error:
                _tensors.fall_back(error)
        return original_backward(ctx, grad_output)

    # Modules import the function by name, so each has its own reference to it.
    holders = [
        module
        for name, module in list(sys.modules.items())
        if (name == "pytorch_grad_cam" or name.startswith("pytorch_grad_cam."))
        and vars(module).get("scale_cam_image") is original_scale
    ]
    return [
        (BaseCAM, "compute_cam_per_layer", compute_cam_per_layer),
        (BaseCAM, "get_cam_image", get_cam_image),
        (BaseCAM, "aggregate_multi_layers", aggregate_multi_layers),
        (recorder, "save_activation", save_activation),
        (recorder, "save_gradient", save_gradient),
        (GuidedBackpropReLU, "backward", staticmethod(backward)),
        *[(module, "scale_cam_image", scale_cam_image) for module in holders],
    ]
