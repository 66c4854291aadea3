"""The ways to a map in Python that `whole_networks` compares; its table says what each is.

A door sets up what is kept between calls, with a copy of the network of its own, and returns a call
that makes a map. `call.release`, where there is one, frees what a call leaves behind.
"""

import copy

import torch
from torch.nn import functional

CLASS = 1


class Subject:
    """A network in one precision, and its input."""

    def __init__(self, network, options, dtype):
        self.model = network.made().to(options.device, dtype)
        shape = network.small if options.trial else network.shape
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(shape, generator=generator).to(options.device, dtype)

    def another(self):
        """The network again: doors change the module that they are given."""
        return copy.deepcopy(self.model)


def bare(subject, _layer):
    """The module alone."""
    model = subject.another().requires_grad_(False)

    def call():
        with torch.no_grad():
            model(subject.x)

    return call


def ours(subject, layer):
    """Our Python package."""
    import medcam_rs  # pylint: disable=import-outside-toplevel

    model = medcam_rs.inject(subject.another(), layer=layer, label=CLASS)

    def call():
        model(subject.x)
        call.layer = model.attention_maps()[0].layer
        return model.get_attention_map()

    return call


def hooks(subject, layer):
    """Activation and gradient by hooks."""
    model, kept = subject.another(), {}

    def keep(_module, _arguments, output):
        kept["activation"] = output.detach()
        output.register_hook(lambda gradient: kept.update(gradient=gradient))
        # An activation in place may follow.
        return output.clone()

    model.get_submodule(layer).register_forward_hook(keep)

    def call():
        model.zero_grad(set_to_none=True)
        model(subject.x)[:, CLASS].sum().backward()
        return grad_cam(kept["activation"], kept["gradient"], subject.x)

    def release():
        model.zero_grad(set_to_none=True)
        kept.clear()

    call.release = release
    return call


def tape(subject, layer):
    """The tape from the layer on."""
    model, kept = subject.another().requires_grad_(False), []

    def start(_module, _arguments, output):
        torch.set_grad_enabled(True)
        kept.append(output.detach().requires_grad_())
        # A leaf can't be written to, as activations in place do.
        return kept[0].clone()

    model.get_submodule(layer).register_forward_hook(start)

    def call():
        kept.clear()
        with torch.no_grad():
            output = model(subject.x)
        (gradient,) = torch.autograd.grad(output[:, CLASS].sum(), kept)
        return grad_cam(kept[0].detach(), gradient, subject.x)

    call.release = kept.clear
    return call


def grad_cam(activation, gradient, x):
    """The map on the grid of the input, normalised, as an array."""
    spatial = tuple(range(2, x.dim()))
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    with torch.no_grad():
        weights = gradient.mean(dim=spatial, keepdim=True)
        heat = (weights * activation).sum(1, keepdim=True).relu().float()
        heat = functional.interpolate(heat, x.shape[2:], mode=mode, align_corners=False)
        low, high = heat.amin(spatial, keepdim=True), heat.amax(spatial, keepdim=True)
        return ((heat - low) / (high - low)).cpu().numpy()


DOORS = {"medcam_rs": ours, "hooks": hooks, "tape": tape}
