"""Make the networks that the benchmarks run: `make_bench_networks.py FOLDER`, by `scripts/setup.py bench`.

Well-known architectures at their usual input sizes, traced, with random weights: what a map costs does
not depend on them. manifest.json says what is what.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from monai.networks.nets import DynUNet
from torchvision.models import resnet50
from torchvision.models.video import r3d_18


def dynunet():
    """nnU-Net's usual five levels: instance norm and in-place leaky ReLU."""
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        kernel_size=[3] * 5,
        strides=[1, 2, 2, 2, 2],
        upsample_kernel_size=[2] * 4,
        filters=[32, 64, 128, 256, 320],
    )


# name, network, task, input (one sample), the layer that auto chooses.
NETWORKS = (
    ("resnet50", resnet50, "classification", (1, 3, 224, 224), "layer4"),
    ("r3d_18", r3d_18, "classification", (1, 3, 32, 112, 112), "layer4"),
    # The bottleneck, by its place in the nested skip layers.
    ("dynunet", dynunet, "segmentation", (1, 1, 64, 64, 64), "skip_layers" + ".next_layer" * 4),
)


def main():
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    entries = []
    for name, build, task, shape, layer in NETWORKS:
        torch.manual_seed(0)
        with torch.no_grad():
            traced = torch.jit.trace(build().eval(), torch.randn(shape))
        traced.save(str(folder / f"{name}.pt"))
        entry = {"name": name, "file": f"{name}.pt", "task": task, "input": shape, "auto": layer}
        entries.append(entry)
    text = json.dumps({"torch": torch.__version__, "networks": entries}, indent=1)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
