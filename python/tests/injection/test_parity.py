"""Maps of live modules against plain autograd in float64."""

import copy

import pytest
from truth import (
    METHODS,
    activations_and_gradients,
    best_of,
    finished,
    normalized,
    raw_map,
    score_of,
    tolerance,
)

# They are there: `truth` skips where one is not, and knows the folder of `specs`.
import monai  # isort: skip
import torch  # isort: skip
import torchvision  # isort: skip
from specs import SPECS  # isort: skip
from torch.nn import functional as F

from medcam_rs.injection import inject


def built(spec, inplace):
    torch.manual_seed(spec.seed)
    return spec.build(inplace).eval()


def batch_of(spec, count=2):
    torch.manual_seed(100 + spec.seed)
    return torch.randn(count, *spec.sample)


def classes_of(net, x, label):
    with torch.no_grad():
        y = getattr(net, "logits", net)(x)
    return best_of(y) if label == "best" else [label] * len(x)


def check(net, twin, x, names, label, method, **options):
    """The maps of all layers at once; `twin` is the network without in-place operations."""
    classes = classes_of(twin, x, label)
    exact, _ = activations_and_gradients(
        copy.deepcopy(twin).double(), x.double(), names, score_of(classes)
    )
    single, _ = activations_and_gradients(copy.deepcopy(twin), x, names, score_of(classes))
    with torch.no_grad():
        plain = net(x.clone())
    inject(net, backend=method, layer=list(names), label=label, **options)
    output = net(x.clone())
    maps = net.attention_maps()
    net.eject()
    assert torch.equal(output, plain) and not output.requires_grad
    assert [one.layer for one in maps] == list(names)
    says = []
    for one in maps:
        size = x.shape[2:]
        truth = finished(raw_map(*exact[one.layer], method), size)
        rough = finished(raw_map(*single[one.layer], method), size)
        assert one.values.dtype == torch.float32 and one.classes == classes
        error = float((one.values.double() - truth).abs().max())
        assert error <= tolerance(truth, rough), (one.layer, error)
        says.append(float(truth.max()) == 1)
    # A map that is the same everywhere would fit by chance.
    assert any(says)


@pytest.mark.filterwarnings("ignore::medcam_rs.injection.AttentionWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_several_layers_of_one_forward_are_autograds(spec, method):
    net, twin, x = built(spec, True), built(spec, False), batch_of(spec)
    twin.load_state_dict(net.state_dict())
    check(net, twin, x, spec.several, spec.label, method)


@pytest.mark.filterwarnings("ignore::medcam_rs.injection.AttentionWarning")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_one_layer_and_another_class_are_autograds(spec):
    net, twin, x = built(spec, True), built(spec, False), batch_of(spec, 1)
    twin.load_state_dict(net.state_dict())
    for label in (spec.label, spec.other_label):
        check(net, twin, x, (spec.named,), label, "hirescam")


class Guided:
    """Activations with the guided rule as a function of their own, in place of PyTorch's."""

    def __init__(self, plain):
        self.plain = plain

    def __call__(self, x, *args, **kwargs):
        kwargs.pop("inplace", None)
        args = tuple(arg for arg in args if not isinstance(arg, bool))
        plain = self.plain

        class Rule(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return plain(x, *args, **kwargs)

            @staticmethod
            def backward(ctx, gradient):
                (x,) = ctx.saved_tensors
                with torch.enable_grad():
                    x = x.detach().requires_grad_()
                    (through,) = torch.autograd.grad(plain(x, *args, **kwargs), x, gradient)
                return through * (gradient > 0) * (x > 0)

        return Rule.apply(x)


RELUS = [(F, "relu"), (torch, "relu"), (F, "relu6"), (torch, "relu_")]
OTHERS = [(F, "leaky_relu"), (F, "prelu"), (F, "silu"), (F, "gelu"), (F, "elu")]


@pytest.mark.filterwarnings("ignore::medcam_rs.injection.AttentionWarning")
@pytest.mark.parametrize("guide", ["relu", "all"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_guided_maps_are_those_of_guided_functions(spec, guide, monkeypatch):
    net, twin, x = built(spec, True), built(spec, False), batch_of(spec)
    twin.load_state_dict(net.state_dict())
    classes = classes_of(twin, x, spec.label)
    with torch.no_grad():
        plain = net(x.clone())
    found = {}
    for backend in ("gbp", "ggcam"):
        inject(net, backend=backend, layer=spec.several[0], label=spec.label, guide=guide)
        try:
            output = net(x.clone())
        except ValueError as error:
            assert guide == "relu" and "nothing in the network was guided" in str(error)
            net.eject()
            return
        assert torch.equal(output, plain)
        found[backend] = net.attention_maps()[0]
        net.eject()
    layer, _ = activations_and_gradients(
        copy.deepcopy(twin).double(), x.double(), spec.several[:1], score_of(classes)
    )
    with monkeypatch.context() as patched:
        for where, name in RELUS + (OTHERS if guide == "all" else []):
            patched.setattr(where, name, Guided(getattr(where, name)))
        _, guided = activations_and_gradients(
            copy.deepcopy(twin).double(), x.double(), (), score_of(classes)
        )
    mean = guided.mean(1, keepdim=True)
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    cam = F.interpolate(raw_map(*layer[spec.several[0]], "gcam"), x.shape[2:], mode=mode)
    for backend, truth in (("gbp", mean), ("ggcam", cam * mean)):
        one = found[backend]
        assert one.signed
        error = float((one.values.double() - normalized(truth)).abs().max())
        assert error <= 2e-5, (backend, error)


def test_every_layer_at_once_is_each_alone():
    spec = next(spec for spec in SPECS if spec.name == "residual2d")
    net, x = built(spec, True), batch_of(spec)
    inject(net, layer="full", label=1)(x)
    together = net.attention_maps()
    net.eject()
    assert len(together) > 10
    for one in together:
        inject(net, layer=one.layer, label=1)(x)
        assert torch.equal(net.attention_maps()[0].values, one.values), one.layer
        net.eject()


def test_runs_of_one_layer_are_told_apart():
    spec = next(spec for spec in SPECS if spec.name == "shared2d")
    net, x = built(spec, True), batch_of(spec)
    inject(net, layer=["act#1", "act#2", "act#3", "act"], label=0)(x)
    maps = {one.layer: one for one in net.attention_maps()}
    net.eject()
    assert torch.equal(maps["act"].values, maps["act#3"].values)
    assert not torch.equal(maps["act#1"].values, maps["act#3"].values)
    # The first run's gradient is that at the convolution behind it, whose activation it writes.
    twin = built(spec, False)
    seen = []
    twin.act.register_forward_hook(lambda m, a, output: seen.append(output))
    score = twin.double()(x.double())[:, 0].sum()
    gradients = torch.autograd.grad(score, seen)
    for k, (a, g) in enumerate(zip(seen, gradients), 1):
        truth = finished(raw_map(a.detach(), g, "gcam"), x.shape[2:])
        assert float((maps[f"act#{k}"].values - truth).abs().max()) < 1e-5


def test_one_sample_is_as_in_its_batch():
    spec = next(spec for spec in SPECS if spec.name == "unet2d")
    net, x = built(spec, True), batch_of(spec, 3)
    inject(net, layer="bottleneck")(x)
    together = net.attention_maps()[0]
    for b in range(3):
        net(x[b : b + 1])
        alone = net.attention_maps()[0]
        assert alone.classes == together.classes[b : b + 1]
        assert float((alone.values[0] - together.values[b]).abs().max()) < 1e-5


def test_classes_from_one_forward_equal_each_alone():
    spec = next(spec for spec in SPECS if spec.name == "unet2d")
    net, x = built(spec, True), batch_of(spec)
    calls = []
    net.bottleneck.register_forward_hook(lambda *_: calls.append(1))
    inject(net, layer=["enc2", "bottleneck"], label=(0, 1, 2))(x)
    calls.clear()
    net(x)
    assert len(calls) == 1
    together = net.attention_maps()
    assert [one.target for one in together[::2]] == ["class0", "class1", "class2"]
    for k in range(3):
        net(x, label=k)
        for one, alone in zip(together[2 * k : 2 * k + 2], net.attention_maps()):
            assert torch.equal(one.values, alone.values)


@pytest.mark.filterwarnings("ignore::medcam_rs.injection.AttentionWarning")
@pytest.mark.parametrize(
    "name, build, shape, layers",
    [
        (
            "torchvision_resnet18",
            lambda: torchvision.models.resnet18(weights=None, num_classes=7),
            (2, 3, 64, 64),
            ("layer2", "layer4"),
        ),
        (
            "torchvision_r3d_18",
            lambda: torchvision.models.video.r3d_18(weights=None, num_classes=5),
            (1, 3, 4, 32, 32),
            ("layer2", "layer4"),
        ),
        (
            "monai_unet",
            lambda: monai.networks.nets.UNet(
                3, 1, 3, (8, 16, 32), (2, 2), num_res_units=1, act="relu", norm="batch"
            ),
            (2, 1, 16, 24, 16),
            ("model.0", "model.1.submodule.1"),
        ),
        (
            "monai_dynunet",
            lambda: monai.networks.nets.DynUNet(
                3, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[8, 16, 16], norm_name="batch"
            ),
            (1, 1, 8, 16, 12),
            ("bottleneck", "upsamples.0"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_networks_of_the_libraries(name, build, shape, layers):
    torch.manual_seed(3)
    net = build().eval()
    twin = copy.deepcopy(net)
    for module in twin.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    check(net, twin, torch.randn(shape), layers, 1, "gcam")


@pytest.mark.parametrize("spec", [s for s in SPECS if s.after_tail], ids=lambda spec: spec.name)
def test_the_score_may_be_taken_behind_the_final_activation(spec):
    net, x = built(spec, False), batch_of(spec)
    inject(net, layer=spec.after_tail, label=0, score_at="output")(x)
    one = net.attention_maps()[0]
    net.eject()
    twin = copy.deepcopy(net).double()
    seen = []
    twin.get_submodule(spec.after_tail).register_forward_hook(lambda m, a, y: seen.append(y))
    score = twin(x.double())[:, 0].sum()
    (gradient,) = torch.autograd.grad(score, seen[-1])
    truth = finished(raw_map(seen[-1].detach(), gradient, "gcam"), x.shape[2:])
    assert float((one.values - truth).abs().max()) < 2e-5
