"""Make the networks of cases.py: `make_wild.py FOLDER`. `scripts/setup.py test` runs it.

Each is saved as it is exported, with its input, the output that libtorch gives, and the map that it must have: Grad-CAM of the
network as it is meant, in float64, by plain autograd. manifest.json says what is what.
"""

import copy
import json
import sys
import warnings
from pathlib import Path

import nibabel
import numpy
import torch
import torch.nn.functional as F

from cases import CASES

warnings.filterwarnings("ignore")


def build(case):
    """The network with random weights and running statistics."""
    torch.manual_seed(len(case.name))
    network = case.build()
    for module in network.modules():
        if getattr(module, "running_var", None) is not None:
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    if hasattr(network, "c") and network.c.bias is not None:
        # Above 0, so that no ReLU is shut everywhere.
        network.c.bias.data.uniform_(0.1, 0.5)
    return network.eval()


def export(case, network):
    """The TorchScript module."""
    network.train(case.training)
    if case.export is not None:
        return case.export(network, example(case, network, case.shape))
    if case.traced is None:
        module = torch.jit.script(network)
    else:
        module = torch.jit.trace(network, example(case, network, case.traced), check_trace=False)
    network.eval()
    if case.freeze:
        module = torch.jit.freeze(module.eval())
    return module


def example(case, network, shape):
    """An input of the type that the network takes."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(case.name) + 1))
    weight = next((p for n, p in network.named_parameters() if n.endswith("c.weight")), x)
    return x.to(weight.dtype)


def map_of(case, network, x):
    """Grad-CAM of `truth` in float64, (B, 1, ...), and the classes."""
    network = in_double(network)
    x = x.double().requires_grad_()
    kept = []
    if case.layer:
        network.get_submodule(case.layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    else:
        network.r.forward = GuidedReLU.apply
    output = network.truth(x)
    if case.label == "best":
        if output.shape[1] == 1:
            best = torch.zeros(len(x), dtype=torch.long)
        elif output.dim() == 2:
            best = output.argmax(1)
        else:
            counts = [torch.bincount(sample.flatten(), minlength=output.shape[1])[1:] for sample in output.argmax(1)]
            best = torch.stack([count.argmax() + 1 if count.any() else torch.tensor(0) for count in counts])
    else:
        best = torch.full((len(x),), int(case.label))
    score = sum(output[sample, k].sum() for sample, k in enumerate(best))
    if case.layer:
        (gradient,) = torch.autograd.grad(score, kept[-1])
        axes = tuple(range(2, x.dim()))
        cam = torch.relu((gradient.mean(axes, keepdim=True) * kept[-1]).sum(1, keepdim=True))
        cam = F.interpolate(cam, size=x.shape[2:], mode="bilinear" if x.dim() == 4 else "trilinear")
    else:
        cam = torch.autograd.grad(score, x)[0].mean(1, keepdim=True)
    flat = cam.flatten(1)
    low, high = (flat.amin(1), flat.amax(1))
    assert (high > low).all(), f"{case.name}: a constant map"
    shape = (-1,) + (1,) * (x.dim() - 1)
    return ((cam - low.view(shape)) / (high - low).view(shape)).detach(), best.tolist()


class GuidedReLU(torch.autograd.Function):
    """Lets through only what is positive, forwards and backwards."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (x > 0)


def in_double(network):
    """A copy in float64; casts to other types within `truth` fall away with it."""
    return copy.deepcopy(network).double()


def main(folder):
    """Write all files."""
    manifest = []
    for case in CASES:
        network = build(case)
        x = example(case, network, case.shape)
        stem = folder / case.name
        file = folder / (case.name + ".pt")
        if case.archive is None:
            torch.jit.save(export(case, network), str(file))
        else:
            case.archive(file, network, x)
        if case.edit is not None:
            case.edit(file)
        entry = {
            "name": case.name,
            "label": case.label,
            "options": case.options,
            "refused": case.refused,
            "warnings": case.warnings,
            "tolerance": case.tolerance,
            "repeats": case.repeats,
            "card": case.card,
        }
        entry["input"] = save_input(case, stem, x)
        if not case.refused:
            expected, entry["classes"] = map_of(case, network, x)
            entry["map"] = case.name + ".map.npy"
            numpy.save(folder / entry["map"], expected.float().numpy())
            if case.repeats:
                entry["output"] = case.name + ".output.npy"
                with torch.no_grad():
                    output = torch.jit.load(str(file)).eval()(x)
                numpy.save(folder / entry["output"], output.float().numpy())
        manifest.append(entry)
    (folder / "manifest.json").write_text(json.dumps({"cases": manifest}, indent=1) + "\n", encoding="utf-8")


def save_input(case, stem, x):
    """Returns the file's name."""
    array = x.float().numpy()
    if case.file == "npy":
        numpy.save(str(stem) + ".input.npy", array)
        return stem.name + ".input.npy"
    image = nibabel.Nifti1Image(array[0, 0][..., None], numpy.diag([1.5, 2, 4, 1]))
    image.to_filename(str(stem) + ".input.nii.gz")
    return stem.name + ".input.nii.gz"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
