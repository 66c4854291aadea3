"""Scores, and the targets that stand for several."""

import numpy
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from torch import nn

from medcam_rs.errors import InputError
from medcam_rs.injection import _targets, inject


class Segmenter(nn.Module):
    """The two channels of the input blurred, against a background of 0."""

    def __init__(self):
        super().__init__()
        self.blur = nn.Conv2d(2, 2, 3, padding=1, groups=2)
        nn.init.constant_(self.blur.weight, 1 / 9)
        nn.init.zeros_(self.blur.bias)
        self.mix = nn.Conv2d(2, 2, 3, padding=1)
        nn.init.dirac_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x):
        y = self.mix(self.blur(x))
        return torch.cat([torch.zeros_like(y[:, :1]) + 0.1, y], 1)


def scan():
    x = torch.zeros(2, 2, 12, 14)
    x[0, 0, 1:4, 1:4] = 3  # the smaller lesion of class 1
    x[0, 0, 7:11, 6:12] = 3
    x[1, 1, 2:9, 3:6] = 3  # class 2
    return x


def gradient(net, x, score):
    seen = []
    handle = net.blur.register_forward_hook(lambda m, a, y: seen.append(y))
    total = score(net(x))
    handle.remove()
    (found,) = torch.autograd.grad(total, seen)
    raw = (found * seen[0].detach()).sum(1, keepdim=True).clamp_min(0)
    low, high = raw.amin((1, 2, 3), keepdim=True), raw.amax((1, 2, 3), keepdim=True)
    return (raw - low) / torch.where(high > low, high - low, 1)


@pytest.mark.filterwarnings("ignore::medcam_rs.injection.AttentionWarning")
def test_each_kind_of_target_sums_what_it_says():
    net, x = Segmenter(), scan()
    y = net(x).detach()
    mask = torch.rand(12, 14)
    scores = {
        "best": lambda y: y[0, 1].sum() + y[1, 2].sum(),
        "1": lambda y: y[:, 1].sum(),
        "all": lambda y: y.sum(),
        "predicted:2": lambda out: (out[:, 2] * (y.argmax(1) == 2)).sum(),
        "region": lambda y: (y[:, 2] * mask).sum(),
        "classes": lambda y: y[0, 2].sum() + y[1, 1].sum(),
        "function": lambda y: (y**2).sum(),
    }
    asked = {"region": (2, mask), "classes": [2, 1], "function": lambda y: y**2}
    inject(net, layer="blur", backend="hirescam")
    for label, score in scores.items():
        net.disable_medcam()
        truth = gradient(net, x, score)
        net.enable_medcam()
        net(x, label=asked.get(label, label))
        (one,) = net.attention_maps()
        assert float((one.values - truth).abs().max()) < 1e-5, label
    net(x, label=None)
    assert net.attention_maps()[0].target == "all"


@pytest.mark.filterwarnings("ignore::medcam_rs.injection.AttentionWarning")
def test_components_have_a_map_each_the_largest_first():
    net, x = Segmenter(), scan()
    inject(net, layer="blur", backend="hirescam", label=("components:1", "each"))
    net(x)
    maps = {one.target: one for one in net.attention_maps()}
    assert list(maps) == ["component1", "component2", "class0", "class1", "class2"]
    first, second = maps["component1"].values[0, 0], maps["component2"].values[0, 0]
    assert float(first[8, 8]) > 0.5 and float(first[2, 2]) == 0
    assert float(second[2, 2]) > 0.5 and float(second[8, 8]) == 0
    empty = [w for w in net.warnings() if w.code == "EMPTY_TARGET"]
    assert [(w.sample, "component" in w.message) for w in empty] == [(1, True), (1, True)]


def test_shapes_of_outputs():
    one, two = (1, 3, 8, 8), (2, 3, 8, 8)
    for grid, output, expected in (
        (one, (), (1, 1)),
        (one, (5,), (1, 5)),
        (two, (2,), (2, 1)),
        (two, (2, 5), (2, 5)),
    ):
        assert _targets.batched_shape(grid, output, None) == expected
    for grid, output in ((one, (5, 1)), (two, (1, 5)), (two, ())):
        with pytest.raises(InputError, match="its first axis is not the batch"):
            _targets.batched_shape(grid, output, None)
    with pytest.raises(InputError, match="last axis"):
        _targets.task_of((1, 1, 8, 9), (1, 8, 9, 3))


@pytest.mark.filterwarnings("ignore::medcam_rs.injection.AttentionWarning")
@pytest.mark.parametrize("label", ["best", 1, "predicted:2", (2, torch.ones(12, 14))])
def test_a_softmax_over_flat_voxels_has_its_logits(label):
    class Flat(Segmenter):
        def forward(self, x):
            y = super().forward(x)
            return y.flatten(2).softmax(1).view_as(y) if self.flat else y

    net, x = Flat(), scan()
    net.flat = False
    inject(net, layer="blur", backend="hirescam", label=label)(x)
    expected = net.attention_maps()[0].values
    net.flat = True
    net(x)
    assert torch.equal(net.attention_maps()[0].values, expected)


@pytest.mark.parametrize("label", ["worst", "predicted:", -1, 1.5, (), "components:x"])
def test_labels_that_are_none_are_refused(label):
    with pytest.raises(InputError, match="label"):
        inject(nn.Conv2d(1, 1, 1), label=label)


@pytest.mark.parametrize(
    "label",
    (
        torch.tensor(1.9),
        torch.tensor(True),
        torch.tensor([1.7, 0.2]),
        numpy.array(1.7),
        numpy.array(True),
        1.0,
        True,
    ),
)
def test_what_is_no_whole_number_is_no_class(label):
    with pytest.raises(InputError, match="label"):
        _targets.parse(label)


@pytest.mark.parametrize("label", (2, torch.tensor(2), numpy.int64(2), numpy.array(2)))
def test_whole_numbers_of_any_library_are_classes(label):
    assert _targets.parse(label) == _targets.parse(2)
