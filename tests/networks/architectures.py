"""Architectures of the field at reduced width: how each is built and exported, and what must hold of it.

`auto` is what medcam must choose, by the rules that specs.py writes down; the comment says why it is right.
docs/networks.md tells users of these networks.
"""

from dataclasses import dataclass, field
from typing import Callable, Dict, Optional, Tuple, Union

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from monai.networks import nets
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer

from covid_net import CovidNet
from inf_net import InfNet


@dataclass
class Architecture:
    """One network. Layers have the names that the first export gives them."""

    name: str
    task: str
    build: Callable
    # Shape of a batch.
    input: Tuple[int, ...]
    auto: str
    # Further layers whose maps are compared.
    layers: Tuple[str, ...]
    label: Union[str, int] = 1
    # Those of the layers whose output is (B, D, H, W, C).
    channels_last: Tuple[str, ...] = ()
    # The output to be explained, of several: its number.
    output: Optional[int] = None
    # "traced" and "scripted" with None, or with what PyTorch says where it refuses.
    exports: Dict[str, Optional[str]] = field(default_factory=lambda: {"traced": None, "scripted": None})
    seed: int = 0


def nnunet(build, **counts):
    """nnU-Net's 3D networks as its planner configures them, four stages, deep supervision on."""
    return build(
        input_channels=1,
        n_stages=4,
        features_per_stage=(6, 10, 14, 18),
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=(1, 2, 2, 2),
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **counts,
    )


VOLUME = (2, 1, 32, 40, 24)

ARCHITECTURES = (
    Architecture(
        "nnunet_plain",
        "segmentation",
        lambda: nnunet(PlainConvUNet, n_conv_per_stage=2),
        VOLUME,
        # 4x5x3: the last stage of the encoder, which TorchScript knows as a part of the decoder, for that
        # holds the encoder too. A strided transposed convolution follows.
        auto="decoder.encoder.stages.3",
        layers=("decoder.encoder.stages.2.0.convs.1", "decoder.stages.2"),
        exports={"traced": None, "scripted": "Previous return statement returned a value of type List"},
    ),
    Architecture(
        "nnunet_residual",
        "segmentation",
        lambda: nnunet(ResidualEncoderUNet, n_blocks_per_stage=(1, 2, 2, 2)),
        VOLUME,
        auto="decoder.encoder.stages.3",  # as above
        layers=("decoder.encoder.stages.2", "decoder.stages.2"),
        exports={"traced": None, "scripted": "Module 'BasicBlockD' has no attribute 'skip'"},
    ),
    Architecture(
        "covid_net",
        "classification",
        CovidNet,
        (2, 3, 96, 96),
        auto="stages.3",  # 3x3: the sum that leaves the last stage; what follows is fully connected
        layers=("stem", "stages.2.pepx.5", "stages.2"),
        label="best",
    ),
    Architecture(
        "inf_net",
        "segmentation",
        InfNet,
        (2, 3, 96, 112),
        # 3x4, as is all of the deepest level: the last of its layers with more than one channel. The map
        # that comes after it, reverse5.map and reverse5, has one.
        auto="reverse5.refine",
        layers=("level5", "level3", "decoder.join3"),
        label=0,
        output=3,
    ),
    Architecture(
        "segresnet",
        "segmentation",
        lambda: nets.SegResNet(spatial_dims=3, init_filters=16, in_channels=1, out_channels=3),
        VOLUME,
        # 4x5x3: the 1x1 convolution that begins the way up; resizing follows, and group norm and 3x3
        # convolutions of the next level.
        auto="up_samples.0.0",
        layers=("down_layers.3", "conv_final.0"),
    ),
    Architecture(
        "densenet121_3d",
        "classification",
        lambda: nets.DenseNet121(
            spatial_dims=3, in_channels=1, out_channels=3, init_features=16, growth_rate=8
        ),
        (1, 1, 64, 64, 64),
        auto="class_layers.relu",  # 2x2x2: the activation in front of the global average
        layers=("features.denseblock3", "features.transition2", "features.denseblock4.denselayer16"),
        label="best",
    ),
    Architecture(
        "monai_unet",
        "segmentation",
        lambda: nets.UNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=3,
            channels=(6, 10, 16, 20),
            strides=(2, 2, 2),
            num_res_units=2,
        ),
        VOLUME,
        # 4x5x3: the concatenation around the deepest block, which completes after it.
        auto="model.1.submodule.1.submodule.1",
        layers=("model.1.submodule.0", "model.1.submodule.1.submodule.0"),
    ),
    Architecture(
        "swin_unetr",
        "segmentation",
        lambda: nets.SwinUNETR(in_channels=1, out_channels=3, feature_size=12, num_heads=(1, 2, 2, 4)),
        (1, 1, 64, 32, 32),
        # The bottleneck, encoder10, has 2x1x1 voxels here; of those with 4x2x2 the last to complete.
        auto="decoder5",
        layers=("swinViT.layers2.0.blocks.0.mlp", "swinViT.layers3.0.blocks.1.norm1", "encoder4"),
        channels_last=("swinViT.layers2.0.blocks.0.mlp", "swinViT.layers3.0.blocks.1.norm1"),
        exports={"traced": None, "scripted": "can't take variable number of arguments"},
    ),
    Architecture(
        "dynunet_deep",
        "segmentation",
        lambda: nets.DynUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=3,
            kernel_size=[3] * 4,
            strides=[1, 2, 2, 2],
            upsample_kernel_size=[2] * 3,
            filters=[6, 10, 14, 18],
            deep_supervision=True,
            deep_supr_num=2,
        ),
        VOLUME,
        # 4x5x3: the bottleneck, by its place in the nested skip layers.
        auto="skip_layers.next_layer.next_layer.next_layer",
        layers=("skip_layers.next_layer.downsample", "skip_layers"),
        # One tensor: the heads of deep supervision are returned in training only.
        exports={"traced": None, "scripted": "Could not match type Optional[List[Tensor]] to List[t]"},
        seed=1,
    ),
    Architecture(
        "swin_2d",
        "classification",
        lambda: SwinTransformer(
            patch_size=[4, 4],
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=[4, 4],
            num_classes=3,
        ),
        (2, 3, 64, 64),
        auto="permute",  # 8x8: brings channels to the front, for the average over all voxels
        layers=("features.1", "features.3.1.norm1", "norm"),
        channels_last=("features.1", "features.3.1.norm1", "norm"),
        label="best",
    ),
    Architecture(
        "vit_2d",
        "classification",
        lambda: nets.ViT(
            in_channels=1,
            img_size=(32, 40),
            patch_size=(8, 8),
            hidden_size=24,
            mlp_dim=32,
            num_layers=2,
            num_heads=3,
            num_classes=3,
            classification=True,
            spatial_dims=2,
        ),
        (2, 1, 32, 40),
        # 4x5; what follows are tokens, and attention weights of shape (B, heads, tokens, tokens).
        auto="patch_embedding.patch_embeddings",
        layers=(),
        label="best",
        output=0,
    ),
)
