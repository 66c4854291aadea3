#!/usr/bin/env python3
"""What `medcam_rs.accelerate` gives: five CAM libraries with the patches over the same without.

```sh
python benches/accelerate.py                     # all of it, as Markdown tables
python benches/accelerate.py --tiny --rounds 3   # whether it runs
```

`medcam_rs` and the libraries must be importable (`scripts/setup.py test` says where these are).
Times are medians over rounds in which both arms run in turn, in alternating order; the ratio is the
median of each round's own. Peaks are of single calls, in a process for each library and arm, over
what the process held before.

Two parts are measured: `map`, from the activation and the gradient to the map as the library
returns it (and, for those that leave that to the user, on the input's grid), and `call`, the
network included.
"""

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings

import memory
import torch
from torch import nn

import medcam_rs

LIBRARIES = ("m3dcam", "pytorch_grad_cam", "monai", "torchcam", "captum")
# Case: shape of the activation, of the input.
CASES = {
    "2D, 512x7x7": ((1, 512, 7, 7), (1, 3, 224, 224)),
    "2D, 64x56x56": ((1, 64, 56, 56), (1, 3, 224, 224)),
    "3D, 32x64x64x64": ((1, 32, 64, 64, 64), (1, 1, 128, 128, 128)),
}
TINY = {
    "2D, 8x7x7": ((1, 8, 7, 7), (1, 3, 28, 28)),
    "3D, 4x8x8x8": ((1, 4, 8, 8, 8), (1, 1, 16, 16, 16)),
}
# Per library its own names; a method that it does not have is left out.
NAMES = {
    "m3dcam": {"Grad-CAM": "GradCAM", "Grad-CAM++": "GradCamPP"},
    "pytorch_grad_cam": {
        "Grad-CAM": "GradCAM",
        "Grad-CAM++": "GradCAMPlusPlus",
        "HiResCAM": "HiResCAM",
        "LayerCAM": "LayerCAM",
    },
    "monai": {"Grad-CAM": "GradCAM", "Grad-CAM++": "GradCAMpp"},
    "torchcam": {"Grad-CAM": "GradCAM", "Grad-CAM++": "GradCAMpp", "LayerCAM": "LayerCAM"},
    "captum": {"Grad-CAM": "LayerGradCam"},
}


class Network(nn.Module):
    """One strided convolution that brings the input to the shape of the case, and a small head."""

    def __init__(self, layer, given):
        super().__init__()
        torch.manual_seed(0)
        three = len(layer) == 5
        conv = nn.Conv3d if three else nn.Conv2d
        stride = given[2] // layer[2]
        self.layer = nn.Sequential(conv(given[1], layer[1], stride, stride), nn.ReLU())
        self.after = conv(layer[1], 8, 1)
        self.head = nn.Linear(8 * (8 if three else 4), 10)
        self.pool = nn.AdaptiveAvgPool3d(2) if three else nn.AdaptiveAvgPool2d(2)

    def forward(self, x):
        return self.head(self.pool(self.after(self.layer(x)).relu()).flatten(1))


class Subject:
    """What a library is asked to do in one case with one method: `map()` and `call()`."""

    def __init__(self, library, method, case, device):
        layer, given = case
        torch.manual_seed(1)
        self.name = NAMES[library][method]
        self.x = torch.randn(given, device=device)
        self.size = given[2:]
        self.linear = "trilinear" if len(given) == 5 else "bilinear"
        self.activation = torch.randn(layer, device=device).relu()
        self.gradient = torch.randn(layer, device=device) / 100
        self.model = Network(layer, given).eval().to(device)
        getattr(self, library)()

    def m3dcam(self):
        from medcam import medcam, medcam_utils
        from medcam.backends import grad_cam, grad_cam_pp

        kind = getattr(grad_cam if self.name == "GradCAM" else grad_cam_pp, self.name)
        backend = kind.__new__(kind)
        backend.output_channels, backend.input_dim = 1, len(self.size)
        backend.logits = torch.ones(1, 10, device=self.x.device)
        backend.mask = nn.functional.one_hot(torch.tensor([1]), 10).to(self.x.device)
        name = {"GradCAM": "gcam", "GradCamPP": "gcampp"}[self.name]
        injected = medcam.inject(
            self.model, backend=name, layer="layer", label=1, return_attention=True
        )

        def one_map():
            heat = backend._generate_helper(self.activation, self.gradient, "layer").cpu().numpy()
            return medcam_utils.interpolate(torch.FloatTensor(heat).to(self.x.device), self.size)

        self.map, self.call = one_map, lambda: injected(self.x)[1]

    def pytorch_grad_cam(self):
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        cam = getattr(pytorch_grad_cam, self.name)(self.model, [self.model.layer])
        recorded = cam.activations_and_grads
        targets = [ClassifierOutputTarget(1)]

        def one_map():
            # On a GPU, what the hooks of either arm would have kept.
            patched = type(cam).compute_cam_per_layer.__module__.startswith("medcam_rs")
            place = self.activation.device if patched else "cpu"
            recorded.activations = [self.activation.to(place)]
            recorded.gradients = [self.gradient.to(place)]
            return cam.aggregate_multi_layers(cam.compute_cam_per_layer(self.x, targets, False))

        self.map, self.call = one_map, lambda: cam(self.x, targets)

    def monai(self):
        from monai import visualize

        class Recorded:
            score = torch.tensor(1.0)

            def __call__(_, *__, **___):
                return None, (self.activation,), (self.gradient,)

        kind = getattr(visualize, self.name)
        alone = kind(self.model, "layer")
        alone.nn_module = Recorded()
        whole = kind(Network(self.activation.shape, self.x.shape).eval().to(self.x.device), "layer")
        self.map = lambda: alone(x=self.x, class_idx=1)
        self.call = lambda: whole(x=self.x, class_idx=1)

    def torchcam(self):
        from torchcam import methods

        kind = getattr(methods, self.name)
        alone = kind(self.model, "layer", enable_hooks=False)
        alone._backprop = lambda *_, **__: None
        alone.hook_a, alone.hook_g = [self.activation], [self.gradient]
        network = Network(self.activation.shape, self.x.shape).eval().to(self.x.device)
        whole = kind(network, "layer")
        self.map = lambda: alone.compute_cams(1, None)[0]
        self.call = lambda: whole(1, network(self.x.requires_grad_()))[0]

    def captum(self):
        from captum.attr import LayerAttribution, LayerGradCam

        module = sys.modules["captum._utils.gradient"]
        place = sys.modules["captum.attr._core.layer.grad_cam"]
        method = LayerGradCam(self.model, self.model.layer)
        real = module.compute_layer_gradients_and_eval

        def recorded(forward, *arguments, **named):
            if forward is None:
                return (self.gradient,), (self.activation,)
            return real(forward, *arguments, **named)

        # For both arms, before the patches take it.
        module.compute_layer_gradients_and_eval = recorded
        place.compute_layer_gradients_and_eval = recorded
        alone = LayerGradCam(None, self.model.layer)
        run = LayerAttribution.__dict__  # `interpolate` is looked up anew in each arm.

        def resized(attribution):
            return run["interpolate"](attribution, self.size, self.linear)

        self.map = lambda: resized(alone.attribute(self.x, 1))
        self.call = lambda: resized(method.attribute(self.x, 1))


def arm(library, patched, options):
    if not patched:
        return contextlib.nullcontext()
    flags = {"interpolation": options.interpolation} if library == "pytorch_grad_cam" else {}
    return medcam_rs.accelerate(library, **flags)


def seconds(work, device):
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def times(library, work, options):
    """Median seconds without and with the patches, and of the ratio, over alternating rounds."""
    measured = {False: [], True: []}
    for number in range(options.rounds + 1):
        for patched in (False, True) if number % 2 else (True, False):
            with arm(library, patched, options):
                # The first call of a block may still fill caches that the other arm emptied.
                work()
                measured[patched].append(seconds(work, options.device))
    plain, ours = measured[False][1:], measured[True][1:]
    ratio = statistics.median(a / b for a, b in zip(plain, ours))
    return statistics.median(plain), statistics.median(ours), ratio


def peak(work, device):
    """Bytes that the call needs at once, over what was held before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held
    before = memory.held()
    return max(0, memory.greatest(work) - before)


def peaks(library, patched, options):
    """For each case, method and part its peak; run in a process of its own."""
    found = {}
    for case, shapes in cases(options).items():
        for method in NAMES[library]:
            warm = Subject(library, method, list(TINY.values())[len(shapes[0]) - 4], options.device)
            subject = Subject(library, method, shapes, options.device)
            with arm(library, patched, options):
                for part in ("map", "call"):
                    getattr(warm, part)()
                    key = "|".join((case, method, part))
                    found[key] = peak(getattr(subject, part), options.device)
    return found


def peaks_apart(library, patched, options):
    command = [sys.executable, __file__, "--peaks", library, "--device", options.device]
    command += ["--interpolation", options.interpolation]
    command += ["--patched"] * patched + ["--tiny"] * options.tiny
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cases(options):
    return TINY if options.tiny else CASES


def report(library, options):
    plain, ours = (peaks_apart(library, patched, options) for patched in (False, True))
    with arm(library, True, options) as acceleration:
        print(f"\n### {library} ({acceleration.version})\n")
    print(
        "| case | method | part | as it is, ms | patched, ms | faster "
        "| peak as it is, MiB | patched, MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for case, shapes in cases(options).items():
        for method in NAMES[library]:
            subject = Subject(library, method, shapes, options.device)
            for part in ("map", "call"):
                before, after, ratio = times(library, getattr(subject, part), options)
                key = "|".join((case, method, part))
                mebibytes = [f"{found[key] / 2**20:.1f}" for found in (plain, ours)]
                cells = [
                    case,
                    method,
                    part,
                    f"{before * 1e3:.2f}",
                    f"{after * 1e3:.2f}",
                    f"{ratio:.2f}x",
                ]
                print("| " + " | ".join(cells + mebibytes) + " |", flush=True)


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of runs for each time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--interpolation",
        choices=("cubic", "linear"),
        default="cubic",
        help="pytorch-grad-cam's in 3D",
    )
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see that it runs")
    parser.add_argument("--peaks", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--patched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peaks:
        print(json.dumps(peaks(options.peaks, options.patched, options)))
        return
    place = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    threads = f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {threads}, {place}, {options.rounds} rounds")
    for library in options.libraries:
        report(library, options)


if __name__ == "__main__":
    main()
