#!/usr/bin/env python3
"""The floor of a map: what a forward with one gradient must cost over the forward alone, counted in
operations. A Markdown table; with `--check`, the counting itself against numbers made by hand.

One operation is a multiply-add of a convolution, a transposed convolution or a matrix product;
padding counts like the rest, and all else (norms, activations, interpolation) does not. *Needed*
are, of each convolution between the layer and the score, the gradients of those input channels that
lead back to the layer: of a concatenation only the parts that come from there, and no weights'
gradients. The floor is 1 + needed / forward, the rate of the backward being that of the forward.
*Autograd* is what its backward really computes, whole concatenations included. That the score is of
one class, so that behind the last convolution the others' gradients are zeros, is left out.

It takes MONAI, torchvision, dynamic_network_architectures and, in MEDCAM_DATA, deepbet's file.
"""

import os
import sys
import warnings
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from monai.networks.layers import SkipConnection
from monai.networks.nets import SegResNet
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "networks"))
import make_bench_networks  # noqa: E402

aten = torch.ops.aten


class Deepbet(nn.Module):
    """deepbet's TorchScript file, called piece by piece, with places for hooks, which it lacks."""

    def __init__(self):
        super().__init__()
        self.net = torch.jit.load(Path(os.environ["MEDCAM_DATA"]) / "deepbet-1.0.2/bbox_model.pt")
        self.up0_conv1, self.tp_conv1 = nn.Identity(), nn.Identity()

    def forward(self, x):
        net, relu = self.net, getattr(self.net.conv, "2")
        skips = [net.init(relu, x)]
        for down in (net.down0, net.down1, net.down2, net.down3):
            skips.append(down(relu, skips[-1]))
        x = self.up0_conv1(net.up0.conv1(relu, skips.pop()))
        x = net.up0.conv2(relu, net.up0.tp_conv(relu, x)) + skips.pop()
        for up in (net.up1, net.up2, net.up3):
            x = up(relu, x) + skips.pop()
        return net.tp_conv2(net.conv(self.tp_conv1(net.tp_conv1(relu, x)))).softmax(1)


def plain_conv_unet():
    """As nnU-Net plans it for isotropic images: six stages, two convolutions in each."""
    features, strides = (32, 64, 128, 256, 320, 320), (1, 2, 2, 2, 2, 2)
    acts = {"norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    acts |= {"norm_op_kwargs": {"affine": True}, "nonlin_kwargs": {"inplace": True}}
    return PlainConvUNet(1, 6, features, nn.Conv3d, 3, strides, 2, 3, 2, conv_bias=True, **acts)


_LATE = ("layer4.2.bn2", "layer4.1.conv1", "skip_layers.upsample.conv_block.norm1")
_PLAIN = ("encoder.stages.5", "decoder.stages.4.convs.0", "decoder.stages.4")
_SEGRESNET = ("down_layers.3", "up_layers.2.0.conv1", "up_layers.2")
# Name, how to build it, the shape of its input, its layers from early to late.
NETWORKS = (
    *(
        (name, build, shape, (layer, late))
        for (name, build, _, shape, layer), late in zip(make_bench_networks.NETWORKS, _LATE)
    ),
    ("deepbet", Deepbet, (1, 1, 128, 128, 128), ("up0_conv1", "tp_conv1")),
    ("plain_conv_unet", plain_conv_unet, (1, 1, 96, 96, 96), _PLAIN),
    ("segresnet", lambda: SegResNet(init_filters=16), (1, 1, 96, 96, 96), _SEGRESNET),
)

# What acts on each channel alone, where their number stays; beside what PyTorch calls pointwise.
_EACH_CHANNEL = ("batch_norm", "pool", "upsample", "view", "detach", "clone", "alias", "dropout")


class Operations(TorchDispatchMode):
    """Counts operations, and which channels of each tensor lead back to what `start` was given."""

    def __init__(self):
        super().__init__()
        self.forward, self.whole, self.needed = 0, 0, 0
        self.is_backward, self.leaf = False, None
        #: The channels of a tensor, by its memory and shape. Kept, so that no other gets its place.
        self.channels, self._kept = {}, []
        self.shares = {}  # Of channels of its input, what a convolution needs.

    def start(self, _module, _arguments, output):
        """As a forward hook of the layer: the tape starts here."""
        torch.set_grad_enabled(True)
        self.leaf = output.detach().requires_grad_()
        # A leaf can't be written to, as activations in place do.
        output = self.leaf.clone()
        self._kept.append(output)
        self.channels[_key(output)] = [True] * output.shape[1]
        return output

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        operator, operations, share = function.overloadpacket, 0, 1
        if operator is aten.convolution_backward:
            gradient, given, weight, transposed, wanted = *args[:3], args[7], args[10]
            assert list(wanted) == [True, False, False], "only the input's gradient is asked for"
            operations = weight.numel() * _positions(given if transposed else gradient)
            share = self.shares[given.data_ptr(), weight.data_ptr()]
        elif operator in (aten.mm, aten.addmm, aten.bmm):
            # No weights' gradients here either, so all that the backward computes is needed.
            operations = args[-2].numel() * args[-1].shape[-1]
        elif operator in (aten.convolution, aten._convolution):
            given, weight, transposed = args[0], args[1], args[6]
            operations = weight.numel() * _positions(given if transposed else result)
            channels = self.channels.get(_key(given), [False])
            self.shares[given.data_ptr(), weight.data_ptr()] = sum(channels) / len(channels)
        if self.is_backward:
            self.whole += operations
            self.needed += operations * share
        else:
            self.forward += operations
            self._spread(function, args, result)
        return result

    def _spread(self, function, args, result):
        given = args[0] if isinstance(args[0], (list, tuple)) else args
        given = [tensor for tensor in given if isinstance(tensor, torch.Tensor)]
        result = result[0] if isinstance(result, (list, tuple)) else result
        if any(_key(tensor) in self.channels for tensor in given):
            self._kept += [result, *given]
            self.channels[_key(result)] = self._leads(function, given, args, result)

    def _leads(self, function, given, args, result):
        """Which channels of the result lead back: all, where not known to be fewer."""
        known = [self.channels.get(_key(tensor)) for tensor in given]
        if function.overloadpacket is aten.cat and args[1:] in ((1,), (1 - result.dim(),)):
            return sum((leads or [False] * t.shape[1] for leads, t in zip(known, given)), [])
        name = function.overloadpacket.__name__
        each = torch.Tag.pointwise in function.tags or any(part in name for part in _EACH_CHANNEL)
        known, width = [channels for channels in known if channels], (*result.shape, 1, 1)[1]
        each = each and all(len(channels) == width for channels in known)
        return [any(channel) for channel in zip(*known)] if each else [True] * width


def _key(tensor):
    return tensor.data_ptr(), tuple(tensor.shape)


def _positions(tensor):
    return tensor.shape[0] * tensor.shape[2:].numel()


def count(model, layer, shape):
    """The operations of a forward whose tape starts behind the layer, and of its backward."""
    model.eval().requires_grad_(False)
    with Operations() as operations, torch.no_grad():
        model.get_submodule(layer).register_forward_hook(operations.start)
        score = model(torch.rand(shape))[:, 1].sum()
        operations.is_backward = True
        torch.autograd.grad(score, operations.leaf)
    return operations


def check():
    conv = nn.Sequential(nn.Identity(), nn.Conv2d(6, 4, 3, 2, 1, groups=2))
    counted = count(conv, "0", (2, 6, 8, 8))
    # Of each of 2x4x4x4 values: 3 channels of its group, 3x3 places. Of the gradient the same.
    assert counted.forward == counted.needed == counted.whole == 2 * 4 * 16 * 3 * 9

    # A skip connection of 3 channels, then 5 that come from 8 on half the grid.
    skip = SkipConnection(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 5, 2, 2)))
    head = nn.InstanceNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
    block = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), skip, *head)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        block(torch.rand(1, 1, 8, 8))
    counted = count(block, "1.submodule.0", (1, 1, 8, 8))
    up, join, last = 8 * 16 * 5 * 4, 4 * 64 * 8 * 9, 2 * 64 * 4
    assert counted.forward == 3 * 64 * 9 + 8 * 16 * 3 * 9 + up + join + last
    assert 2 * counted.forward == theirs.get_total_flops()
    assert counted.whole == up + join + last
    assert counted.needed == up + join * 5 // 8 + last
    deepbet, x = Deepbet().eval(), torch.rand(1, 1, 64, 64, 64)
    assert torch.equal(deepbet(x), deepbet.net(x))


def print_floors():
    print("| network | layer | forward, G | needed, G | autograd, G | floor | autograd's |")
    print("|---|---|---|---|---|---|---|")
    for name, build, shape, layers in NETWORKS:
        for layer in layers:
            made = count(build(), layer, shape)
            numbers = [f"{n / 1e9:.3f}" for n in (made.forward, made.needed, made.whole)]
            ratios = [f"{1 + n / made.forward:.3f}" for n in (made.needed, made.whole)]
            print(f"| {name} | `{layer}` |", " | ".join(numbers + ratios), "|", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    check() if sys.argv[1:] == ["--check"] else print_floors()
