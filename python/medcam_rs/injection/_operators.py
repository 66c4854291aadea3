"""The table of operators: what each node of an autograd graph is and does.

The rows are those of `src/torch/shim/operators.cpp`, under the names that autograd gives the nodes.
A node that is not here is one of which nothing is known.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Family(enum.Enum):
    """What an operator is, where an analysis reads its arguments."""

    OTHER = enum.auto()
    CONVOLUTION = enum.auto()
    BATCH_NORM = enum.auto()
    INSTANCE_NORM = enum.auto()
    GROUP_NORM = enum.auto()
    LAYER_NORM = enum.auto()
    # A product of matrices, of which one are weights.
    LINEAR = enum.auto()
    # A product of two activations, as in attention.
    PRODUCT = enum.auto()
    # Computes along the axis `dim`.
    ALONG_AXIS = enum.auto()
    # Takes one place of an axis, and drops that axis.
    SELECT = enum.auto()
    # Takes places of an axis that lie side by side, or at steps.
    SLICE = enum.auto()
    # Takes axes together.
    REDUCTION = enum.auto()


class Voxels(enum.Enum):
    """What a voxel of the output depends on."""

    UNKNOWN = enum.auto()
    # On the same voxel of each input alone, whatever its channels.
    SAME = enum.auto()
    # As SAME, but where a second activation goes in, it scales the first one's gradient.
    GATED = enum.auto()
    # On voxels at other places of the same channel, with the same weights in every channel.
    MOVED = enum.auto()


@dataclass(frozen=True)
class Operator:
    """A row of the table."""

    name: str
    # The output has the axes of the input in the same order; extents may change.
    keeps_axes: bool = False
    # The output has the elements of the input in the same order, in other axes.
    reshapes: bool = False
    voxels: Voxels = Voxels.UNKNOWN
    family: Family = Family.OTHER
    # The output has the values of the first input, up to a cast.
    passes_through: bool = False
    # A weighted sum of the channels of one voxel, with the same weights at every voxel.
    mixes_alike: bool = False
    # "softmax" or "sigmoid": the score is taken in front of it where it ends the network.
    ends_in: str | None = None
    # The channels of its first input are on axis 1.
    channels_first: bool = False
    # Pads, crops or resizes: the output shows no more of the image than the input does.
    regrids: bool = False


def _rows() -> dict[str, Operator]:
    rows: dict[str, Operator] = {}

    def add(names: str, keeps_axes: bool = True, **properties: object) -> None:
        for name in names.split():
            rows[name] = Operator(name, keeps_axes=keeps_axes, **properties)  # type: ignore[arg-type]

    same, gated, moved = Voxels.SAME, Voxels.GATED, Voxels.MOVED
    # What passes its input on; `_Tap` is discovery's own.
    add("_Tap ToCopy Clone Alias", voxels=same, passes_through=True, mixes_alike=True)
    # Dropout in training draws another mask for each voxel.
    add("Dropout NativeDropout FusedDropout", voxels=same, passes_through=True)

    add(
        "Relu Relu6 Hardtanh Threshold Clamp ClampMin ClampMax LeakyRelu PreluKernel Prelu "
        "RreluWithNoise Elu Selu Celu Gelu Silu Mish Hardswish Hardsigmoid Tanh Softplus",
        voxels=same,
    )
    add("Sigmoid", voxels=same, ends_in="sigmoid")
    add("Softmax", voxels=same, ends_in="softmax", family=Family.ALONG_AXIS)
    add("LogSoftmax", voxels=same, ends_in="log_softmax", family=Family.ALONG_AXIS)

    add("Add Sub Rsub Neg", voxels=same, mixes_alike=True)
    add("Mul Div", voxels=gated, mixes_alike=True)
    add("Pow Minimum Maximum Where MaskedFill", voxels=gated)
    add("Sqrt Rsqrt Exp Log Log1P Abs Reciprocal NanToNum", voxels=same)

    add("Cat", voxels=same, mixes_alike=True, family=Family.ALONG_AXIS)
    pads = " ".join(f"{kind}Pad{n}D" for kind in ("Reflection", "Replication") for n in (1, 2, 3))
    add(f"ConstantPadNd {pads}", voxels=moved, regrids=True)
    add("Roll Flip", voxels=moved)
    add("Slice", voxels=moved, regrids=True, family=Family.SLICE)
    add("Squeeze Unsqueeze", keeps_axes=False, reshapes=True, mixes_alike=True)
    add("View UnsafeView ReshapeAlias", keeps_axes=False, reshapes=True)
    add("Select", keeps_axes=False, family=Family.SELECT)
    add("Mean Sum Amax Amin", keeps_axes=False, family=Family.REDUCTION)

    add(
        "NativeBatchNorm CudnnBatchNorm MiopenBatchNorm NativeBatchNormLegit BatchNormWithUpdate",
        voxels=same,
        mixes_alike=True,
        channels_first=True,
        family=Family.BATCH_NORM,
    )
    # No node: the three of autograd together, or the module.
    add("InstanceNorm", channels_first=True, family=Family.INSTANCE_NORM)
    add("NativeGroupNorm", channels_first=True, family=Family.GROUP_NORM)
    add("NativeLayerNorm FusedRmsNorm", family=Family.LAYER_NORM)

    add("Convolution ConvolutionOverrideable", channels_first=True, family=Family.CONVOLUTION)
    add("Linear", family=Family.LINEAR)
    attention = "FlashAttentionForCpu FlashAttention EfficientAttention CudnnAttention"
    attention = " ".join(f"ScaledDotProduct{kind}" for kind in attention.split())
    add(f"Mm Addmm Bmm Baddbmm {attention}", keeps_axes=False, family=Family.PRODUCT)

    add(
        "MaxPool2DWithIndices MaxPool3DWithIndices CudnnMaxPool AdaptiveMaxPool2D "
        "AdaptiveMaxPool3D FractionalMaxPool2D FractionalMaxPool3D PixelShuffle",
        channels_first=True,
    )
    pools = "AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D"
    add(f"{pools} GlobalAvgPool", voxels=moved, channels_first=True)
    add(
        "UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D "
        "UpsampleNearestExact2D UpsampleNearestExact3D UpsampleLinear1D UpsampleBilinear2D "
        "UpsampleBilinear2DAa UpsampleTrilinear3D UpsampleBicubic2D UpsampleBicubic2DAa",
        voxels=moved,
        channels_first=True,
        regrids=True,
    )
    return rows


OPERATORS = _rows()
# Of which nothing is known.
UNKNOWN = Operator("")
_SUFFIX = re.compile(r"Backward\d*$")


def operator_named(node_name: str) -> Operator:
    """The row of a node, by its `name()`, such as `ReluBackward0`."""
    return OPERATORS.get(_SUFFIX.sub("", node_name), UNKNOWN)
