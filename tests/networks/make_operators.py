"""Make the networks of operators.py: `make_operators.py FOLDER`. `scripts/setup.py test` runs it.

manifest.json says of each what PyTorch shows when it runs, for the analyses of its graph to be held against.
"""

import json
import pathlib
import sys
import warnings

import torch
from torch import nn
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)
import operators  # noqa: E402

CONV = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


class Step(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, a, b):
        return self.step(a, b)


class Base(nn.Module):
    def __init__(self, case):
        super().__init__()
        convolution = CONV[case.axes + 2]
        self.first = convolution(4, 4, 3, padding=1)
        self.other = convolution(4, 4, 3, padding=1)
        self.step = Step(case.step)


class Head(nn.Module):
    """A 1x1 convolution of an image, a linear layer of anything else."""

    def __init__(self, y):
        super().__init__()
        self.is_image = y.dim() in CONV
        self.last = CONV[y.dim()](y.shape[1], 3, 1) if self.is_image else nn.Linear(y.numel(), 3)

    def forward(self, y):
        return self.last(y) if self.is_image else self.last(y.reshape(1, -1))


class Redrawn(Base):
    """The step between a layer and a 1x1 convolution."""

    def __init__(self, case, a, b):
        super().__init__(case)
        self.head = Head(case.step(a.clone(), b.clone()))

    def forward(self, x):
        return self.head(self.step(self.first(x), self.other(x)))


class Normed(Base):
    """The step in front of an instance norm."""

    def __init__(self, case, a, b):
        super().__init__(case)
        y = case.step(a.clone(), b.clone())
        self.tail = CONV[y.dim()](y.shape[1], 3, 3, padding=1)

    def behind(self, a, b):
        return self.tail(F.instance_norm(self.step(a, b)))

    def forward(self, x):
        return self.behind(self.first(x), self.other(x))


class Moved(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x).movedim(1, -1)


class Last(Base):
    """The step between channels on the last axis and a linear layer."""

    def __init__(self, case, a, b):
        super().__init__(case)
        y = case.step(a.movedim(1, -1), b.movedim(1, -1))
        self.first, self.other = Moved(self.first), Moved(self.other)
        self.linear = nn.Linear(y.shape[-1], 3)

    def forward(self, x):
        return self.linear(self.step(self.first(x), self.other(x)))


class Front(nn.Module):
    """The step in front of the first layer."""

    def __init__(self, case, a, b):
        super().__init__()
        self.step, self.head = Step(case.step), Head(case.step(a.clone(), a.clone()))

    def forward(self, x):
        return self.head(self.step(x, x))


class Ended(Base):
    """The step behind a softmax that would end the network without it."""

    def forward(self, x):
        return self.step(F.softmax(self.first(x), 1), self.other(x))


class Ending(Base):
    """The step at the end of the network."""

    def forward(self, x):
        return self.step(self.first(x), self.other(x))


def jacobian(step, a, b):
    """(outputs, inputs), of a step that is given no leaf."""
    return torch.autograd.functional.jacobian(lambda a: step(a.clone(), b.clone()), a)


def seeded(step):
    """A step that draws the same random numbers each time."""

    def run(a, b):
        torch.manual_seed(1)
        return step(a, b)

    return run


def depends_on_batch(step, y, a, b):
    pair = [torch.cat([x, 5 * x + 1]) for x in (a, b)]
    try:
        alone = step(*pair)[:1]
    except (RuntimeError, IndexError):
        return False
    return alone.shape == y.shape and not torch.allclose(alone, y)


def moves_alike(case, step, j, a, b):
    """Whether each channel of the output is the same linear function of the same channel of the input."""
    channels = a.shape[1]
    between = j.sum((0, a.dim())).flatten(1, case.axes).flatten(3)  # (C, voxels, C, voxels)
    alike = torch.zeros_like(between)
    for channel in range(channels):
        alike[channel, :, channel] = between[0, :, 0]
    is_linear = torch.equal(j, jacobian(step, 3 * a - 1, b)) and torch.equal(j, jacobian(step, a, b.flip(-1) * 2 + 0.1))
    return bool((between - alike).abs().max() < 1e-9) and is_linear


def observed(case, a, b):
    """What PyTorch shows of a step when it runs."""
    step = seeded(case.step)
    y = step(a.clone(), b.clone())
    seen = {"kept_rank": y.dim() == a.dim()}
    kept = [one == other for one, other in zip(y.shape, a.shape)]
    seen["kept_axes"] = seen["kept_rank"] and sum(kept) >= a.dim() - 1
    seen["passes"] = y.shape == a.shape and torch.equal(y, a)
    seen["same_elements"] = y.numel() == a.numel() and torch.equal(y.flatten(), a.flatten())
    again = case.step(a.clone(), b.clone())
    seen["as_in_training"] = not torch.equal(again, y) or depends_on_batch(step, y, a, b)

    j = jacobian(step, a, b)
    seen["reaches"] = bool(j.any())
    seen["redraws"] = False
    same_channels = seen["kept_rank"] and y.shape[1] == a.shape[1]
    seen["moves_alike"] = seen["reaches"] and same_channels and moves_alike(case, step, j, a, b)
    if seen["reaches"] and seen["kept_rank"] and y.shape[2:] == a.shape[2:]:
        # By output and input voxel, the largest over channels.
        between = j.abs().amax((0, 1, a.dim(), a.dim() + 1)).flatten(case.axes).flatten(0, case.axes - 1)
        on_same_voxel = bool((between - between.diag().diag()).max() == 0)
        gated = not torch.equal(j, jacobian(step, a, b.flip(-1) * 2 + 0.1))
        seen["redraws"] = on_same_voxel and not gated

    t = torch.linspace(-8, 8, a.numel() + 1)[:-1].reshape(a.shape)
    z = step(t.clone(), b.clone())
    small = (t > 0) & (t < 0.4)
    seen["like_relu"] = z.shape == t.shape and not z[t <= 0].any() and torch.equal(z[small], t[small])
    return seen


def cancels(network, a, b):
    a = a.clone().requires_grad_()
    y = network.behind(a.clone(), b.clone())
    r = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    (gradient,) = torch.autograd.grad((y * r).sum(), a, allow_unused=True)
    if gradient is None or not gradient.any():
        return False
    means = gradient.flatten(2).mean(2)
    return bool(means.abs().max() < 1e-10 * gradient.abs().max())


def contains(traced, row):
    graph = str(traced.inlined_graph)
    name = row if "::" in row else f"aten::{row}"
    return row == "medcam::tap" or f"{name}(" in graph or f"{name}_(" in graph


def make(folder, number, case):
    generator = torch.Generator().manual_seed(number)
    shape = (1, 4, *operators.EXTENTS[case.axes])
    # So that activations come to where they saturate.
    a, b, x = (4 * torch.randn(shape, generator=generator) for _ in range(3))
    seen = observed(case, a, b)
    entry = {
        "row": case.row,
        "files": {},
        "input": shape,
        "seen": seen,
        "untold": case.untold,
        "told": case.told,
        "activation": case.activation,
        "product": case.product,
        "ends": case.ends,
        "regrids": case.regrids,
    }
    for kind in (Redrawn, Normed, Last, Front, Ended, Ending):
        if kind is Normed and not (seen["kept_rank"]):
            continue
        if kind is Last and case.image:
            continue
        torch.manual_seed(number)
        network = (kind(case) if kind in (Ended, Ending) else kind(case, a, b)).eval()
        if kind is Normed:
            seen["cancels"] = cancels(network, a, b)
        traced = torch.jit.trace(network, x, check_trace=False)
        # A function that is no module's has no name in a file.
        torch._C._jit_pass_inline(traced.step.graph)
        assert contains(traced, case.row), f"{case.row}: not in\n{traced.inlined_graph}"
        file = f"{number}.{kind.__name__.lower()}.pt"
        traced.save(str(folder / file))
        entry["files"][kind.__name__.lower()] = file
    return entry


def main():
    folder = pathlib.Path(sys.argv[1])
    warnings.filterwarnings("ignore")

    entries = [make(folder, number, case) for number, case in enumerate(operators.CASES)]
    (folder / "manifest.json").write_text(json.dumps(entries, indent=1))


if __name__ == "__main__":
    main()
