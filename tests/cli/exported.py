"""Writes networks as files of the program, an image for each, and the maps that `inject` makes of it.

python exported.py FOLDER -> FOLDER/NAME/{model.pt, image.npy, LAYERS-METHOD/LAYER.npy, LAYERS-METHOD/noise.txt}
"""

import sys
import warnings
from pathlib import Path

import monai
import numpy as np
import torch
import torchvision
from dynamic_network_architectures.architectures.unet import PlainConvUNet

import medcam_rs

UNET = dict(spatial_dims=3, in_channels=1, out_channels=3)
NETWORKS = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), (1, 3, 64, 64)),
    "densenet": (
        lambda: monai.networks.nets.DenseNet(3, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2)),
        (1, 1, 20, 18, 22),
    ),
    "unet": (
        lambda: monai.networks.nets.UNet(**UNET, channels=(4, 8, 16), strides=(2, 2), num_res_units=1),
        (1, 1, 20, 16, 24),
    ),
    "dynunet": (
        lambda: monai.networks.nets.DynUNet(
            **UNET,
            kernel_size=[3] * 4,
            strides=[1, 2, 2, 2],
            upsample_kernel_size=[2] * 3,
            filters=[8, 12, 16, 16],
        ),
        (1, 1, 32, 24, 16),
    ),
    "nnunet": (
        lambda: PlainConvUNet(
            1, 3, [6, 8, 12], torch.nn.Conv2d, 3, [1, 2, 2], 2, 3, 2,
            conv_bias=True, norm_op=torch.nn.InstanceNorm2d, norm_op_kwargs={"affine": True},
            nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        ),
        (1, 1, 36, 28),
    ),
}  # fmt: skip
RUNS = [
    *(("auto", method) for method in ("gcam", "gcampp", "hirescam", "layercam", "gbp", "ggcam")),
    *(("full", method) for method in ("gcam", "gcampp", "layercam")),
]


def main(folder):
    warnings.simplefilter("ignore")
    for name, (build, shape) in NETWORKS.items():
        torch.manual_seed(3)
        network, image = build().eval(), torch.randn(shape)
        where = folder / name
        where.mkdir(parents=True)
        exported = medcam_rs.export(network, image, where / "model.pt")

        def named(layer, renamed=exported.renamed):
            """As the file calls a layer that has several names in the module."""
            return renamed.get(layer, layer)

        np.save(where / "image.npy", image.numpy())
        for layers, method in RUNS:
            medcam_rs.inject(network, backend=method, layer=layers, guide="all")
            network(image)
            run = where / f"{layers}-{method}"
            run.mkdir()
            for one in network.attention_maps():
                np.save(run / f"{named(one.layer)}.npy", one.values.numpy())
            noise = [named(one.layer) for one in network.warnings() if one.code in NOISE]
            (run / "noise.txt").write_text("\n".join(noise))
            network.eject()


# Rounding moves such maps as far as it likes.
NOISE = ("WEIGHTS_CANCEL", "UNSTABLE_WEIGHTS")

if __name__ == "__main__":
    main(Path(sys.argv[1]))
