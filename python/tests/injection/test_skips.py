"""The backward that spares what nobody needs: the same outputs, the same gradients."""

import gc
import itertools
import random
import weakref

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from medcam_rs.injection._skips import is_available, needed_parts_only  # noqa: E402

pytestmark = pytest.mark.skipif(
    not is_available(), reason="this PyTorch has not what the spared backward stands on"
)
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def both(run, leaf, replaced, exact=True):
    """Runs without and with the mode; the outputs and the leaf's gradients."""
    plain = run(leaf)
    (expected,) = torch.autograd.grad(plain.float().square().sum(), [leaf])
    with needed_parts_only() as mode:
        output = run(leaf)
    assert mode.replaced == replaced
    assert torch.equal(plain, output)
    (gradient,) = torch.autograd.grad(output.float().square().sum(), [leaf])
    assert expected.any()
    assert gradient.dtype == expected.dtype
    if exact:
        assert torch.equal(expected, gradient)
    else:
        bound = (1e-14 if leaf.dtype == torch.float64 else 2e-6) * expected.abs().max()
        assert (expected - gradient).abs().max() <= bound
    return gradient


def tensors(axes=3, channels=(4, 5), out=6, dtype=torch.float32, batch=1, size=9, kernel=3):
    torch.manual_seed(axes)
    leaf = torch.randn(batch, channels[0], *[size] * axes, dtype=dtype, requires_grad=True)
    skip = torch.randn(batch, channels[1], *[size] * axes, dtype=dtype)
    weight = torch.randn(out, sum(channels), *[kernel] * axes, dtype=dtype) / 10
    return leaf, skip, weight


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@pytest.mark.parametrize("seed", range(40))
def test_drawn_convolutions(seed):
    draw = random.Random(seed)
    axes = draw.choice((1, 2, 3))
    kernel = [draw.randint(1, 3) for _ in range(axes)]
    grid = [draw.randint(7, 12) for _ in range(axes)]
    dilation = draw.choice((1, 2, tuple(draw.randint(1, 2) for _ in range(axes))))
    each = dilation if isinstance(dilation, tuple) else (dilation,) * axes
    stride = draw.choice((1, 2, (2,), [draw.randint(1, 3) for _ in range(axes)]))
    padding = draw.choice((0, 1, "valid", "same", tuple(draw.randint(0, 2) for _ in range(axes))))
    stride = 1 if padding == "same" else stride
    uneven = any(d * (k - 1) % 2 for d, k in zip(each, kernel, strict=True))
    dtype = draw.choice((torch.float32, torch.float64))
    batch, counts = draw.randint(1, 3), [draw.randint(1, 20) for _ in range(draw.randint(2, 4))]
    needed = [True, False, *(draw.random() < 0.5 for _ in counts[2:])]
    draw.shuffle(needed)
    torch.manual_seed(seed)
    leaf = torch.randn(batch, max(counts), *grid, dtype=dtype, requires_grad=True)
    parts = [torch.randn(batch, count, *grid, dtype=dtype) for count in counts]
    weight = torch.randn(draw.randint(1, 20), sum(counts), *kernel, dtype=dtype) / 10
    bias = draw.choice((None, torch.randn(len(weight), dtype=dtype)))

    def run(leaf):
        parted = [leaf[:, : p.shape[1]] * p if n else p for p, n in zip(parts, needed, strict=True)]
        joined = torch.cat(parted, draw_axis)
        return CONVOLUTIONS[axes](joined, weight, bias, stride, padding, dilation=dilation)

    for draw_axis in (1, -1 - axes):
        alone = padding == "same" and uneven
        both(run, leaf, replaced=0 if alone else 1, exact=alone)


@pytest.mark.parametrize("name", ("cat", "concat", "concatenate"))
@pytest.mark.parametrize(("axes", "size"), ((2, 64), (3, 16)))
def test_levels_of_a_decoder_bit_for_bit(name, axes, size):
    leaf, skip, weight = tensors(axes, (32, 32), 32, size=size)
    join = getattr(torch, name)

    def run(leaf):
        return CONVOLUTIONS[axes](join((leaf * 2, skip), dim=1), weight, padding=1)

    both(run, leaf, replaced=1)


@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("axes", (2, 3))
def test_channels_last(axes, batch):
    last = torch.channels_last if axes == 2 else torch.channels_last_3d
    leaf, skip, weight = (t.detach().to(memory_format=last) for t in tensors(axes, batch=batch))
    run = lambda leaf: CONVOLUTIONS[axes](torch.cat((leaf * 2, skip), 1), weight)  # noqa: E731
    both(run, leaf.requires_grad_(), replaced=1, exact=False)


def left_alone():
    leaf, skip, weight = tensors()
    bias = torch.zeros(6, requires_grad=True)

    def written(leaf):
        return F.conv3d(torch.cat((leaf, skip), 1).relu_(), weight)

    def written_in_a_view(leaf):
        joined = torch.cat((leaf, skip), 1)
        joined[:, 2:6].mul_(2)
        return F.conv3d(joined, weight)

    def join(leaf):
        return torch.cat((leaf, skip), 1)

    halves = torch.randn(6, 3, 3, 3, 3)
    return {
        "written to": written,
        "a view written to": written_in_a_view,
        "activation between": lambda leaf: F.conv3d(join(leaf).tanh(), weight),
        "weight wants grad": lambda leaf: F.conv3d(join(leaf), weight.clone().requires_grad_()),
        "bias wants grad": lambda leaf: F.conv3d(join(leaf), weight, bias),
        "groups": lambda leaf: F.conv3d(join(leaf), halves, groups=3),
        "all need it": lambda leaf: F.conv3d(torch.cat((leaf, leaf[:, :1], leaf), 1), weight),
        "another axis": lambda leaf: F.conv3d(torch.cat((leaf, skip[:, :4]), 2), weight[:, :4]),
        "no batch": lambda leaf: F.conv3d(torch.cat((leaf[0], skip[0, :4]), 1), weight[:, :4]),
        "mixed dtypes": lambda leaf: F.conv3d(torch.cat((leaf, skip.half()), 1), weight),
        "transposed": lambda leaf: F.conv_transpose3d(join(leaf), weight.transpose(0, 1)),
        "cast": lambda leaf: cast(leaf, join, weight),
        "checkpoint": lambda leaf: torch.utils.checkpoint.checkpoint(
            lambda leaf: F.conv3d(join(leaf), weight), leaf, use_reentrant=False
        ),
    }


def cast(leaf, join, weight):
    joined = join(leaf)
    with torch.autocast("cpu", torch.bfloat16):
        return F.conv3d(joined, weight)


@pytest.mark.parametrize("case", left_alone())
def test_left_alone(case):
    both(left_alone()[case], tensors()[0], replaced=0)


def test_autocast_of_the_whole():
    leaf, skip, weight = tensors(channels=(16, 16), out=16)

    def run(leaf):
        with torch.autocast("cpu", torch.bfloat16):
            up = F.conv3d(leaf, weight[:, :16], padding=1)
            return F.conv3d(torch.cat((up, skip.bfloat16()), 1), weight)

    both(run, leaf, replaced=1)


def test_no_grad_records_nothing():
    leaf, skip, weight = tensors()
    with needed_parts_only() as mode, torch.no_grad():
        F.conv3d(torch.cat((leaf, skip), 1), weight)
    assert mode.replaced == 0


def test_residual_and_two_convolutions():
    leaf, skip, weight = tensors(out=9)

    def run(leaf):
        joined = torch.cat((leaf * 2, skip), 1)
        one = F.conv3d(joined, weight, padding=1)
        return one + F.conv3d(joined, weight[:, :, 1:2, 1:2, 1:2]) + joined

    both(run, leaf, replaced=2, exact=False)


@pytest.mark.parametrize("how", ("held", "hook", "late hook", "retained"))
def test_gradient_of_the_concatenation_itself(how):
    leaf, skip, weight = tensors()

    def gradient():
        joined, caught = torch.cat((leaf * 2, skip), 1), []
        if how == "hook":
            joined.register_hook(caught.append)
        if how == "retained":
            joined.retain_grad()
        score = F.conv3d(joined, weight).square().sum()
        if how == "late hook":
            joined.register_hook(caught.append)
        if how == "held":
            return torch.autograd.grad(score, [joined, leaf])
        if how == "retained":
            (at_leaf,) = torch.autograd.grad(score, [leaf], retain_graph=True)
            score.backward(inputs=[joined])
            return joined.grad, at_leaf
        del joined
        (at_leaf,) = torch.autograd.grad(score, [leaf])
        return caught[0], at_leaf

    expected = gradient()
    with needed_parts_only():
        found = gradient()
    assert all(map(torch.equal, expected, found))
    assert expected[0][:, 4:].any()


def test_second_targets_and_second_derivatives():
    leaf, skip, weight = tensors(dtype=torch.float64, size=4)
    run = lambda leaf: F.conv3d(torch.cat((leaf**3, skip), 1), weight)  # noqa: E731
    with needed_parts_only():
        output = run(leaf)
    for channel in (0, 3):
        (found,) = torch.autograd.grad(output[:, channel].sum(), [leaf], retain_graph=True)
        (expected,) = torch.autograd.grad(run(leaf)[:, channel].sum(), [leaf])
        assert torch.allclose(found, expected, rtol=1e-12)

    def second(output):
        (first,) = torch.autograd.grad(output.square().sum(), [leaf], create_graph=True)
        return torch.autograd.grad(first.square().sum(), [leaf])[0]

    assert torch.allclose(second(output), second(run(leaf)), rtol=1e-10)


def test_nothing_survives():
    leaf, skip, weight = tensors()
    with needed_parts_only() as mode:
        up = leaf * 2
        joined = torch.cat((up, skip), 1)
        gone = [weakref.ref(up), weakref.ref(joined)]
        output = F.conv3d(joined, weight)
        kept = torch.cat((up, skip), 1)
        del up, joined
        gc.collect()
        # Autograd's own convolution would hold its input.
        assert all(tensor() is None for tensor in gone)
        assert len(mode._joined) == 1
    assert not mode._joined
    del kept
    ended = weakref.ref(mode)
    del mode
    gc.collect()
    assert ended() is None
    output.sum().backward()
    assert leaf.grad.any()


def test_other_modes_and_subclasses():
    class Counting(torch.overrides.TorchFunctionMode):
        convolutions = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.convolutions += function is torch.conv3d
            return function(*args, **(kwargs or {}))

    class Named(torch.Tensor):
        pass

    leaf, skip, weight = tensors()
    run = lambda leaf: F.conv3d(torch.cat((leaf * 2, skip), 1), weight)  # noqa: E731
    with Counting() as outer:
        both(run, leaf, replaced=1)
    assert outer.convolutions == 2
    skip = skip.as_subclass(Named)
    with needed_parts_only() as mode, Counting() as inner:
        output = run(leaf)
    assert (inner.convolutions, mode.replaced, type(output)) == (1, 1, Named)


def test_meta_tensors():
    MetaTensor = pytest.importorskip(  # noqa: N806
        "monai.data.meta_tensor", reason="MONAI is not installed here"
    ).MetaTensor
    leaf, skip, weight = tensors()
    skip = MetaTensor(skip, meta={"filename_or_obj": "a.nii"})

    def run(leaf):
        output = F.conv3d(torch.cat((leaf * 2, skip), 1), weight)
        assert isinstance(output, MetaTensor)
        return output.as_tensor()

    both(run, leaf, replaced=1)


@pytest.mark.parametrize("norm", (nn.InstanceNorm2d, nn.BatchNorm2d))
def test_activation_in_place_behind_a_norm(norm):
    layer = norm(4, affine=True).requires_grad_(False).eval()
    activation = nn.LeakyReLU(inplace=True)
    leaf = torch.randn(2, 4, 9, 8, requires_grad=True)
    run = lambda leaf: activation(layer(leaf * 2))  # noqa: E731
    both(run, leaf, replaced=int(norm is nn.InstanceNorm2d))
    with needed_parts_only():
        assert "Copy" not in type(run(leaf).grad_fn).__name__


def networks():
    shape = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
    strides = {"strides": [1, 2, 2], "kernel_size": [3] * 3, "upsample_kernel_size": [2, 2]}
    channels = {"channels": (4, 8, 16), "strides": (2, 2)}
    return {
        "DynUNet": ({**shape, **strides, "filters": [8, 16, 32]}, "bottleneck", True),
        "UNet": ({**shape, **channels, "num_res_units": 1}, "model.1.submodule.1.submodule", True),
        "BasicUNet": ({**shape, "features": (4, 4, 8, 8, 16, 4)}, "down_4", True),
        "SegResNet": ({**shape, "init_filters": 8}, "down_layers.3", False),
    }


@pytest.mark.parametrize(("name", "batch"), list(itertools.product(networks(), (1, 2))))
def test_networks(name, batch):
    nets = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed here")
    settings, layer, spares = networks()[name]
    torch.manual_seed(0)
    network = getattr(nets, name)(**settings).eval().requires_grad_(False)
    images = torch.randn(batch, 1, 32, 32, 32)
    leaves = []

    def start(module, inputs, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()

    network.get_submodule(layer).register_forward_hook(start)

    def run():
        output = network(images)
        return output, torch.autograd.grad(output[:, 1].sum(), [leaves[-1]])[0]

    expected_output, expected = run()
    with needed_parts_only() as mode:
        output, found = run()
    assert torch.equal(expected_output, output)
    assert bool(mode.replaced) == spares
    assert expected.any()
    assert (found - expected).abs().max() <= 5e-6 * expected.abs().max()
