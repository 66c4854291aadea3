"""What a map of M3d-CAM's must be: its own formulas by plain autograd in double precision, with nothing
of medcam's and without its faults: each sample by itself, activations as the layer gave them, every
ReLU guided, and no exp that can overflow."""

import copy

import torch
from torch import nn
from torch.nn import functional as F


class Guided(torch.autograd.Function):
    """ReLU, guided (arXiv 1412.6806): only positive gradients go back, where the input is positive."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) & (grad > 0), grad, torch.zeros_like(grad))


class GuidedReLU(nn.Module):
    """In the place of nn.ReLU."""

    def forward(self, x):
        return Guided.apply(x)


def guided(model):
    """A copy of the network with every nn.ReLU guided."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, GuidedReLU())
    return model


def can_be_guided(model):
    """Whether anything in the network is."""
    return any(isinstance(module, nn.ReLU) for module in model.modules())


def mask_of(output, label):
    """The weight of each output value in the score, as base.py's `_isolate_class`, per sample."""
    if label is None:
        if output.dim() > 2:
            return torch.ones_like(output)
        label = "best"
    if callable(label):
        return label(output).to(output.dtype)
    mask = torch.zeros_like(output)
    sums = output.flatten(2).sum(dim=2) if output.dim() > 2 else output
    for b, sample in enumerate(sums):
        mask[b, sample.argmax() if label == "best" else label] = 1
    return mask


def normalized(maps):
    """Each sample to [0, 1]; a constant one to 0."""
    flat = maps.flatten(1)
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    span = torch.where(high > low, high - low, torch.ones_like(high))
    shape = (-1,) + (1,) * (maps.dim() - 1)
    return (maps - low.view(shape)) / span.view(shape)


def resized(maps, size):
    """Linear, with half-pixel centres."""
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(maps, size=size, mode=mode, align_corners=False)


class Run:
    """One forward and backward of the network; `model` must not write over its activations."""

    def __init__(self, model, x, label):
        self.x = x.clone().requires_grad_(True)
        self.layers = {}

        def keep(name):
            return lambda _module, _inputs, output: self.layers.update({name: output})

        named = [(name, module) for name, module in model.named_modules() if name]
        hooks = [module.register_forward_hook(keep(name)) for name, module in named]
        self.output = model(self.x)
        for hook in hooks:
            hook.remove()
        self.mask = mask_of(self.output.detach(), label)
        names = [name for name, layer in self.layers.items() if layer.requires_grad]
        score = (self.output * self.mask).sum()
        tensors = [self.layers[name] for name in names] + [self.x]
        gradients = torch.autograd.grad(score, tensors, allow_unused=True)
        self.gradients = dict(zip(names + [""], gradients))

    def has_map(self, name):
        """Whether the layer has voxels and a gradient."""
        layer = self.layers.get(name)
        if layer is None or self.gradients.get(name) is None or layer.dim() != self.x.dim():
            return False
        return min(layer.shape[2:]) > 1

    def weights(self, name, backend):
        """The channel weights of a layer."""
        axes = tuple(range(2, self.x.dim()))
        g, a = self.gradients[name], self.layers[name].detach()
        if backend != "gcampp":
            return g.mean(dim=axes, keepdim=True)
        denominator = 2 * g**2 + (a * g**3).sum(dim=axes, keepdim=True)
        denominator = torch.where(denominator != 0, denominator, torch.ones_like(denominator))
        factor = 1
        if self.output.dim() > 2:
            score = resized(self.output.detach() * self.mask, g.shape[2:])
            if score.shape[1] not in (1, g.shape[1]):
                score = score.sum(dim=1, keepdim=True)
            factor = (score - score.amax(dim=tuple(range(1, score.dim())), keepdim=True)).exp()
        return (g**2 / (denominator + 1e-7) * (factor * g).relu()).sum(dim=axes, keepdim=True)

    def map(self, name, backend):
        """The map of a layer on its own grid, (B, 1, ...)."""
        maps = (self.weights(name, backend) * self.layers[name].detach()).sum(dim=1, keepdim=True)
        return normalized(maps.relu())


def maps(model, guided_model, x, label, backend, layers):
    """By layer the maps on the layer's grid; those of gbp and ggcam are on the input's."""
    if backend in ("gbp", "ggcam"):
        at_input = Run(guided_model, x, label).gradients[""].mean(dim=1, keepdim=True)
        if backend == "gbp":
            return {"": normalized(at_input)}
    run = Run(model, x, label)
    found = {name: run.map(name, backend) for name in layers if run.has_map(name)}
    if backend == "ggcam":
        found = {n: normalized(resized(m, x.shape[2:]) * at_input) for n, m in found.items()}
    return found
