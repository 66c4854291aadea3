"""Networks of the libraries as the files of the program, with the names of their layers."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from export_files import build, drawn, gives, loaded
from torch import nn

from medcam_rs._export import export


def vision(name, **options):
    models = pytest.importorskip("torchvision", reason="torchvision is not installed here").models
    if name == "densenet":
        return lambda: models.DenseNet(8, (2, 2), 16, **options)
    return lambda: getattr(models.video if name == "r3d_18" else models, name)(**options)


def monai(name, *needs, **options):
    nets = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed here")
    for need in needs:
        pytest.importorskip(need, reason=f"{need} is not installed here")
    return lambda: getattr(nets, name)(**options)


def nnunet():
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet",
        reason="dynamic-network-architectures is not installed here",
    )
    return lambda: unet.PlainConvUNet(
        input_channels=1,
        n_stages=3,
        features_per_stage=(4, 6, 8),
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=(1, 2, 2),
        num_classes=2,
        n_conv_per_stage=1,
        n_conv_per_stage_decoder=1,
        norm_op=nn.InstanceNorm3d,
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


class Plain3d(nn.Module):
    """nnU-Net's plain form: stages, a decoder that holds the encoder, a list of segmentations."""

    def __init__(self):
        super().__init__()
        stage = lambda i, o, s: nn.Sequential(
            nn.Conv3d(i, o, 3, s, 1), nn.InstanceNorm3d(o), nn.LeakyReLU(inplace=True)
        )
        self.encoder = nn.Module()
        self.encoder.stages = nn.ModuleList([stage(1, 4, 1), stage(4, 8, 2)])
        self.decoder = nn.Module()
        self.decoder.encoder = self.encoder
        self.decoder.up = nn.ConvTranspose3d(8, 4, 2, 2)
        self.decoder.stage = stage(8, 4, 1)
        self.heads = nn.ModuleList([nn.Conv3d(8, 2, 1), nn.Conv3d(4, 2, 1)])

    def forward(self, x, **unused):
        skip = self.decoder.encoder.stages[0](x)
        deep = self.decoder.encoder.stages[1](skip)
        fine = self.decoder.stage(torch.cat([self.decoder.up(deep), skip], 1))
        return [self.heads[1](fine), self.heads[0](deep)]


UNET = dict(spatial_dims=3, in_channels=1, out_channels=2)
NETWORKS = {
    "resnet18": (lambda: vision("resnet18"), (1, 3, 64, 64), "script"),
    # Scripting overloads the forward of a dense layer, and the program knows no layer by that.
    "densenet": (lambda: vision("densenet"), (1, 3, 64, 64), "trace"),
    "r3d_18": (lambda: vision("r3d_18"), (1, 3, 4, 16, 16), "script"),
    "UNet": (
        lambda: monai("UNet", **UNET, channels=(4, 8), strides=(2,), num_res_units=1),
        (1, 1, 16, 16, 16),
        "script",
    ),
    "DynUNet": (
        lambda: monai(
            "DynUNet",
            **UNET,
            kernel_size=[3] * 4,
            strides=[1, 2, 2, 2],
            upsample_kernel_size=[2] * 3,
            filters=[4, 6, 8, 8],
            deep_supervision=True,
            deep_supr_num=2,
        ),
        (1, 1, 16, 16, 16),
        "trace",
    ),
    "SegResNet": (
        lambda: monai("SegResNet", **UNET, init_filters=8, blocks_down=(1, 1), blocks_up=(1,)),
        (1, 1, 16, 16, 16),
        "script",
    ),
    "SwinUNETR": (
        lambda: monai(
            "SwinUNETR", "einops", in_channels=1, out_channels=2, feature_size=12,
            num_heads=(1, 1, 2, 2), depths=(1, 1, 1, 1),
        ),
        (1, 1, 64, 32, 32),
        "trace",
    ),
    "VNet": (lambda: monai("VNet", in_channels=1, out_channels=2), (1, 1, 16, 16, 16), "script"),
    "nnU-Net": (nnunet, (1, 1, 16, 16, 16), "trace"),
    "plain": (lambda: Plain3d, (1, 1, 8, 8, 8), "trace"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(tmp_path, name):
    find, shape, way = NETWORKS[name]
    module = build(find())
    done = export(module, drawn(*shape), tmp_path / "m.pt")
    assert (done.way, done.lost_names, done.difference) == (way, (), 0)
    assert gives(done.path, module, drawn(*shape, seed=5), drawn(2, *shape[1:], seed=6))
    # Every layer is known by a name that the module has for it, and the file for the same.
    file = dict(loaded(done.path).named_modules(remove_duplicate=False))
    own = dict(module.named_modules(remove_duplicate=False))
    assert set(done.names) <= set(own) and set(done.names) <= set(file)
    for old, new in done.renamed.items():
        assert own[old] is own[new] and new in done.names
    ran = []
    for layer in {id(layer): layer for name, layer in own.items() if name}.values():
        layer.register_forward_hook(lambda layer, _x, _y: ran.append(layer))
    module(drawn(*shape))
    assert {id(own[name]) for name in done.names} == {id(layer) for layer in ran}
    first = {id(layer): name for name, layer in module.named_modules()}
    told = {first[id(layer)] for layer in ran} - set(done.renamed)
    assert told == set(done.names) - set(done.renamed.values()) or done.renamed


def test_the_names_of_nnunets_encoder_are_told(tmp_path):
    done = export(build(Plain3d), drawn(1, 1, 8, 8, 8), tmp_path / "m.pt")
    assert done.renamed["encoder.stages.1"] == "decoder.encoder.stages.1"
    assert "encoder.stages.1 is decoder.encoder.stages.1\n" in str(done).replace(", ", "\n")
    # What follows from that is not printed again.
    assert done.renamed["encoder.stages.1.0"] and "encoder.stages.1.0" not in str(done)
    assert any("2 tensors (0, 1)" in note for note in done.notes)
