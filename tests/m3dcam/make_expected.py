"""Run M3d-CAM itself: `make_expected.py FOLDER`. `scripts/setup.py test` runs it.

Each network is saved traced, each attention map of the real package as an array, and manifest.json says
what is what. Every map is also computed by plain autograd in double precision (right.py). A case is

- "right": the package runs and is within `SAME` of that: the arrays are the package's;
- "wrong": it runs and is not; "fails": it raises. The arrays are autograd's then, `why` says what is
  wrong with the package (a fault that faults.py knows), and `error` what it raised. No array means
  that there is no right answer but an error.

`layer_maps` are on the layer's grid, `map` is what the package hands out, at the size of the input. Maps
that single precision does not determine are left out. Arrays are parts of one file per network: where
they begin there, and their shape.
"""

import copy
import json
import logging
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "networks"))

import torch

import evaluation
import faults
import package
import right
from networks import NETWORKS, batch, build

# In single precision the package is about 1e-6 from autograd in double. Compat is held to 1e-4.
SAME = 2e-5


class Case:
    """One call of the package."""

    def __init__(self, network, backend, label, layer, samples, first=False):
        self.network = network
        self.backend = backend
        self.label = label
        self.layer = layer
        self.samples = samples
        self.first = first

    @property
    def m3dcam_label(self):
        """As the package takes it."""
        if self.label == "above":
            return lambda output: output > self.network.above
        return self.label

    def name(self):
        """For messages."""
        first = " first" * self.first
        return f"{self.network.name} {self.backend} {self.label} {self.layer} B={self.samples}{first}"


def cases_of(network):
    """All labels at one layer, and all choices of layers for one label."""
    labels = [network.label, "best", None] + ["above"] * (network.task == "segmentation")
    choices = [("auto", network.label), (list(network.several), network.label), ("full", network.label)]
    choices = [(network.layer, label) for label in labels] + choices
    for backend in ("gcam", "gcampp", "gbp", "ggcam"):
        for layer, label in choices:
            if backend == "gbp" and layer != network.layer:
                continue  # it takes no layer
            for samples in (1, 2):
                yield Case(network, backend, label, layer, samples)
    yield Case(network, "ggcam", network.label, network.layer, 1, first=True)


class Maker:
    """Makes the cases of one network."""

    def __init__(self, folder, network):
        self.folder = folder
        self.network = network
        self.model = build(network)
        # Autograd's own: ReLU as a module, out of place, whatever the package was given.
        self.plain = build(network, "module")
        self.double = copy.deepcopy(self.plain).double()
        self.guided = {model: right.guided(model) for model in (self.plain, self.double)}
        self.rights = {}
        self.arrays = evaluation.Arrays()

    def right(self, case, layers):
        """Autograd's maps; those that single precision determines."""
        label = case.m3dcam_label
        x = batch(self.network, case.samples)
        key = (case.backend, case.label, case.samples, str(layers))
        if key not in self.rights:
            maps, single = (
                right.maps(model, self.guided[model], x.to(kind), label, case.backend, layers)
                for model, kind in ((self.double, torch.double), (self.plain, torch.float))
            )
            self.rights[key] = {n: maps[n] for n in maps if difference(maps[n], single[n]) <= SAME / 4}
        return self.rights[key]

    def make(self, case):
        """The case's entry in the manifest; None where single precision determines no map."""
        x = batch(self.network, case.samples)
        found, handed_out, error, why = {}, None, None, None
        try:
            model = copy.deepcopy(self.model)
            found, handed_out = package.maps(
                model, x, case.m3dcam_label, case.backend, case.layer, case.first
            )
        except package.Failed as failed:
            error = str(failed)
        maps = self.right(case, self.layers(case, found))
        if not maps:
            return None
        found = {name: found[name] for name in maps if name in found}
        nothing_guided = case.backend in ("gbp", "ggcam") and not right.can_be_guided(self.plain)
        if error or nothing_guided or any(difference(found[n], maps[n]) > SAME for n in maps):
            not_finite = not all(values.isfinite().all() for values in found.values())
            why = faults.why(case, error, not_finite, nothing_guided)
            found, handed_out = {} if nothing_guided else maps, None
        if handed_out is None and len(found) == 1:
            handed_out = right.resized(next(iter(found.values())), x.shape[2:])
        return {
            "name": case.name(),
            "network": self.network.name,
            "backend": case.backend,
            "label": case.label,
            "layer": case.layer,
            "samples": case.samples,
            "status": "fails" if error else "wrong" if why else "right",
            "error": error,
            "why": why,
            "layer_maps": {layer: self.arrays.keep(values) for layer, values in found.items()},
            "map": self.arrays.keep(handed_out) if len(found) == 1 else None,
        }

    def layers(self, case, found):
        """The layers whose maps are asked for."""
        if case.backend == "gbp":
            return [""]
        if case.layer == "auto":
            # Which one auto takes is the package's to say; where it fails, as for Grad-CAM.
            if not found:
                x, label = batch(self.network, 1), self.network.label
                found, _ = package.maps(copy.deepcopy(self.model), x, label, "gcam", "auto")
            return list(found)
        if case.layer == "full":
            return [name for name, _ in self.model.named_modules() if name]
        return [case.layer] if isinstance(case.layer, str) else case.layer

    def entry(self):
        """The network's entry in the manifest."""
        network = self.network
        x = batch(network, 2)
        traced = torch.jit.trace(self.model, x)
        traced.save(str(self.folder / f"{network.name}.pt"))
        with torch.no_grad():
            same = torch.allclose(self.model(x), self.plain(x), atol=1e-4)
        assert same, f"{network.name}: its twin differs"
        return {
            "name": network.name,
            "file": f"{network.name}.pt",
            "task": network.task,
            "above": network.above,
            "layers": package.layers(self.model),
            "input": self.arrays.keep(x),
            "arrays": f"{network.name}.npy",
        }

    def finish(self):
        """Write the arrays, one after the other."""
        self.arrays.write(self.folder / f"{self.network.name}.npy")


def difference(a, b):
    """The largest; NaN counts as infinite."""
    if a.shape != b.shape:
        return float("inf")
    return (a.double() - b.double()).abs().nan_to_num(nan=float("inf")).max().item()


def main():
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    manifest = {"torch": torch.__version__, "networks": [], "cases": [], "undetermined": 0}
    for network in NETWORKS:
        maker = Maker(folder, network)
        with torch.no_grad():
            manifest["networks"].append(maker.entry())
        cases = [maker.make(case) for case in cases_of(network)]
        manifest["cases"] += [case for case in cases if case]
        manifest["undetermined"] += cases.count(None)
        maker.finish()
    manifest["evaluation"] = evaluation.make(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
