"""The Python loops that against_loops.py measures, each as a process: one file after the other is read, run, written.

`bare`        the TorchScript model under torch.no_grad, its output written
`bare_eager`  the same weights as a torch.nn.Module
`m3dcam`      medcam.inject of M3d-CAM 0.1.22 on that module, return_attention=True, its map written
`monai`       monai.visualize.GradCAM on that module, its map written

All read with nibabel, prepare alike, and write one .nii.gz of f32 per image, of the image's size, with the same
writer. `bare` writes the channel of the output that the others explain, or with `--reference` the voxels of that map
in its place, for gzip and the disk then have as much to do as in the other arms.
"""

import argparse
import json
import warnings
from pathlib import Path

import gzips
import nibabel
import numpy
import torch


def read(path, deepbet):
    """The image, and the model's input: as examples/cards/deepbet_bbox.toml says, or the voxels as they are."""
    image = nibabel.load(path)
    if not deepbet:
        voxels = numpy.asarray(image.dataobj).astype(numpy.float32)
        return image, torch.from_numpy(voxels)[None, None]
    image = nibabel.as_closest_canonical(image)
    voxels = torch.from_numpy(numpy.asarray(image.dataobj).astype(numpy.float32))[None, None]
    x = torch.nn.functional.interpolate(voxels, (128, 128, 128), mode="nearest-exact")
    low, high = (float(value) for value in numpy.percentile(x.numpy(), (0.5, 99.5)))
    x = x.clamp(low, high)
    x = (x - x.min()) / (x.max() - x.min())
    x = (x - x.mean()) / x.std(correction=0)
    return image, x * 0.226 + 0.449


def write(path, image, values, compress):
    """A NIfTI of f32 on the grid of `image`."""
    made = nibabel.Nifti1Image(values, image.affine)
    content = compress(made.to_bytes())
    with open(path, "wb") as file:
        file.write(content)


def bare(forward, label, reference):
    """The output's channel `label`, at the size of the image; or `reference`, once the output is there."""

    def run(x, shape):
        with torch.no_grad():
            output = forward(x)[:, label : label + 1]
            if reference is not None:
                return reference
            if output.shape[2:] != shape:
                output = torch.nn.functional.interpolate(output, shape, mode="trilinear", align_corners=False)
        return output

    return run


def eager(model):
    """The module whose weights lie beside the TorchScript file."""
    import models  # pylint: disable=import-outside-toplevel

    kind = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))["kind"]
    module = models.BUILDERS[kind]()
    module.load_state_dict(torch.load(model.with_suffix(".weights")))
    return module.eval()


def own_name(module, layer):
    """The name that `named_modules` has for a layer: DynUNet holds each of its blocks under two names."""
    wanted = module.get_submodule(layer)
    return next(name for name, found in module.named_modules() if found is wanted)


def m3dcam(model, layer, label):
    """M3d-CAM's map."""
    import common  # pylint: disable=import-outside-toplevel

    common.use_packages("m3dcam")
    from medcam import medcam  # pylint: disable=import-outside-toplevel

    module = eager(model)
    layer = own_name(module, layer)
    injected = medcam.inject(module, backend="gcam", layer=layer, label=label, return_attention=True)
    return lambda x, shape: injected(x)[1]


def monai(model, layer, label):
    """MONAI's map; by its default normalisation the greatest attention is 0."""
    from monai.visualize import GradCAM  # pylint: disable=import-outside-toplevel

    module = eager(model)
    explain = GradCAM(module, target_layers=own_name(module, layer))
    return lambda x, shape: explain(x, class_idx=label)


def arm(name, model, layer, label, reference):
    """What makes of an input, and the image's shape, what is written."""
    if name in ("bare", "bare_eager"):
        forward = torch.jit.load(str(model)) if name == "bare" else eager(model)
        return bare(forward, label, reference)
    return {"m3dcam": m3dcam, "monai": monai}[name](model, layer, label)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=("bare", "bare_eager", "m3dcam", "monai"))
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--layer", default="")
    parser.add_argument("--label", type=int, default=1)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--libdeflate", default="", help="its shared library [default: zlib]")
    parser.add_argument("--reference", type=Path, help="a map that `bare` writes in place of its output")
    parser.add_argument("--deepbet", action="store_true", help="prepare as deepbet does")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    compress = gzips.of(arguments.libdeflate)
    reference = arguments.reference and numpy.array(nibabel.load(arguments.reference).dataobj)
    run = arm(arguments.arm, arguments.model, arguments.layer, arguments.label, reference)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in arguments.files:
        image, x = read(path, arguments.deepbet)
        values = torch.as_tensor(run(x, image.shape)).detach().numpy().reshape(image.shape)
        write(arguments.out / path.name, image, values, compress)


if __name__ == "__main__":
    main()
