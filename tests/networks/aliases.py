"""Networks that write over what others still hold: in place, through views and in what returns its input."""

from typing import List

import torch
from torch import nn
from torch.nn import functional as F


class Base(nn.Module):
    """`before`, then `after` and a head; what lies between is each network's own."""

    # Layers whose maps are refused.
    refused = ()
    traced = True

    def __init__(self):
        super().__init__()
        self.before = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.same = nn.Identity()
        self.dropout = nn.Dropout(0.5)
        self.after = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def classes(self, x):
        return self.head(x.mean(dim=(2, 3)))


class DropoutFunction(Base):
    """F.dropout returns its very input in evaluation, which its schema does not say."""

    def forward(self, x):
        x = F.relu(F.dropout(self.norm(self.before(x)), 0.2, self.training), inplace=True)
        return self.classes(F.relu(F.dropout2d(self.after(x), 0.2, self.training), inplace=True))


class ReluSkip(Base):
    """A pre-activation block: the skip reads what the in-place ReLU wrote over."""

    def forward(self, x):
        x = self.before(x)
        return self.classes(self.after(self.relu(x)) + x)


class IdentitySkip(Base):
    def forward(self, x):
        x = self.before(x)
        skip = self.same(x)
        return self.classes(self.after(self.relu(x)) + skip)


class DropoutSkip(Base):
    def forward(self, x):
        x = self.before(x)
        return self.classes(self.after(self.relu(self.dropout(x))) + x)


class NormSkip(Base):
    def forward(self, x):
        x = self.norm(self.before(x))
        y = self.same(x)
        y.relu_()
        return self.classes(self.after(y) + x)


class OwnNorm(nn.BatchNorm2d):
    """Writes to what the norm gave before it returns it."""

    def forward(self, x):
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, 1e-5)
        y.view(-1).mul_(-1.5)
        return y


class OwnNormNetwork(Base):
    def __init__(self):
        super().__init__()
        self.norm = OwnNorm(6)

    def forward(self, x):
        return self.classes(self.after(self.norm(self.before(x)).relu_()))


class BiasNorm(nn.Module):
    def forward(self, x, bias):
        return F.instance_norm(x, None, None, None, bias)


class BiasWritten(Base):
    """What the norm was computed from is written over, before it could be computed again."""

    def __init__(self):
        super().__init__()
        self.norm = BiasNorm()
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x):
        bias = self.bias + x.mean()
        y = self.norm(self.before(x), bias)
        bias.mul_(0.0)
        return self.classes(self.after(y.relu_()) + bias[:, None, None])


class WrittenTwice(Base):
    """An instance norm, whose output is a view, written to twice; the same norm again."""

    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm2d(6, affine=True)

    def forward(self, x):
        y = self.norm(self.before(x)).mul_(1.5).relu_()
        return self.classes(self.relu(self.norm(self.after(y))))


class Slice(nn.Module):
    def forward(self, x):
        return x[:, :3]


class SliceWritten(Base):
    """A view that nobody else reads may be written to."""

    def __init__(self):
        super().__init__()
        self.slice = Slice()
        self.after = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x):
        return self.classes(self.after(self.slice(self.before(x)).relu_()))


class SliceSkip(Base):
    refused = ("slice",)

    def __init__(self):
        super().__init__()
        self.slice = Slice()

    def forward(self, x):
        x = self.before(x)
        part = self.slice(x)
        x.relu_()
        return self.classes(self.after(x) + torch.cat([part, part], 1))


class NormKept(Base):
    refused = ("norm",)
    traced = False

    def __init__(self):
        super().__init__()
        self.norm = KeepingNorm()

    def forward(self, x):
        kept: List[torch.Tensor] = []
        y = self.norm(self.before(x), kept)
        y.relu_()
        return self.classes(self.after(y) + kept[0])


class KeepingNorm(nn.Module):
    def forward(self, x, kept: List[torch.Tensor]):
        y = F.instance_norm(x)
        kept.append(y)
        return y


class Unseen(Base):
    """The graph does not show that atleast_3d returns its very input."""

    refused = ("norm",)

    def forward(self, x):
        return self.classes(self.after(torch.atleast_3d(self.norm(self.before(x))).relu_()))


class WritesInput(Base):
    def forward(self, x):
        x.mul_(2.0)
        return self.classes(self.after(self.before(x)))


class Dependent(Base):
    """How often a layer runs, and which, depends on the input."""

    traced = False

    def forward(self, x):
        y = self.before(x)
        if bool(x.mean() > 0):
            y = F.relu(self.norm(y))
        return self.classes(self.after(self.after(y)) if bool(x.mean() > 0) else self.after(y))


class Argmax(nn.Module):
    def forward(self, x):
        return x.argmax(1, keepdim=True)


class WithIntegers(Base):
    def __init__(self):
        super().__init__()
        self.largest = Argmax()

    def forward(self, x):
        y = self.before(x)
        return self.classes(self.after(y) * (1 + self.largest(y)))


NETWORKS = (
    DropoutFunction,
    ReluSkip,
    IdentitySkip,
    DropoutSkip,
    NormSkip,
    OwnNormNetwork,
    BiasWritten,
    WrittenTwice,
    SliceWritten,
    SliceSkip,
    NormKept,
    Unseen,
    WritesInput,
    Dependent,
    WithIntegers,
)
