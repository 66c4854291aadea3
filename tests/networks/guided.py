"""What guided backpropagation must give: the gradient at the input, with every guided activation
replaced in eager Python by one whose backward is written out, and nothing of medcam's."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import expected

# The functions that a module or a forward may call, by what guides them.
RELU = (F.relu, torch.relu, torch.Tensor.relu, F.relu6)
CUT = (torch.clamp, torch.Tensor.clamp, torch.Tensor.clamp_min, F.hardtanh, F.threshold)
OTHERS = (
    *(F.leaky_relu, F.prelu, torch.prelu, F.rrelu, F.elu, F.selu, F.celu),
    *(F.silu, F.gelu, F.mish, F.hardswish),
)


class Activation(torch.autograd.Function):
    """f, with the backward g -> g·f'(x) where g > 0 and x > 0, else 0."""

    @staticmethod
    def forward(ctx, x, f):
        ctx.save_for_backward(x)
        ctx.f = f
        return f(x)

    @staticmethod
    def backward(ctx, g):
        x = ctx.saved_tensors[0].detach().requires_grad_(True)
        with torch.enable_grad():
            slope = torch.autograd.grad(ctx.f(x).sum(), x)[0]
        return g * slope * (g > 0) * (x > 0), None


class Guided(TorchFunctionMode):
    """Replaces the activations that run, and counts those that a gradient can reach."""

    def __init__(self, guide):
        super().__init__()
        self.guide = guide
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        del types
        kwargs = dict(kwargs or {})
        if not self._guides(function, args, kwargs) or not args[0].requires_grad:
            return function(*args, **kwargs)
        assert not kwargs.pop("inplace", False), "not an out-of-place twin"
        self.count += 1
        return Activation.apply(args[0], lambda x: function(x, *args[1:], **kwargs))

    def _guides(self, function, args, kwargs):
        if self.guide is None:
            return False
        if function in CUT:
            low = args[1] if len(args) > 1 else kwargs.get("min", kwargs.get("min_val"))
            return low == 0 and (function is not F.threshold or args[2] == 0)
        return function in RELU or (self.guide == "all" and function in OTHERS)


class Chain(nn.Module):
    """Convolutions, each followed by a function."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions
        self.activations = nn.ModuleList(f for f in functions if isinstance(f, nn.Module))
        widths = [2] + [5] * len(functions)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:])
        )
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        for conv, function in zip(self.convs, self.functions):
            x = function(conv(x))
        return self.head(x.mean(dim=(2, 3)))


def relus(inplace):
    """Whatever is a ReLU by its numbers, and a hardtanh that is none."""
    if inplace:
        clamp, clamp_min = (lambda x: x.clamp_(0, 5)), (lambda x: x.clamp_min_(0))
    else:
        clamp, clamp_min = (lambda x: x.clamp(0, 5)), (lambda x: x.clamp_min(0))
    return Chain(
        nn.ReLU6(inplace),
        lambda x: F.relu6(x, inplace),
        nn.Hardtanh(0.0, 0.9, inplace),
        clamp,
        nn.Threshold(0.0, 0.0, inplace),
        clamp_min,
        lambda x: torch.clamp(x, min=0),
        nn.Hardtanh(-0.5, 0.5, inplace),
        torch.relu_ if inplace else torch.relu,
    )


def smooth(inplace):
    """The activations that only `all` guides; a PReLU whose slope is below 0 turns the sign."""
    prelu = nn.PReLU(5)
    prelu.weight.data = torch.tensor([0.3, -0.4, 0.1, 0.0, -1.0])
    return Chain(
        nn.LeakyReLU(0.2, inplace),
        nn.GELU(),
        nn.ELU(0.7, inplace),
        nn.GELU("tanh"),
        nn.SELU(inplace),
        prelu,
        nn.CELU(0.6, inplace),
        nn.Mish(inplace),
        nn.Hardswish(inplace),
        nn.RReLU(0.1, 0.3, inplace),
        nn.SiLU(inplace),
    )


class Views(nn.Module):
    """Writes to views: all of a reshaped tensor, some channels, and a box too narrow for vector code."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.first = nn.Linear(2 * 9 * 7, 4 * 9 * 7)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6 * 9 * 7, 3)

    def forward(self, x):
        x = self.first(x.flatten(1)).view(-1, 4, 9, 7)
        x = F.relu(x, inplace=self.inplace)
        x = self.second(x)
        if self.inplace:
            F.relu(x[:, :2], inplace=True)
            F.mish(x[:, 2:4, :, :3], inplace=True)
        else:
            part = torch.cat([F.mish(x[:, 2:4, :, :3]), x[:, 2:4, :, 3:]], dim=3)
            x = torch.cat([F.relu(x[:, :2]), part, x[:, 4:]], dim=1)
        return self.head(x.flatten(1))


class WritesInput(nn.Module):
    """Normalises the input where it lies."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.conv = nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = x.sub_(0.1).mul_(2.0) if self.inplace else (x - 0.1) * 2.0
        x = F.relu(self.conv(x), inplace=self.inplace)
        return self.head(x.mean(dim=(2, 3)))


class Branches(nn.Module):
    """Control flow, and activations that no gradient reaches."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.stem = nn.Conv2d(2, 8, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)
        self.gain = nn.Parameter(torch.tensor(1.5), requires_grad=False)

    def forward(self, x):
        x = self.stem(x)
        for step in range(3):
            x = self.conv(x)
            if step == 1:
                x = F.leaky_relu(x, 0.1, inplace=self.inplace)
            else:
                x = F.relu(x, inplace=self.inplace)
        x = x * F.relu(self.gain)
        return self.head(x.mean(dim=(2, 3)))


class Modules(nn.Module):
    """Modules whose numbers scripting must hand on."""

    def __init__(self, inplace):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3)
        self.acts = nn.ModuleList(
            [
                nn.ReLU6(inplace),
                nn.Hardtanh(0.0, 0.7, inplace),
                nn.Threshold(0.0, 0.0, inplace),
                nn.Hardtanh(inplace=inplace),
                nn.Threshold(0.1, 0.0, inplace),
                nn.CELU(0.5, inplace),
            ]
        )
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in self.acts)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        for conv, act in zip(self.convs, self.acts):
            x = act(conv(x))
        return self.head(x.mean(dim=(2, 3)))


# name, network, whether it is traced or scripted.
ODD = (
    ("relus", relus, "traced"),
    ("smooth", smooth, "traced"),
    ("views", Views, "traced"),
    ("writes_input", WritesInput, "traced"),
    ("modules", Modules, "scripted"),
    ("branches", Branches, "scripted"),
)


def gradient(twin, x, label, guide):
    """The gradient at the input, and how many activations were guided."""
    x = x.clone().requires_grad_(True)
    with Guided(guide) as mode:
        score = expected.score_of(expected.logits_of(twin, x), label)
    return torch.autograd.grad(score, x)[0], mode.count


def truth(twin, x, label, save):
    """What every file of a network must give, by what is guided: None, "relu", "all"."""
    entry = {"label": label}
    for guide, key in ((None, "plain"), ("relu", "relu"), ("all", "all")):
        found, count = gradient(twin, x, label, guide)
        assert found.flatten(1).abs().amax(dim=1).min() > 0, f"the gradient of {key} is 0"
        entry[key] = {"gradient": save(key, found), "count": count}
    return entry
