"""Make the parity networks: `make_networks.py FOLDER`. `scripts/setup.py test` runs it.

Each network is saved traced and scripted, with an input, its plain outputs, and the maps it must give
(expected.py), computed in double precision from the out-of-place twin. manifest.json says what is what.
"""

import copy
import functools
import json
import logging
import sys
import warnings
from pathlib import Path

import numpy
import torch
from monai.networks.nets import VNet
from torch import nn

import expected
import guided
import make_aliases
import make_several
import odd
import specs

# A map is compared only where it is well defined in single precision: in front of an instance norm the
# weights cancel to rounding noise, for example. Such layers are listed under "unstable" instead.
STABLE = 5e-5

# A network with a map that single precision misses by more than this is saved in double as well, so
# that all its maps can be compared closely.
IMPRECISE = 2e-6


def build(spec, inplace):
    """The network with random weights and running statistics, the same ones for both twins."""
    torch.manual_seed(spec.seed)
    model = spec.build(inplace).eval()
    generator = torch.Generator().manual_seed(spec.seed + 1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model


class Maps:
    """A network's expected maps, each computed and saved once."""

    def __init__(self, folder, spec, twin, x):
        self.folder = folder
        self.spec = spec
        self.twin = twin
        self.x = x
        self.double = expected.in_double(twin)
        self.single_run, self.run = self._runs(spec.label, "logits")
        self.files = {}
        self.errors = {}

    def _runs(self, label, score):
        pair = ((self.twin, self.x), (self.double, self.x.double()))
        single, double = (expected.Run(model, x, label, score) for model, x in pair)
        assert [run for _, run in single.events] == [run for _, run in double.events]
        # The double network is a copy: tell its modules by the originals.
        originals = dict(zip(self.double.modules(), self.twin.modules()))
        double.outputs = {originals[module]: kept for module, kept in double.outputs.items()}
        double.events = [(originals[module], run) for module, run in double.events]
        return single, double

    def file(self, module, run):
        """The file of one run's map, or None where single precision does not determine it."""
        key = (module, run)
        if key not in self.files:
            result = self.run.map(module, run)
            error = (result - self.single_run.map(module, run)).abs().max().item()
            if error > STABLE:
                self.files[key] = None
            else:
                self.errors[key] = error
                self.files[key] = self._save(f"map{len(self.files):03}", result)
        return self.files[key]

    def plus_plus_error(self, module, run):
        """By how much single precision misses a map of Grad-CAM++; None where there is no map."""
        if not (module in self.run.outputs and self.run.has_map(module, run)):
            return None
        single, double = (run_.map(module, run, plus_plus=True) for run_ in (self.single_run, self.run))
        return (single - double).abs().max().item()

    def extra(self, stem, module, run, label, score="logits"):
        """The map of another label or score."""
        single, double = self._runs(label, score)
        result = double.map(module, run)
        error = (result - single.map(module, run)).abs().max().item()
        assert error < STABLE, f"{self.spec.name}: the map {stem} is not stable ({error})"
        return self._save(stem, result)

    def _save(self, stem, tensor):
        return save(self.folder, f"{self.spec.name}.{stem}.npy", tensor)


def save(folder, name, tensor):
    """Save as float32; returns the file's name."""
    numpy.save(folder / name, numpy.ascontiguousarray(tensor.detach().float().numpy()))
    return name


def layers_of(scripted, maps, spec):
    """What the manifest says of the layers of one TorchScript module, by the names it gives them.

    The k-th call on a Python module, whatever TorchScript calls it, is that module's k-th run.
    """
    runs = {}
    by_name = {}
    for name, _ in expected.script_events(scripted):
        module = maps.twin.get_submodule(name)
        runs[module] = runs.get(module, 0) + 1
        by_name.setdefault(name, []).append((module, runs[module]))
    by_name = {  # without what comes after the score, such as a trailing softmax
        name: calls for name, calls in by_name.items() if calls[0][0] in maps.run.outputs
    }
    called = sum(len(calls) for calls in by_name.values())
    counted = sum(1 for module, _ in maps.run.events if module in runs)
    assert called == counted, f"{spec.name}: {called} calls in the graph, {counted} in Python"
    result = {"full": [], "shared": [], "unstable": [], "maps": {}, "single_precision_errors": {}}
    for name, calls in by_name.items():
        several = [(f"{name}#{k}", call) for k, call in enumerate(calls, 1)] if len(calls) > 1 else []
        if several:
            result["shared"].append(name)
        if maps.run.has_map(*calls[-1]):
            result["full"].append(name)
        for key, call in [(name, calls[-1])] + several:
            if maps.run.has_map(*call):
                if maps.file(*call):
                    result["maps"][key] = maps.file(*call)
                    result["single_precision_errors"][key] = maps.errors[call]
                else:
                    result["unstable"].append(key)
    names = {module: name for name, module in maps.twin.named_modules()}
    result["dropped"] = sorted({names[module] for module, _ in maps.run.events if module not in runs})
    return result, by_name


def choose(layers, by_name, wanted):
    """The name that this TorchScript module gives the layer whose last run is `wanted`."""
    name = next(name for name, calls in by_name.items() if calls[-1] == wanted)
    assert name in layers["maps"], f"{name} has no stable map"
    return name


def make(folder, spec):
    """One network's files; returns its entry in the manifest."""
    x = torch.randn(3, *spec.sample, generator=torch.Generator().manual_seed(spec.seed + 2))
    model, twin = build(spec, spec.inplace), build(spec, False)
    maps = Maps(folder, spec, twin, x)
    entry = {"name": spec.name, "task": spec.task, "spatial": len(spec.sample) - 1, "label": spec.label}
    entry["input"] = save(folder, f"{spec.name}.input.npy", x)
    wanted = None
    for kind in ("traced", "scripted"):
        scripted = compiled(kind, model, x)
        entry[kind] = f"{spec.name}.{kind}.pt"
        scripted.save(str(folder / entry[kind]))
        with torch.no_grad():
            output = scripted(x)
            assert torch.allclose(output, twin(x), atol=1e-5), f"{spec.name}: the twin differs"
        entry[f"output_{kind}"] = save(folder, f"{spec.name}.output_{kind}.npy", output)
        entry[f"twin_{kind}"] = None
        if spec.inplace:
            out_of_place = compiled(kind, twin, x)
            same = expected.script_events(out_of_place) == expected.script_events(scripted)
            assert same, f"{spec.name}: the twin calls its layers in another order"
            entry[f"twin_{kind}"] = f"{spec.name}.twin_{kind}.pt"
            out_of_place.save(str(folder / entry[f"twin_{kind}"]))
        layers, by_name = layers_of(scripted, maps, spec)
        layers["double"] = None
        if max(layers["single_precision_errors"].values()) > IMPRECISE:
            layers["double"] = f"{spec.name}.double_{kind}.pt"
            torch.jit.load(str(folder / entry[kind])).double().save(str(folder / layers["double"]))
        if wanted is None:
            chosen = (spec.auto, spec.named, *spec.several)
            wanted = [by_name[name][-1] for name in chosen]
            entry.update(extra_maps(maps, spec, by_name))
        layers["auto"], layers["named"], *layers["list"] = (
            choose(layers, by_name, call) for call in wanted
        )
        if kind == "traced":
            entry.update(layers)
        else:
            entry["scripted_layers"] = layers
    entry["plus_plus_errors"] = {
        name: error for name, calls in by_name.items() if (error := maps.plus_plus_error(*calls[-1])) is not None
    }
    entry["frozen"] = freeze(folder, spec, model, maps, by_name, wanted[0])
    for call in wanted:
        alive = (maps.run.map(*call).flatten(1).amax(dim=1) > 0).sum().item()
        assert alive == len(x), f"{spec.name}: {spec.seed=} gives {len(x) - alive} maps that are 0"
    return entry


def freeze(folder, spec, model, maps, by_name, auto):
    """The scripted network frozen: no modules are left, and the k-th ReLU is relu.k. Its maps by that name, and auto's."""
    file = f"{spec.name}.frozen.pt"
    module = torch.jit.freeze(torch.jit.script(copy.deepcopy(model)))
    module.save(str(folder / file))
    order = [(module, run) for module, run in maps.run.events if type(module) is nn.ReLU]
    known = {call: f"relu.{k}" for k, call in enumerate(order, 1)}
    wanted = {known[call]: maps.file(*call) for calls in by_name.values() for call in calls
              if call in known and maps.run.has_map(*call)}
    return {
        "file": file,
        "maps": {name: file for name, file in sorted(wanted.items()) if file},
        "auto": maps.file(*auto),
        "modules": len(list(module.named_modules())) - 1,
    }


def make_unstable(folder):
    """A V-Net whose activations go below 0: the denominators of Grad-CAM++'s weights pass through 0, and in late layers
    single precision misses the maps by more than a hundredth."""
    torch.manual_seed(0)
    model = VNet(3, 1, 2, act=("prelu", {"num_parameters": 1}), bias=True).eval()
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(9))
    compiled("traced", model, x).save(str(folder / "unstable.pt"))
    double = expected.in_double(model)
    runs = [expected.Run(m, m_x, 1, copies=True) for m, m_x in ((model, x), (double, x.double()))]
    layers = {}
    for (name, single), (_, other) in zip(model.named_modules(), double.named_modules()):
        if name.startswith("up_tr32.") and single in runs[0].outputs and runs[0].has_map(single, 1):
            maps = [run.map(module, 1, plus_plus=True) for run, module in zip(runs, (single, other))]
            error = (maps[0] - maps[1]).abs().max().item()
            if error > 1e-2:
                layers[name] = error
    return {"file": "unstable.pt", "input": save(folder, "unstable.input.npy", x), "layers": layers}


def compiled(kind, model, x):
    """The model traced or scripted."""
    with torch.no_grad():
        return torch.jit.trace(model, x) if kind == "traced" else torch.jit.script(model)


def extra_maps(maps, spec, by_name):
    """A map of another class, and one of the score after the softmax or sigmoid."""
    file = maps.extra("class_map", *by_name[spec.auto][-1], spec.other_label)
    found = {"class_maps": {"label": spec.other_label, "layer": spec.auto, "map": file}}
    if spec.after_tail:
        file = maps.extra("output_score_map", *by_name[spec.after_tail][-1], spec.label, "output")
        found["output_score_map"] = {"layer": spec.after_tail, "map": file}
    return found


def make_odd(folder, name, build_model, shapes, layers, purpose):
    """One odd model."""
    torch.manual_seed(0)
    torch.jit.script(build_model().eval()).save(str(folder / f"{name}.pt"))
    inputs = [
        save(folder, f"{name}.input{i}.npy", torch.randn(*shape)) for i, shape in enumerate(shapes)
    ]
    return {"name": name, "file": f"{name}.pt", "inputs": inputs, "layers": layers, "for": purpose}


def make_guided(folder, name, twin, files, x, label="best"):
    """A network's files in double, and the gradients at the input that they must give."""
    x = x.double()
    entry = guided.truth(
        twin.double(), x, label, lambda key, tensor: save(folder, f"{name}.guided_{key}.npy", tensor)
    )
    entry.update(name=name, input=save(folder, f"{name}.guided_input.npy", x), files=[])
    for file in files:
        entry["files"].append(file.replace(".pt", ".double.pt"))
        torch.jit.load(str(folder / file)).double().save(str(folder / entry["files"][-1]))
    return entry


def all_guided(folder, networks):
    """Gradients of the parity networks, and of networks with every activation and its oddities."""
    for spec, entry in zip(specs.SPECS, networks):
        x = torch.from_numpy(numpy.load(folder / entry["input"]))[:2]
        kinds = ("traced", "scripted", "twin_traced", "twin_scripted")
        files = [entry[kind] for kind in kinds if entry[kind]]
        yield make_guided(folder, spec.name, build(spec, False), files, x, spec.label)
    for name, build_model, kind in guided.ODD:
        files = [f"{name}.{kind}.pt", f"{name}.twin_{kind}.pt"]
        x = torch.randn(3, 2, 9, 7, generator=torch.Generator().manual_seed(0))
        for file, inplace in zip(files, (True, False)):
            torch.manual_seed(0)
            model = build_model(inplace).eval()
            # What writes to its input must not write to ours.
            compiled(kind, model, x.clone()).save(str(folder / file))
        yield make_guided(folder, name, model, files, x)


def main():
    folder = Path(sys.argv[1])
    # Warnings about tracing and scripting as such; what they make is checked against the twin.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    networks = [make(folder, spec) for spec in specs.SPECS]
    manifest = {
        "torch": torch.__version__,
        "networks": networks,
        "odd": [make_odd(folder, *arguments) for arguments in odd.ODD],
        "unstable": make_unstable(folder),
        "guided": list(all_guided(folder, networks)),
        "aliases": make_aliases.make(folder, functools.partial(save, folder)),
        "several": make_several.make(folder, functools.partial(save, folder)),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
