"""A call on a device waits once. The CPU's tensors pass for a device's here: what would wait is counted."""

import numpy
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from medcam_rs import _native
from medcam_rs.errors import InputError
from medcam_rs.injection import _readback, inject

pytestmark = pytest.mark.filterwarnings("ignore::medcam_rs.injection.AttentionWarning")

LEAVING = ("cpu", "item", "numpy", "tolist", "__array__", "__iter__")
"""Methods that take values to the host."""


class Waits(TorchDispatchMode):
    """While it is entered, lists what would wait for a device; tensors pass for those of one."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.seen = []
        monkeypatch.setattr(_readback, "is_on_device", lambda tensor: True)
        for name in LEAVING:
            monkeypatch.setattr(torch.Tensor, name, self.counted(name, getattr(torch.Tensor, name)))
        for name in ("cam", "guided_cam", "components"):
            monkeypatch.setattr(_native, name, self.counted(name, getattr(_native, name)))

    def counted(self, name, method):
        def call(*args, **kwargs):
            self.seen.append(name)
            return method(*args, **kwargs)

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
        if any(tag in func.tags for tag in waits):
            self.seen.append(str(func))
        return func(*args, **kwargs or {})


def block(inputs, outputs, stride=1):
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = block(2, 6), block(6, 8, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.second(self.first(x)).mean((2, 3)))


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = block(2, 6), block(6, 8, 2), block(8, 8)
        self.head = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        x = self.third(self.second(self.first(x)))
        return self.head(nn.functional.interpolate(x, scale_factor=2, mode="bilinear"))


def made(kind, dtype=torch.float32):
    torch.manual_seed(3)
    return kind().eval().to(dtype), torch.randn(2, 2, 12, 16, dtype=dtype)


def told(net):
    """All that a call leaves behind, but for values."""
    maps = [
        (one.layer, one.target, one.ranges, one.classes, one.weights_cancel, one.unstable_weights)
        for one in net.attention_maps()
    ]
    return maps, net.warnings()


def check(monkeypatch, net, x, options, waits=("cpu", "numpy"), **call):
    """Both ways tell the same, and a device waits for `waits`."""
    inject(net, **options)
    expected_output = net(x, **call)
    expected, values = told(net), [one.values for one in net.attention_maps()]
    assert values
    with Waits(monkeypatch) as counted:
        output = net(x, **call)
    monkeypatch.undo()
    assert counted.seen == list(waits)
    assert torch.equal(output, expected_output)
    assert told(net) == expected
    for one, value in zip(net.attention_maps(), values):
        assert torch.equal(one.values, value)


TARGETS = {
    "best": "best",
    "class": 1,
    "all": "all",
    "classes": [1, 0],
    "each": "each",
    "several": ("best", 2),
    "function": lambda y: y**2,
}
OF_VOXELS = {
    "predicted": "predicted:1",
    "two": ("predicted:0", "best"),
    "region": (2, torch.ones(12, 16)),
    "best_region": ("best", torch.ones(2, 12, 16)),
}
BACKENDS = ("gcam", "gcampp", "hirescam", "layercam", "gbp", "ggcam")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_classifier_waits_once(monkeypatch, backend, target):
    options = {} if backend == "gbp" else {"layer": ["first", "second"]}
    options |= {"backend": backend, "label": TARGETS[target]}
    check(monkeypatch, *made(Classifier), options)


@pytest.mark.parametrize("target", TARGETS | OF_VOXELS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_segmenter_waits_once(monkeypatch, backend, target):
    options = {} if backend == "gbp" else {"layer": "second"}
    options |= {"backend": backend, "label": (TARGETS | OF_VOXELS)[target]}
    check(monkeypatch, *made(Segmenter), options)


@pytest.mark.parametrize("backend", ("gcam", "hirescam", "layercam", "ggcam"))
@pytest.mark.parametrize("options", ({}, {"data_shape": (5, 7)}, {"data_shape": None}), ids=str)
def test_all_layers_wait_once(monkeypatch, backend, options):
    net, x = made(Segmenter)
    check(monkeypatch, net, x, {"backend": backend, "layer": "full", **options})


@pytest.mark.parametrize("how", ("mean", "max"))
@pytest.mark.parametrize("backend", ("gcam", "ggcam"))
def test_fused_layers_wait_once(monkeypatch, backend, how):
    options = {"backend": backend, "layer": ["first", "second", "third"], "fuse": how}
    check(monkeypatch, *made(Segmenter), options)


def test_noise_is_left_out_of_a_fused_map_without_a_wait(monkeypatch):
    class Normed(Segmenter):
        def __init__(self):
            super().__init__()
            self.second[1] = nn.InstanceNorm2d(8)

    options = {"layer": ["second.0", "third"], "fuse": "mean", "label": 1}
    net, x = made(Normed)
    check(monkeypatch, net, x, options)
    (warned,) = (one for one in net.warnings() if one.sample == 0)
    assert warned.code == "WEIGHTS_CANCEL" and "leaves this one out" in warned.message
    (fused,) = net.attention_maps()
    net.eject()
    inject(net, layer="third", label=1)(x)
    (alone,) = net.attention_maps()
    assert torch.allclose(fused.values, alone.values, atol=1e-6)


@pytest.mark.parametrize("backend", ("gcam", "ggcam"))
def test_float64_waits_once(monkeypatch, backend):
    options = {"backend": backend, "layer": "second"}
    check(monkeypatch, *made(Segmenter, torch.float64), options)


def test_negative_activations_of_grad_cam_plus_plus_wait_again(monkeypatch):
    options = {"backend": "gcampp", "layer": "second.0"}
    check(monkeypatch, *made(Segmenter), options, waits=("cpu", "numpy", "tolist"))


def test_components_wait_for_the_prediction(monkeypatch):
    net, x = made(Segmenter)
    inject(net, layer="second", label="components:1")
    net(x)
    with Waits(monkeypatch) as counted:
        net(x)
    assert counted.seen.count("components") == 1


@pytest.mark.parametrize("backend", ("gcam", "gbp"))
def test_a_gradient_of_zero_is_warned_of(monkeypatch, backend):
    class Still(Classifier):
        def forward(self, x):
            return super().forward(x) * torch.tensor([0.0, 1, 1, 1])

    net, x = made(Still)
    options = {"backend": backend, "label": 0}
    check(monkeypatch, net, x, options)
    assert [one.code for one in net.warnings()] == ["ZERO_GRADIENT"] * 2


@pytest.mark.parametrize("what", ("input", "output", "mask", "tiny", "guided"))
def test_what_is_refused_late_is_refused_in_the_same_words(monkeypatch, what):
    class Broken(Segmenter):
        def forward(self, x):
            y = super().forward(x.nan_to_num())
            if y.requires_grad:
                # The kernels of the CPU would refuse it first.
                y.register_hook(torch.nan_to_num)
            return y + (torch.inf if what == "output" else 0)

    dtype = torch.float64 if what in ("tiny", "guided") else torch.float32
    net, x = made(Broken, dtype)
    options = {"layer": "second", "label": 1}
    if what == "mask":
        options["label"] = (1, torch.full((12, 16), torch.nan))
    if what in ("tiny", "guided"):
        options["label"] = lambda y: 1e-60 * y
    if what == "guided":
        options = {"backend": "gbp", "label": options["label"]}
    inject(net, **options)
    if what == "input":
        x[1, 0, 3, 4] = torch.nan
    with pytest.raises(InputError) as expected:
        net(x)
    monkeypatch.setattr(_readback, "is_on_device", lambda tensor: True)
    with pytest.raises(InputError) as found:
        net(x)
    assert str(found.value) == str(expected.value)


def test_values_come_back_in_their_slots(monkeypatch):
    for is_on_device in (False, True):
        monkeypatch.setattr(_readback, "is_on_device", lambda tensor: is_on_device)
        readback = _readback.Readback()
        readback.fetch()
        floats = readback.ask(torch.tensor([[1.5, -0.0]], dtype=torch.float16))
        flags = readback.ask(torch.tensor([True, False]))
        numbers = readback.ask(torch.tensor(7))
        nothing = readback.ask(torch.tensor(torch.nan))
        readback.fetch()
        assert floats.floats() == [1.5, 0] and numpy.signbit(floats.floats()[1])
        assert (flags.integers(), numbers.integers()) == ([1, 0], [7])
        assert numpy.isnan(nothing.floats()).all()
