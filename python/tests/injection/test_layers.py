"""The layers of live modules: what `auto` takes, what is told of each, and what is refused."""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed here")
monai = pytest.importorskip("monai", reason="MONAI is not installed here")

ROOT = Path(__file__).parents[3] / "tests"
sys.path[:0] = [str(ROOT / "networks"), str(ROOT / "wild")]

import layer_cases
import nets2d
import odd
import specs
from medcam_rs.errors import InputError
from medcam_rs.injection import _graph
from medcam_rs.injection._layers import discover
from monai.networks import nets
from torch import nn
from torchvision import models

# Tracing knows a module of two names by the longer one; `named_modules` by the first.
NAMES = {"monai_dynunet3d": "bottleneck"}


def first(output):
    if isinstance(output, dict):
        output = list(output.values())
    return output if isinstance(output, torch.Tensor) else output[0]


def layers_of(network, shape, **options):
    torch.manual_seed(1)
    return discover(network, (torch.randn(shape),), {}, first, **options)


def auto_of(network, shape):
    return layers_of(network.eval(), shape).select("auto")[0].name


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("spec", specs.SPECS, ids=lambda spec: spec.name)
def test_auto_is_that_of_the_file(spec, inplace):
    layers = layers_of(spec.build(inplace).eval(), (2, *spec.sample))
    assert layers.select("auto")[0].name == NAMES.get(spec.name, spec.auto)
    assert layers.task == spec.task
    # Another name of the module will do as well.
    assert layers.select(spec.auto)[0].name == NAMES.get(spec.name, spec.auto)
    assert len(layers.select([spec.named, *spec.several])) == 1 + len(spec.several)


IMAGE, VOLUME = (1, 3, 64, 64), (1, 1, 32, 32, 32)


@pytest.mark.parametrize(
    ("build", "shape", "auto"),
    [
        (models.densenet121, IMAGE, "features"),
        # The average pool of a small image leaves 7x7.
        (models.vgg11, IMAGE, "avgpool"),
        (models.mobilenet_v3_small, IMAGE, "features"),
        (models.efficientnet_b0, IMAGE, "features"),
        (models.convnext_tiny, IMAGE, "features"),
        (lambda: models.swin_t(), IMAGE, "permute"),
        # Patches alone are an image; the rest are tokens.
        (
            lambda: models.VisionTransformer(32, 8, 2, 2, 24, 32, num_classes=3),
            (1, 3, 32, 32),
            "conv_proj",
        ),
        # layer4 is one voxel thin.
        (models.video.r3d_18, (1, 3, 8, 32, 32), "layer3"),
        (
            lambda: models.segmentation.fcn_resnet50(weights_backbone=None, num_classes=3),
            (1, 3, 32, 32),
            "backbone.layer4",
        ),
        (
            lambda: models.segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None),
            IMAGE,
            "classifier.0",
        ),
        (lambda: nets.SegResNet(3, 16, 1, 3), VOLUME, "up_samples.0.0"),
        (
            lambda: nets.UNet(3, 1, 3, (6, 10, 16, 20), (2, 2, 2), num_res_units=2),
            VOLUME,
            "model.1.submodule.1.submodule.1",
        ),
        (
            lambda: nets.DenseNet121(3, 1, 3, init_features=16, growth_rate=8),
            (1, 1, 64, 64, 64),
            "class_layers.relu",
        ),
        (lambda: nets.BasicUNet(3, 1, 2, (4, 4, 8, 8, 16, 4)), VOLUME, "down_4"),
        (
            lambda: nets.AttentionUnet(3, 1, 2, (4, 8, 16), (2, 2)),
            VOLUME,
            "model.1.submodule.1.submodule",
        ),
    ],
)
def test_auto_of_known_architectures(build, shape, auto):
    assert auto_of(build(), shape) == auto


def test_auto_of_a_transformer_with_a_decoder():
    pytest.importorskip("einops", reason="einops, which MONAI's SwinUNETR needs, is not installed here")
    network = nets.SwinUNETR(in_channels=1, out_channels=3, feature_size=12, num_heads=(1, 2, 2, 4))
    assert auto_of(network, (1, 1, 64, 32, 32)) == "decoder5"


def test_the_axes_of_a_transformer():
    network = models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=3).eval()
    layers = layers_of(network, IMAGE)
    for name in ("features.1", "features.3.1.norm1", "features.3.1.mlp", "norm"):
        assert layers.get(name).channels_last, name
    assert not layers.get("permute").channels_last
    assert layers.get("features.3.1.norm1").voxels == 64


CASES = [
    (layer_cases.Padded, layer_cases.ONE, "r"),
    (lambda: layer_cases.Padded(3), layer_cases.VOLUME, "r"),
    (lambda: layer_cases.Padded(pad=nn.ReplicationPad2d(1)), layer_cases.TWO, "r"),
    (layer_cases.Vector, layer_cases.ONE, "r"),
    (layer_cases.Cropped, layer_cases.ONE, "r"),
    (lambda: layer_cases.Cropped(nn.Upsample(scale_factor=2.0)), layer_cases.ONE, "r"),
    (layer_cases.Tokens, (1, 1, 16, 24), "r"),
    (lambda: layer_cases.Tokens(3), (1, 1, 8, 12, 16), "r"),
    (lambda: layer_cases.Tokens(norm=True), (1, 1, 16, 24), "r"),
    *(
        (lambda tail=tail: layer_cases.Tailed(tail), layer_cases.ONE, "r")
        for tail in (
            nn.ZeroPad2d(-2),
            layer_cases.Crop(),
            nn.ReflectionPad2d(3),
            layer_cases.Flip(),
            nn.AvgPool2d(2),
        )
    ),
]


@pytest.mark.parametrize(("build", "shape", "auto"), CASES)
def test_auto_leaves_out_what_shows_no_image_or_redraws(build, shape, auto):
    assert auto_of(build(), shape) == auto


def test_what_is_told_of_layers_beside_auto():
    padded = layers_of(layer_cases.Padded().eval(), layer_cases.ONE)
    assert padded.select("pad")[0].regrids_one_voxel
    assert not padded.get("r").regrids_one_voxel
    tailed = layers_of(layer_cases.Tailed(nn.ZeroPad2d(-2)).eval(), layer_cases.ONE)
    assert tailed.select("d")[0].redraws_output
    assert not tailed.select("r")[0].redraws_output


class Calls(nn.Module):
    """`parts` are modules that `function(self, x)` calls."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    ("build", "shape", "choice", "words"),
    [
        (layer_cases.Redrawing, layer_cases.ONE, "auto", "redraws the output.*'c'"),
        (layer_cases.OnlyPadding, layer_cases.ONE, "auto", "single voxel.*'pad'"),
        (layer_cases.Functions, layer_cases.ONE, "auto", "runs none.*Only modules"),
        (layer_cases.Encoded, layer_cases.ONE, "encoder", r"list\[Tensor, Tensor\].*encoder.r"),
        (odd.Detached, (1, 1, 11, 13), "gate", "no gradient reaches it.*auto would take is 'conv'"),
        (odd.Detached, (1, 1, 11, 13), "mask", "no gradient reaches it"),
        (odd.Detached, (1, 1, 11, 13), "con", "none of this name. Near it: conv"),
        (odd.Detached, (1, 1, 11, 13), "conv#2", "runs 1 time"),
        (odd.Detached, (1, 1, 11, 13), "conv#x", "must be a number"),
        (odd.Detached, (1, 1, 11, 13), "head", "no spatial extent"),
        (layer_cases.Vector, layer_cases.ONE, [], "no name was given"),
    ],
)
def test_refusals_say_why(build, shape, choice, words):
    with pytest.raises(InputError, match=words):
        layers_of(build().eval(), shape).select(choice)


def test_a_module_that_does_not_run_is_refused():
    network = Calls(lambda self, x: self.a(x).mean((2, 3)), a=nn.Conv2d(1, 2, 3), b=nn.ReLU())
    with pytest.raises(InputError, match="did not run it"):
        layers_of(network, layer_cases.ONE).select("b")


def test_modules_that_hide_their_layers_are_refused():
    network = odd.Conv().eval()
    x = torch.randn(1, 1, 11, 13)
    with pytest.raises(InputError, match="medcam map"):
        layers_of(torch.jit.trace(network, x), x.shape)
    with pytest.raises(InputError, match="_orig_mod"):
        layers_of(torch.compile(network), x.shape)
    exported = torch.export.export(network, (x,))
    with pytest.raises(InputError, match="unflatten"):
        layers_of(exported.module(), x.shape).select("auto")
    assert auto_of(torch.export.unflatten(exported), x.shape) == "conv"


def state_of(network):
    flags = [parameter.requires_grad for parameter in network.parameters()]
    hooks = [len(part._forward_hooks) for part in network.modules()]
    grads = [parameter.grad for parameter in network.parameters()]
    modes = [part.training for part in network.modules()]
    return flags, hooks, grads, modes


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_module_is_as_it_was(training, fails):
    def forward(self, x):
        x = self.drop(self.norm(self.conv(x)))
        x.mul_(2)
        if fails:
            raise ArithmeticError("own")
        return x.mean((2, 3))

    parts = {"conv": nn.Conv2d(1, 2, 3), "norm": nn.BatchNorm2d(2), "drop": nn.Dropout(0.5)}
    network = Calls(forward, **parts).train(training)
    network.conv.weight.requires_grad_(False)
    before, x = state_of(network), torch.randn(3, 1, 8, 8)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    held, kept, seed = network.norm.running_mean, x.clone(), torch.get_rng_state()
    if fails:
        with pytest.raises(ArithmeticError, match="own"):
            discover(network, (x,), {}, first)
    else:
        discover(network, (x,), {}, first)
    assert state_of(network) == before
    assert torch.equal(torch.get_rng_state(), seed) and torch.equal(x, kept)
    assert not x.requires_grad and network.norm.running_mean is held
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def gradients(network, x):
    """Of a score in each layer's last run, and the output, in float64."""
    kept = {}
    handles = []
    for name, part in network.named_modules():
        if name:

            def hook(module, args, output, name=name):
                kept[name] = output
                return output.clone()

            handles.append(part.register_forward_hook(hook))
    output = network(x)
    for handle in handles:
        handle.remove()
    score = output[:, 0].sum()
    told = torch.autograd.grad(score, list(kept.values()), allow_unused=True)
    return dict(zip(kept, told))


@pytest.mark.parametrize("name", ["unet3d", "monai_dynunet3d", "monai_unet3d"])
def test_weights_cancel_where_mean_gradients_are_zero(name):
    spec = next(spec for spec in specs.SPECS if spec.name == name)
    torch.manual_seed(spec.seed)
    network = spec.build(False).eval().double()
    x = torch.randn(1, *spec.sample, dtype=torch.float64)
    found = discover(network, (x,), {}, first, score="output")
    told = gradients(network, x.requires_grad_())
    seen = set()
    for layer in found:
        gradient = told.get(layer.name)
        if gradient is None or not layer.can_carry_map:
            continue
        means = gradient.mean((2, 3, 4)).abs().max()
        scale = gradient.abs().mean()
        assert (means <= 1e-12 * max(scale, 1)) == layer.weights_cancel, layer.name
        seen.add(layer.weights_cancel)
    assert seen == {True, False}


def test_redrawing_layers_have_one_gradient_at_every_voxel():
    network = nets2d.FlatSegmenter(False).eval().double()
    x = torch.randn(1, 3, 12, 14, dtype=torch.float64)
    found = discover(network, (x,), {}, first)
    told = gradients(network, x.requires_grad_())
    # Behind the last ReLU the gradient of each channel is a constant.
    for name in ("head.1", "head.2"):
        gradient = told[name]
        assert (gradient - gradient[..., :1, :1]).abs().max() <= 1e-12
        assert found.get(name).redraws_output
    gradient = told["mid"]
    assert (gradient - gradient[..., :1, :1]).abs().max() > 1e-6
    assert not found.get("mid").redraws_output


@pytest.mark.parametrize("spec", specs.SPECS, ids=lambda spec: spec.name)
def test_an_ordinary_forward_tells_the_same(spec):
    """With parameters that require gradients, and an input that does not."""
    network = spec.build(False).eval()
    x = torch.randn(1, *spec.sample)
    found = discover(network, (x,), {}, first)
    values = {}
    handles = [
        part.register_forward_hook(
            lambda module, args, output, name=name: values.update({name: _graph.value_of(output)})
        )
        for name, part in network.named_modules()
        if name
    ]
    output = network(x)
    for handle in handles:
        handle.remove()
    told = _graph.facts(output, values, input_shape=tuple(x.shape))
    for layer in found:
        facts = told[layer.name]
        assert facts.weights_cancel == layer.weights_cancel, layer.name
        if layer.can_carry_map:
            assert facts.reaches_score, layer.name
            is_segmentation = found.task == "segmentation"
            assert (is_segmentation and facts.redraws_output) == layer.redraws_output, layer.name


def test_the_score_may_be_the_output():
    network = nets2d.UNet(False, 3, shared=False).eval()
    assert layers_of(network, (1, 3, 33, 47)).ends_in == "softmax"
    soft = Calls(lambda self, x: self.s(self.c(x)), c=nn.Conv2d(1, 2, 3), s=nn.Softmax(1))
    assert not layers_of(soft, layer_cases.ONE).get("s").can_carry_map
    at_output = layers_of(soft, layer_cases.ONE, score="output").get("s")
    assert at_output.can_carry_map and at_output.redraws_output


def test_runs_are_counted_and_parents_come_first():
    layers = layers_of(nets2d.SharedActivationClassifier(True).eval(), (1, 3, 16, 16))
    assert layers.get("act").runs == 3
    assert [chosen.run for chosen in layers.select(["act#1", "act"])] == [1, 3]
    names = [layer.name for layer in layers_of(nets2d.resnet18(True).eval(), (1, 3, 65, 71))]
    assert names.index("layer1") < names.index("layer1.0") < names.index("layer1.0.conv1")
