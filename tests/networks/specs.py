"""The parity networks: how each is built, and which layers its maps are asked for.

`auto` is what medcam must choose, worked out by hand:

- classification: the last layer to complete (a module completes after its children, so after its last
  child) whose output has an extent above 1 in every spatial axis;
- segmentation: without the layers that only pointwise steps (1x1 convolutions, activations, batch norm
  in evaluation, dropout, sums, concatenation, softmax, sigmoid) separate from the score on every path,
  the smallest spatial extent, and the last to complete among equals.
"""

from dataclasses import dataclass
from typing import Callable, Optional, Tuple, Union

import nets2d
import nets3d

IMAGE = (3, 33, 47)
VOLUME = (1, 16, 20, 24)


@dataclass
class Spec:
    """One network. Layers have the names that the traced model gives them."""

    name: str
    task: str
    build: Callable
    sample: Tuple[int, ...]
    auto: str
    named: str
    several: Tuple[str, ...]
    # Whose score the maps explain: the best class per sample, or one class; and one more class.
    label: Union[str, int] = "best"
    other_label: int = 1
    # Whether build(True) writes over activations, so that build(False) is its twin.
    inplace: bool = True
    # A layer whose map is also taken from the output after the softmax or sigmoid.
    after_tail: Optional[str] = None
    # Chosen so that no map asked for is 0 everywhere.
    seed: int = 0


SPECS = (
    Spec(
        "plain2d",
        "classification",
        nets2d.PlainClassifier,
        IMAGE,
        auto="features",  # 4x5; it completes after features.11; pool gives 1x1
        named="features.4",
        several=("features.2", "features.9", "features.11"),
    ),
    Spec(
        "softmax2d",
        "classification",
        nets2d.SoftmaxClassifier,
        IMAGE,
        auto="conv3",  # its activation is a function, not a layer
        named="norm1",
        several=("conv1", "conv2"),
        other_label=3,
        after_tail="conv3",
    ),
    Spec(
        "residual2d",
        "classification",
        nets2d.ResidualClassifier,
        IMAGE,
        auto="stage3",  # completes after stage3.out
        named="stage2.bn2",  # written over by `+=`
        several=("stem", "stage1", "stage3.shortcut"),
        seed=1,
    ),
    Spec(
        "shared2d",
        "classification",
        nets2d.SharedActivationClassifier,
        IMAGE,
        auto="act",  # its third run is the last thing before the mean
        named="conv2",
        several=("conv1", "act"),
        other_label=2,
    ),
    Spec(
        "resnet18",
        "classification",
        nets2d.resnet18,
        (3, 65, 71),
        auto="layer4",  # 3x3; avgpool gives 1x1
        named="layer2.0.bn2",
        several=("layer1", "layer3.1", "relu"),
        other_label=7,
    ),
    Spec(
        "plain3d",
        "classification",
        nets3d.Classifier,
        (1, 18, 20, 22),
        auto="block3",  # 7x8x9, completes after block3.1
        named="block2.1",
        several=("block1", "pool"),
    ),
    Spec(
        "unet2d",
        "segmentation",
        lambda inplace: nets2d.UNet(inplace, 3, shared=False),
        IMAGE,
        auto="bottleneck",  # 8x11, as is down's second run before it; dec2 is resized to 16x23
        named="enc2",
        several=("enc1.act2", "bottleneck.norm1", "dec2"),
        label=1,
        other_label=2,
        seed=2,
        after_tail="bottleneck",
    ),
    Spec(
        "shared_unet2d",
        "segmentation",
        lambda inplace: nets2d.UNet(inplace, 3, shared=True),
        IMAGE,
        auto="bottleneck",  # the shared activation's last run is at full size
        named="dec2.conv2",
        several=("enc1", "bottleneck.conv2"),
        label=0,
        other_label=2,
    ),
    Spec(
        "flat2d",
        "segmentation",
        nets2d.FlatSegmenter,
        IMAGE,
        # Every layer has the input's size. From the score back, head's 1x1 convolutions, dropout, ReLU
        # and batch norm are pointwise, so head.*, drop, act, norm and last are left out. Between mid
        # and the score is the 3x3 convolution of last.
        auto="mid",
        named="mid.1",
        several=("stem.0", "stem"),
        label=2,
        other_label=0,
    ),
    Spec(
        "unet3d",
        "segmentation",
        nets3d.UNet,
        VOLUME,
        auto="bottleneck",  # 4x5x6; a functional activation ends it, so only the module has its output
        named="enc2",
        several=("enc2.norm", "dec1"),
        label=0,
        other_label=0,
        after_tail="enc2",
        seed=1,
    ),
    Spec(
        "interpolating3d",
        "segmentation",
        nets3d.Interpolating,
        (1, 17, 20, 23),
        auto="down2",  # 5x5x6, completes after down2.1; up works on the doubled size
        named="down1.0",
        several=("down1", "up", "act"),
        label=1,
        other_label=0,
    ),
    Spec(
        "monai_unet3d",
        "segmentation",
        nets3d.monai_unet,
        VOLUME,
        # 4x5x6: the concatenation at the bottom completes after the deepest block, and the transposed
        # convolution model.1.submodule.2.0 follows.
        auto="model.1.submodule.1",
        named="model.1.submodule.0",
        several=("model.1.submodule.1.submodule", "model.2.0"),
        label=1,
        other_label=2,
        inplace=False,
        seed=1,
    ),
    Spec(
        "monai_dynunet3d",
        "segmentation",
        nets3d.monai_dynunet,
        VOLUME,
        # 4x5x6: the bottleneck, which TorchScript knows by its place in the nested skip layers.
        auto="skip_layers.next_layer.next_layer",
        named="skip_layers.next_layer.downsample",
        several=("skip_layers.next_layer", "skip_layers"),
        label=1,
        other_label=0,
        seed=1,
    ),
)
