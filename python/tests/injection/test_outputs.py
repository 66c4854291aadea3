"""What networks take and return: several tensors, in many containers, and numbers of any size."""

import dataclasses
import types

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from small import Net, made

from medcam_rs.errors import InputError
from medcam_rs.injection import inject


class Heads(Net):
    """Several outputs, in a dict."""

    def forward(self, x, other=None):
        features = self.first(x)
        if other is not None:
            features = features + other
        image = self.second(features)
        return {"count": len(x), "aux": self.head(image.mean((2, 3))), "parts": (image, features)}


def test_several_inputs_and_outputs():
    torch.manual_seed(0)
    net, x = Heads().eval(), torch.randn(2, 2, 15, 17)
    other = torch.randn(2, 6, 15, 17, requires_grad=True)
    plain = net(x, other=other)
    inject(net, layer="first")
    output = net(x, other=other)
    assert list(output) == list(plain) and output["count"] == 2
    assert torch.equal(output["aux"], plain["aux"]) and not output["aux"].requires_grad
    assert all(torch.equal(new, old) for new, old in zip(output["parts"], plain["parts"]))
    by_default = net.attention_maps()[0].values
    assert other.grad is None
    net.eject()
    for which in (1, "aux"):
        inject(net, layer="first", output=which)(x, other=other)
        assert torch.equal(net.attention_maps()[0].values, by_default)
        net.eject()
    inject(net, layer="first", output="parts.1", label=0)
    net(x, other=other)
    assert not torch.equal(net.attention_maps()[0].values, by_default)
    net.eject()
    inject(net, layer="first", output="none")
    with pytest.raises(InputError, match="1 or 'aux', 2 or 'parts.0'"):
        net(x)


@dataclasses.dataclass(frozen=True)
class Parts:
    image: torch.Tensor
    scores: torch.Tensor


@pytest.mark.parametrize("kind", (Parts, lambda *parts: types.MappingProxyType(dict(enumerate(parts)))))
def test_an_output_that_cannot_be_written_to(kind):
    class Wrapped(Net):
        def forward(self, x):
            image = self.second(self.first(x))
            return kind(image, self.head(image.mean((2, 3))))

    torch.manual_seed(0)
    net, x = Wrapped().eval(), torch.randn(2, 2, 15, 17)
    inject(net, layer="first", output=1)
    output = net(x)
    assert type(output) is type(kind(x, x)) and len(net.attention_maps()) == 1
    parts = vars(output).values() if isinstance(output, Parts) else output.values()
    assert not any(part.requires_grad for part in parts)


def test_another_argument_that_is_as_long_as_the_batch_by_chance():
    class Weighed(Net):
        def forward(self, x, weights):
            return super().forward(x) @ weights

    torch.manual_seed(0)
    net, x, weights = Weighed(classes=2).eval(), torch.randn(2, 2, 15, 17), torch.randn(2, 4)
    plain = net(x, weights).detach()
    inject(net, layer="second", label=3)
    assert torch.equal(net(x, weights), plain) and len(net.attention_maps()) == 1


def test_scores_in_float64_that_float32_cannot_hold():
    net, x = made()
    net, x = net.double(), x.double()
    inject(net, layer="second", label=1)(x)
    expected = net.attention_maps()[0].values
    with torch.no_grad():
        net.head.weight *= 1e-45
    with pytest.raises(InputError, match="layer 'second'.*too small for float32"):
        net(x)
    net(x, label=lambda y: 1e45 * y[:, 1])
    assert torch.allclose(net.attention_maps()[0].values, expected, atol=1e-5)
