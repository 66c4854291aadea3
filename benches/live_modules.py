#!/usr/bin/env python3
"""Whole calls of one Grad-CAM of live modules: `medcam_rs.inject` beside the peers, on the CPU.

```sh
python benches/live_modules.py                                  # all of it, as Markdown tables
python benches/live_modules.py --network resnet50 --rounds 2    # whether it runs
```

`medcam_rs` and the libraries must be importable (`scripts/setup.py test` says where these are).
The networks are those of `tests/networks/make_bench_networks.py`, with random weights from a seed.

Every arm has a module of its own with the same weights, explains the same class (that of the
greatest score, in segmentation of the greatest sum over the voxels) at the same layer, and is set
up and warmed before it is measured. In each round every arm runs once; rounds start with another
arm each, and every other one goes backwards. An arm's ratio is its time over that of the same
round's bare forward, which is the module alone under `torch.no_grad`. The table has medians over
the rounds, and the least and the greatest ratio.

Peaks are of a process for each arm: the greatest resident memory of a warmed call over what the
process held before the arm's first call, with network, libraries and one bare forward behind it.
What a library leaves behind between calls, as the weights' gradients, counts.

Before anything is measured, the maps of ours and of the eager tape must agree within 1e-4.
"""

import argparse
import contextlib
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import memory
import torch
from torch.nn import functional

import medcam_rs
from medcam_rs.injection import _skips

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "networks"))
import make_bench_networks  # noqa: E402

TOLERANCE = 1e-4
# Name: how to build it, the shape of its input, its layer.
NETWORKS = {
    name: (build, shape, layer) for name, build, _, shape, layer in make_bench_networks.NETWORKS
}
TITLES = {
    "resnet50": "torchvision ResNet-50",
    "r3d_18": "torchvision r3d_18",
    "dynunet": "MONAI DynUNet, five levels, 32 to 320 channels",
}


class Subject:
    """A network, an input, a layer and a class."""

    def __init__(self, network):
        build, shape, layer = NETWORKS[network]
        torch.manual_seed(0)
        self.model = build().eval()
        self.x = torch.randn(shape)
        self.layer = self.model.get_submodule(layer)
        # DynUNet holds its blocks under two names, of which libraries see the first.
        self.name = next(name for name, found in self.model.named_modules() if found is self.layer)
        self.label = int(scores(self.bare()).argmax())

    def bare(self):
        with torch.no_grad():
            return self.model(self.x)


def scores(output):
    """One of each class; in segmentation the sum over the voxels."""
    return output.flatten(2).sum(2) if output.dim() > 2 else output


# Each arm sets up what is kept between calls, and returns a call that makes a map.


def bare(subject):
    return subject.bare


def inject(subject):
    model = medcam_rs.inject(subject.model, layer=subject.name, label=subject.label)

    def call():
        model(subject.x)
        return model.attention_maps()[0].values

    return call


def inject_whole(subject):
    """The backward computes the gradients of skip connections too."""
    call = inject(subject)

    def whole():
        with mock.patch.object(_skips, "is_available", return_value=False):
            return call()

    return whole


def tape(subject):
    """What an expert writes in some twenty lines."""
    model, x = subject.model.requires_grad_(False), subject.x
    size, kept = x.shape[2:], []
    mode = "trilinear" if len(size) == 3 else "bilinear"

    def start(_module, _arguments, output):
        torch.set_grad_enabled(True)
        kept.append(output.detach().requires_grad_())
        return kept[0]

    def call():
        kept.clear()
        handle = subject.layer.register_forward_hook(start)
        try:
            with torch.no_grad():
                output = model(x)
        finally:
            handle.remove()
        (gradient,) = torch.autograd.grad(output[:, subject.label].sum(), kept)
        with torch.no_grad():
            weights = gradient.flatten(2).mean(2).view(*gradient.shape[:2], *[1] * len(size))
            heat = (weights * kept[0]).sum(1, keepdim=True).relu()
            heat = functional.interpolate(heat, size, mode=mode, align_corners=False)
            low, high = heat.amin(), heat.amax()
            return (heat - low) / (high - low)

    return call


def m3dcam(subject):
    from medcam import medcam

    settings = {"backend": "gcam", "layer": subject.name, "label": subject.label}
    injected = medcam.inject(subject.model, **settings, return_attention=True)
    return lambda: injected(subject.x)[1]


def pytorch_grad_cam(subject):
    from pytorch_grad_cam import GradCAM

    cam = GradCAM(subject.model, [subject.layer])
    return lambda: cam(subject.x, [lambda output: output[subject.label].sum()])


def monai(subject):
    from monai.visualize import GradCAM

    cam = GradCAM(subject.model, subject.name)
    return lambda: cam(x=subject.x, class_idx=subject.label)


def torchcam(subject):
    from torchcam.methods import GradCAM

    extractor = GradCAM(subject.model, subject.name)
    return lambda: extractor(subject.label, subject.model(subject.x))[0]


def captum(subject):
    from captum.attr import LayerGradCam

    method = LayerGradCam(lambda x: scores(subject.model(x)), subject.layer)
    return lambda: method.attribute(subject.x, subject.label, relu_attributions=True)


ARMS = {
    "bare": (bare, "bare forward"),
    "inject": (inject, "`medcam_rs.inject`"),
    "inject_whole": (inject_whole, "the same, gradients of skip connections included"),
    "tape": (tape, "tape from the layer on, in eager Python"),
    "m3dcam": (m3dcam, "M3d-CAM"),
    "pytorch_grad_cam": (pytorch_grad_cam, "pytorch-grad-cam"),
    "monai": (monai, "MONAI's GradCAM"),
    "torchcam": (torchcam, "TorchCAM (no upsampling)"),
    "captum": (captum, "Captum's LayerGradCam (no upsampling, not normalised)"),
}


def arms_of(network):
    """Without skip connections there is nothing to spare."""
    return [name for name in ARMS if network == "dynunet" or name != "inject_whole"]


def quietly(call):
    """Some libraries print."""

    def quiet():
        with contextlib.redirect_stdout(None):
            return call()

    return quiet


def check(network, calls):
    """Both arms do the same work."""
    ours, theirs = calls["inject"](), calls["tape"]()
    apart = float((ours - theirs).abs().max())
    if apart > TOLERANCE or not 0.99 < float(ours.max()) - float(ours.min()) <= 1:
        sys.exit(f"{network}: inject and the eager tape are {apart} apart")
    if "inject_whole" in calls:
        apart = max(apart, float((ours - calls["inject_whole"]()).abs().max()))
    return apart


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def times(calls, rounds):
    """Seconds of each arm in each round."""
    measured = {name: [] for name in calls}
    names = list(calls)
    for call in calls.values():
        call()
    for number in range(rounds):
        first = number % len(names)
        order = names[first:] + names[:first]
        gc.collect()
        for name in reversed(order) if number % 2 else order:
            measured[name].append(seconds(calls[name]))
    return measured


def peak(network, name):
    """Bytes; in a process of its own."""
    subject = Subject(network)
    call = quietly(ARMS[name][0](subject))
    gc.collect()
    before = memory.held()
    call()
    return max(0, memory.greatest(call) - before)


def peak_apart(network, name):
    command = [sys.executable, __file__, "--network", network, "--peak", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def report(network, rounds):
    """Prints the table of a network, and returns what was measured."""
    names = arms_of(network)
    peaks = {name: peak_apart(network, name) for name in names}
    subjects = {name: Subject(network) for name in names}
    calls = {name: quietly(ARMS[name][0](subjects[name])) for name in names}
    apart = check(network, calls)
    measured = times(calls, rounds)
    shape = "x".join(map(str, NETWORKS[network][1]))
    print(f"\n### {TITLES[network]}, {shape}, {subjects['bare'].name}\n")
    print(f"The maps of inject and of the eager tape are at most {apart:.1e} apart.\n")
    print("| | ms | over the bare forward | range | peak, MiB | over the bare forward's |")
    print("|---|---|---|---|---|---|")
    for name in names:
        ratios = [mine / base for mine, base in zip(measured[name], measured["bare"])]
        cells = [
            ARMS[name][1],
            f"{statistics.median(measured[name]) * 1e3:.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            f"{peaks[name] / 2**20:.0f}",
            f"{peaks[name] / max(1, peaks['bare']):.2f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    return {"seconds": measured, "peaks": peaks, "apart": apart}


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=15, help="runs of each arm")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--json", type=Path, help="a file for the seconds of each run, and peaks")
    parser.add_argument("--peak", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak(options.network[0], options.peak))
        return
    threads = f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {threads}, {platform.machine()}, {options.rounds} rounds")
    found = {network: report(network, options.rounds) for network in options.network}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
