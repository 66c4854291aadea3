"""Make the networks of architectures.py: `make_architectures.py FOLDER`, by `scripts/setup.py test`.

Each is exported, with its output and the maps of some of its layers by plain autograd. manifest.json says
what is what.
"""

import functools
import json
import sys
import warnings
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _NormBase

import expected
from architectures import ARCHITECTURES
from make_networks import save

# A network with a map that plain autograd in single precision misses by more than this is exported in
# double as well, so that its maps can be compared closely; see tests/parity.rs.
IMPRECISE = 2e-6
# No map that single precision misses by more is compared.
STABLE = 5e-4


def network(architecture):
    """Random weights and running statistics."""
    torch.manual_seed(architecture.seed)
    model = architecture.build().eval()
    for module in model.modules():
        if isinstance(module, _NormBase):
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.uniform_(-0.5, 0.5)
            if module.track_running_stats:
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model


def both_runs(architecture, model, x):
    """(model, its run) in single and in double precision."""

    def output(model, x):
        return one_of(architecture, expected.logits_of(model, x))

    return [
        (module, expected.Run(module, inputs, architecture.label, output=output, copies=True))
        for module, inputs in ((model, x), (expected.in_double(model), x.double()))
    ]


def one_of(architecture, output):
    """The explained one of what forward returns; by default the first."""
    return output if torch.is_tensor(output) else output[architecture.output or 0]


def make(folder, architecture):
    """One network's files; returns its entry in the manifest."""
    name = architecture.name
    write = functools.partial(save, folder)
    x = torch.randn(*architecture.input, generator=torch.Generator().manual_seed(architecture.seed + 1))
    model = network(architecture)
    entry = {
        "name": name,
        "task": architecture.task,
        "label": architecture.label,
        "explained": architecture.output,
        "auto": architecture.auto,
        "channels_last": architecture.channels_last,
        "input": write(f"{name}.input.npy", x),
        "exports": export(folder, architecture, model, x),
    }
    with torch.no_grad():
        entry["output"] = write(f"{name}.output.npy", one_of(architecture, model(x)))
    runs = both_runs(architecture, model, x)
    entry.update(maps={}, single_precision_errors={}, double=None)
    for layer in (architecture.auto, *architecture.layers):
        channels_last = layer in architecture.channels_last
        single, exact = (run.map(module.get_submodule(layer), 1, channels_last) for module, run in runs)
        error = (exact - single).abs().max().item()
        assert error < STABLE, f"{name}: the map of {layer} is not stable ({error})"
        alive = (exact.flatten(1).amax(dim=1) > 0).sum().item()
        assert alive == len(x), f"{name}: {len(x) - alive} maps of {layer} are 0; take another seed"
        entry["single_precision_errors"][layer] = error
        entry["maps"][layer] = write(f"{name}.map{len(entry['maps'])}.npy", exact)
    if max(entry["single_precision_errors"].values()) > IMPRECISE:
        entry["double"] = f"{name}.double.pt"
        compiled(next(iter(entry["exports"])), runs[1][0], x.double()).save(str(folder / entry["double"]))
    return entry


def compiled(kind, model, x):
    with torch.no_grad():
        if kind == "scripted":
            return torch.jit.script(model)
        # Only with strict=False tracing takes a list of outputs.
        return torch.jit.trace(model, x, strict=False, check_trace=False)


def export(folder, architecture, model, x):
    """The files by kind; what cannot be exported must fail as written down."""
    files = {}
    for kind, refusal in architecture.exports.items():
        try:
            exported = compiled(kind, model, x)
        except (RuntimeError, torch.jit.frontend.NotSupportedError) as error:
            assert refusal and refusal in str(error), f"{architecture.name}, {kind}: {error}"
            continue
        assert refusal is None, f"{architecture.name} can be {kind} now"
        files[kind] = f"{architecture.name}.{kind}.pt"
        exported.save(str(folder / files[kind]))
    return files


def main():
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    entries = [make(folder, architecture) for architecture in ARCHITECTURES]
    text = json.dumps({"torch": torch.__version__, "architectures": entries}, indent=1)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
