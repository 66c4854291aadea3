"""Each row of the shim's table of operators (src/torch/shim/operators.cpp) in one or more steps of a network.

A step takes two activations (1, 4, *EXTENTS[axes]) of different layers, and need not use the second.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch.nn import functional as F

aten = torch.ops.aten

# Of an activation of one, two and three axes.
EXTENTS = {1: (6,), 2: (5, 6), 3: (4, 4, 4)}


@dataclasses.dataclass
class Case:
    row: str
    step: Callable
    # The spatial axes of the activations.
    axes: int = 2
    # Channels must be on axis 1.
    image: bool = False
    # Guide::All guides it, Guide::Relu may not.
    activation: bool = False
    # Turns scores into probabilities.
    ends: bool = False
    # The product of two activations.
    product: bool = False
    # Pads, crops or resizes.
    regrids: bool = False
    # What is so by the numbers, but not told, and need not be: "redraws", "cancels", "rank"...
    untold: tuple = ()
    # What is told though the numbers differ.
    told: tuple = ()


CASES = []


def case(row, step, **told):
    CASES.append(Case(row, step, **told))


def call(name, *arguments):
    """A step that calls an operator on the first activation."""
    return lambda a, b: getattr(aten, name)(a, *arguments)


def call_on_both(name):
    return lambda a, b: getattr(aten, name)(a, b)


def first_of(step):
    """The step's first output."""
    return lambda a, b: step(a, b)[0]


def simple(row, *arguments, prepare=lambda a: a, **told):
    """The operator on the first activation, and the one that writes in place where there is one."""
    for name in (row, row + "_"):
        if hasattr(aten, name):
            step = call(name, *arguments)
            case(row, lambda a, b, step=step: step(prepare(a), b), **told)


def positive(a):
    return a.abs() + 1.0


def floating(compare):
    """A step that adds a mask to the second activation."""
    return lambda a, b: b + compare(a, b).to(b.dtype)


def scripted(expression):
    """A step that runs an expression in a, b and w: tracing writes down some operators under other names."""
    return torch.jit.CompilationUnit(f"def step(a, b, w):\n  return {expression}\n").step


# What passes its input on.
case("medcam::tap", lambda a, b: a)
case("to", lambda a, b: a.to(torch.float64))
case("type_as", lambda a, b: a.type_as(b))
case("contiguous", lambda a, b: a.contiguous())
case("clone", lambda a, b: a.clone())
case("alias", lambda a, b: aten.alias(a))
case("detach", lambda a, b: a.detach())
for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"):
    simple(name, 0.5, False)
    # Scaled and shifted values count as passed on; that they are random is told apart.
    case(name, call(name, 0.5, True), untold=("cancels",), told=("passes", "final activation"))

# Activations.
simple("relu", activation=True)
simple("relu6", activation=True)
simple("hardtanh", 0.0, 6.0, activation=True)
simple("hardtanh", -1.0, 1.0)
simple("threshold", 0.0, 0.0, activation=True)
simple("threshold", 0.5, 0.0)
simple("threshold", 0.0, 2.0)
simple("clamp", 0.0, 6.0, activation=True)
simple("clamp", -1.0, 1.0)
simple("clamp_min", 0.0, activation=True)
simple("clamp_min", -0.5)
simple("clamp_max", 0.5)
simple("leaky_relu", 0.1, activation=True)
case("prelu", lambda a, b: F.prelu(a, torch.tensor([0.25])), activation=True)
simple("rrelu", activation=True)
for name in ("elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"):
    simple(name, activation=True)
for name in ("hardsigmoid", "tanh", "softplus"):
    simple(name)
simple("sigmoid", ends=True)
for name in ("softmax", "log_softmax"):
    for dim in (1, 3, -1, 2):
        # Along an axis of the image, a softmax takes the mean out itself.
        untold = ("cancels",) if dim != 1 else ()
        case(name, call(name, dim), ends=True, untold=untold)
case("_softmax", lambda a, b: aten._softmax(a, 1, False), ends=True)

# Arithmetic on each element.
for name in ("add", "sub", "rsub"):
    # Tracing writes down b - a for the rsub of two.
    if name != "rsub":
        case(name, call_on_both(name))
    case(name, call(name, 0.5))
case("add", lambda a, b: a.add_(b))
for name in ("mul", "div"):
    case(name, lambda a, b, name=name: getattr(aten, name)(a, positive(b)))
    case(name, call(name, 0.5))
case("mul", lambda a, b: a.mul_(2.0))
case("pow", lambda a, b: positive(a).pow(2.5))
case("pow", lambda a, b: positive(a).pow(b))
for name in ("minimum", "maximum"):
    case(name, call_on_both(name))
case("where", lambda a, b: torch.where(b > 0, a, b))
case("masked_fill", lambda a, b: a.masked_fill(b > 0, 0.0))
for name in ("neg", "square", "abs"):
    simple(name)
simple("exp", prepare=lambda a: a / 4)
simple("nan_to_num", untold=("passes", "final activation", "cancels"))
for name in ("sqrt", "rsqrt", "log", "log1p", "reciprocal"):
    simple(name, prepare=positive)

# What has no derivative, or none but 0.
for name in ("sign", "round", "floor", "ceil", "isnan", "isfinite", "logical_not"):
    case(name, floating(call(name)))
for name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or"):
    case(name, floating(call_on_both(name)))
for name in ("argmax", "argmin"):
    case(name, floating(call(name, 1, True)), untold=("last",))
case("argsort", floating(call("argsort", 1)))

# What arranges elements.
case("prim::ListConstruct", lambda a, b: torch.cat([a, b], 1))
for dim in (1, 2, -1):
    case("cat", lambda a, b, dim=dim: torch.cat([a, b], dim), untold=("redraws",))
case(
    "pad",
    lambda a, b: F.pad(a, (1, 1), "circular") if a.dim() == 3 else F.pad(a, (1, 1)),
    regrids=True,
)
case("constant_pad_nd", lambda a, b: aten.constant_pad_nd(a, (1, 1)), regrids=True)
for name in ("reflection_pad", "replication_pad"):
    for axes in (1, 2, 3):
        step = call(f"{name}{axes}d", (1, 1) + (0, 0) * (axes - 1))
        case(f"{name}{axes}d", step, axes=axes, regrids=True, untold=("cancels",))
case("roll", lambda a, b: a.roll(2, 3), untold=("cancels",))
case("flip", lambda a, b: a.flip(3), untold=("cancels",))
case("slice", lambda a, b: a[:, :, 1:], untold=("cancels",), regrids=True)
case("slice", lambda a, b: a[:, 1:], untold=("cancels", "redraws"))
case("narrow", lambda a, b: a.narrow(2, 1, 3), untold=("cancels",), regrids=True)
case("transpose", lambda a, b: a.transpose(2, 3), untold=("cancels", "redraws"))
case("permute", lambda a, b: a.permute(0, 1, 3, 2), untold=("cancels", "redraws"))
case("squeeze", lambda a, b: a.squeeze(2), untold=("redraws", "passes", "rank", "last"))
case("squeeze", lambda a, b: a.squeeze(0))
case("unsqueeze", lambda a, b: a.unsqueeze(0))
case("unsqueeze", lambda a, b: a.unsqueeze(2))
case("view", lambda a, b: a.contiguous().view(a.shape[0], a.shape[1], -1))
case("reshape", lambda a, b: a.reshape(-1))
case("flatten", lambda a, b: a.flatten(1))
case("select", lambda a, b: a[0])
case("select", lambda a, b: a[:, 1])

# Norms.
STATISTICS = (torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.5, 1.0, 1.5, 2.0]))
for training in (False, True):
    case("batch_norm", lambda a, b, t=training: F.batch_norm(a, *STATISTICS, training=t), image=True,
         untold=("cancels",) if training else ())
    untold = ("redraws", "cancels")
    for name in ("native_batch_norm", "_native_batch_norm_legit"):
        norm = call(name, None, None, *STATISTICS, training, 0.1, 1e-5)
        case(name, first_of(norm), image=True, untold=untold)
    name = "_batch_norm_impl_index"
    norm = scripted(f"torch.{name}(a, None, None, w[0], w[1], {training}, 0.1, 1e-5, False)[0]")
    case(name, lambda a, b, norm=norm: norm(a, b, torch.stack(STATISTICS)), image=True, untold=untold)
case("instance_norm", lambda a, b: F.instance_norm(a), image=True)
untold = ("redraws", "cancels")
fixed = lambda a, b: F.instance_norm(a, *STATISTICS, use_input_stats=False)  # noqa: E731
case("instance_norm", fixed, image=True, untold=untold)
case("group_norm", lambda a, b: F.group_norm(a, 2), image=True)
for axis in (-1, 1):
    norm = lambda a, b, axis=axis: F.layer_norm(a, a.shape[axis:])  # noqa: E731
    case("layer_norm", norm, untold=("cancels",))

# Weighted sums.
GENERATOR = torch.Generator().manual_seed(3)


def weight(*shape):
    return torch.randn(shape, generator=GENERATOR)


for axes in (1, 2, 3):
    for kernel in (1, 3):
        w = weight(4, 4, *(kernel,) * axes)
        for name in (f"conv{axes}d", f"conv_transpose{axes}d"):
            convolve = scripted(f"torch.{name}(a, w)")
            # Without padding, each voxel's gradient goes to as many voxels.
            untold = ("cancels",) if kernel == 3 else ()
            step = lambda a, b, c=convolve, w=w: c(a, b, w)  # noqa: E731
            case(name, step, axes=axes, image=True, untold=untold)
W = weight(4, 4, 1, 1)
strided = scripted("torch.conv2d(a, w, None, [2, 2])")
case("conv2d", lambda a, b: strided(a, b, W), image=True)
convolution = scripted("torch.convolution(a, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)")
case("convolution", lambda a, b: convolution(a, b, W), image=True)
case("_convolution", lambda a, b: F.conv2d(a, W), image=True)
ZERO = torch.zeros(())
V = {extent: weight(extent, extent) for extent in (4, 5, 6, 120, 10, 12)}
case("linear", lambda a, b: F.linear(a, V[int(a.shape[-1])]), untold=("redraws",))
case("matmul", lambda a, b: a @ b.transpose(-1, -2), product=True, untold=("last", "rank"))
case("matmul", lambda a, b: a @ V[int(a.shape[-1])].t(), untold=("rank", "redraws"))


def in_batch(product):
    return lambda a, b: product(a.flatten(0, 1), b.flatten(0, 1).transpose(1, 2))


case("bmm", in_batch(torch.bmm), product=True)
case("baddbmm", in_batch(lambda a, b: torch.baddbmm(ZERO, a, b)), product=True)
case("mm", lambda a, b: a.flatten(1).mm(V[120]))
case("addmm", lambda a, b: torch.addmm(ZERO, a.flatten(1), V[120]))
case("einsum", lambda a, b: torch.einsum("bchw,bkhw->bck", a, b), product=True)
case("einsum", lambda a, b: torch.einsum("bchw,bchw->bchw", a, b), untold=("last", "rank"))

# What makes the grid coarser or finer. Where each voxel has a part in as many, means of zero stay.
for axes in (1, 2, 3):
    twos, d = (2,) * axes, f"{axes}d"
    told = {"axes": axes, "image": True, "untold": ("cancels",)}
    for name in (f"max_pool{d}", f"avg_pool{d}", f"adaptive_avg_pool{d}"):
        case(name, call(name, twos), **told)
    for name in (f"max_pool{d}_with_indices", f"adaptive_max_pool{d}"):
        case(name, first_of(call(name, twos)), **told)
    if axes > 1:
        case(f"_adaptive_avg_pool{d}", call(f"_adaptive_avg_pool{d}", twos), **told)
        samples = torch.rand(1, 4, axes, generator=GENERATOR)
        name = f"fractional_max_pool{d}"
        case(name, first_of(call(name, twos, twos, samples)), **told)
    twice = [2 * extent for extent in EXTENTS[axes]]
    for name in (f"upsample_nearest{d}", f"_upsample_nearest_exact{d}"):
        case(name, call(name, twice), **told)
    for name in {1: ["linear1d"], 2: ["bilinear2d", "bicubic2d"], 3: ["trilinear3d"]}[axes]:
        case(f"upsample_{name}", call(f"upsample_{name}", twice, False), **told)
        if axes == 2:
            case(f"_upsample_{name}_aa", call(f"_upsample_{name}_aa", twice, False), **told)
case("pixel_shuffle", lambda a, b: F.pixel_shuffle(a, 2), image=True)


# What only scripted code has.
reduced = scripted(
    "torch.ops.aten._autocast_to_reduced_precision(a, False, False, torch.float16, torch.bfloat16)"
)
full = scripted("torch.ops.aten._autocast_to_full_precision(a, False, False)")
interpolated = scripted("torch.ops.aten.__interpolate(a, [10, 12], None, 'nearest', None, None)")
case("_autocast_to_reduced_precision", lambda a, b: reduced(a, b, a))
case("_autocast_to_full_precision", lambda a, b: full(a, b, a))
case("__interpolate", lambda a, b: interpolated(a, b, a), image=True, untold=("cancels",))
