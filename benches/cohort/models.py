"""The networks of the measurements, with random weights from a fixed seed: costs do not depend on them.

`dynunet` is that of the benchmarks (nnU-Net's usual five levels, 3 classes); `small` has four levels, few channels
and 8 classes, so that growth can be measured in minutes.
"""

import json
import warnings
from pathlib import Path

import common
import torch
from monai.networks.nets import DynUNet


def dynunet():
    """As benches/inject.rs runs it."""
    common.use_packages("networks")
    import make_bench_networks  # pylint: disable=import-outside-toplevel

    return make_bench_networks.dynunet()


def small():
    """Instance norm and leaky ReLU in four levels."""
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=8,
        kernel_size=[3] * 4,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3,
        filters=[4, 8, 16, 32],
    )


BUILDERS = {"dynunet": dynunet, "small": small}
BOTTLENECK = {kind: "skip_layers" + ".next_layer" * levels for kind, levels in (("dynunet", 4), ("small", 3))}


def make(folder, kind, extent=64):
    """Writes KIND.pt (traced on a cube), KIND.weights and KIND.json; returns the first, and the module."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    module = BUILDERS[kind]().eval()
    file = folder / f"{kind}.pt"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.randn(1, 1, extent, extent, extent)).save(str(file))
    torch.save(module.state_dict(), file.with_suffix(".weights"))
    file.with_suffix(".json").write_text(json.dumps({"kind": kind}) + "\n", encoding="utf-8")
    return file, module
