"""The guided rule where activations write in place, on views, or are clamps."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from torch import nn
from torch.nn import functional as F

from medcam_rs.errors import InputError
from medcam_rs.injection import inject


class Rule(torch.autograd.Function):
    """ReLU with the guided rule."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (gradient > 0) * (x > 0)


class Forms(nn.Module):
    """ReLU in many forms; `plain` is the same by `Rule` alone."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        y = self.first(x)
        F.relu(y.view(len(y), 6, -1), inplace=True)
        y = F.relu6(self.second(y))
        y = F.hardtanh(y, 0.0, 3.0).clamp(min=0)
        y = y - y.mean((2, 3), keepdim=True)
        y[:, :2].relu_()
        y = F.threshold(y, 0, 0).clamp_min_(0)
        return self.head(y.mean((2, 3)))

    def plain(self, x):
        y = Rule.apply(self.second(Rule.apply(self.first(x))))
        y = Rule.apply(Rule.apply(y))
        y = y - y.mean((2, 3), keepdim=True)
        y = torch.cat([Rule.apply(y[:, :2]), y[:, 2:]], 1)
        return self.head(Rule.apply(Rule.apply(y)).mean((2, 3)))


def test_every_form_of_relu_is_guided_and_computes_the_same():
    torch.manual_seed(2)
    net, x = Forms().eval(), torch.randn(2, 2, 9, 11)
    with torch.no_grad():
        output = net(x)
    inject(net, backend="gbp", label=1)
    assert torch.equal(net(x), output)
    (one,) = net.attention_maps()
    assert net.warnings() == []
    net.eject()
    leaf = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(net.double().plain(leaf)[:, 1].sum(), leaf)
    mean = gradient.mean(1, keepdim=True)
    low, high = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
    assert float((one.values - (mean - low) / (high - low)).abs().max()) < 1e-5


def test_what_is_not_guided_is_told():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 8, 8)
    some = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GELU(), nn.Conv2d(4, 2, 4)
    )
    none = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU(), nn.Conv2d(4, 2, 6))
    with pytest.warns(UserWarning, match="PARTLY_GUIDED.*1 gelu"):
        inject(nn.Sequential(some, nn.Flatten()), backend="gbp", label=0)(x)
    with pytest.raises(InputError, match="no ReLU, but 1 elu.*guide='all'"):
        inject(nn.Sequential(none, nn.Flatten()), backend="gbp", label=0)(x)


@pytest.mark.parametrize(
    "relu",
    (
        lambda x: torch.maximum(x, torch.zeros(())),
        lambda x: torch.maximum(torch.zeros_like(x), x),
        lambda x: x.max(torch.zeros(1)),
        lambda x: torch.fmax(input=x, other=torch.zeros(())),
        lambda x: x.clamp(torch.zeros(())),
        lambda x: torch.clamp(x, min=torch.tensor(0.0), max=torch.tensor(9.0)),
    ),
)
def test_a_relu_of_two_tensors_is_guided(relu):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 6)
            self.relu = F.relu

        def forward(self, x):
            return self.second(self.relu(self.first(x)) + 0 * x.max(3)[0].max()).flatten(1)

    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 1, 8, 8)
    inject(net, backend="gbp", label=1)(x)
    expected = net.attention_maps()[0].values
    net.relu = relu
    net(x)
    assert torch.equal(net.attention_maps()[0].values, expected) and not net.warnings()


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 6)

    def forward(self, x):
        return self.conv(x).relu()


def test_activations_in_torchscript_are_told():
    scripted = torch.jit.script(Scripted().eval())
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), scripted, nn.Flatten()).eval()
    with pytest.warns(UserWarning, match="PARTLY_GUIDED.*TorchScript of '2'"):
        inject(net, backend="gbp", label=0)(torch.randn(1, 1, 8, 8))
    net.eject()
    net[1] = nn.Identity()
    with pytest.raises(InputError, match="no ReLU, but those in the TorchScript of '2'"):
        inject(net, backend="gbp", label=0)(torch.randn(1, 1, 8, 8))
