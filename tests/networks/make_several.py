"""The models of several.py: each exported, with the outputs and maps that each choice must give."""

import warnings

import torch

import expected
import several

STABLE = 5e-6


def make(folder, save):
    """Write all files; returns the entry of the manifest. `save(name, tensor)` writes one array."""
    x = torch.randn(2, 3, 25, 31, generator=torch.Generator().manual_seed(1))
    plain = network(several.Heads)
    entry = {"input": save("several.input.npy", x), "heads": {}, "models": []}
    for head in ("main", "coarse", "image"):
        for score in ("logits", "output"):
            entry["heads"][f"{head}.{score}"] = head_files(plain, x, head, score, save)
    for build, kinds, names, told in several.MODELS:
        model = network(build)
        model.load_state_dict(plain.state_dict())
        for kind in kinds:
            entry["models"].append(export(folder, model, kind, x, names, told))
    return entry


def network(build):
    torch.manual_seed(3)
    return build().eval()


def head_files(plain, x, head, score, save):
    """The output that a head gives, and the maps of its score."""
    files = {"maps": {}}
    for layer in several.LAYERS:
        single, double = (
            expected.Run(model, inputs, 1, output=lambda model, x: model.head(x, head, score)).map(
                model.get_submodule(layer), 1
            )
            for model, inputs in ((plain, x), (expected.in_double(plain), x.double()))
        )
        error = (double - single).abs().max().item()
        assert error < STABLE, f"several.py: {head} {score} {layer} is not stable ({error})"
        files["maps"][layer] = save(f"several.{head}.{score}.{layer}.npy", double)
    with torch.no_grad():
        files["output"] = save(f"several.{head}.{score}.output.npy", plain.head(x, head, "output"))
    return files


def export(folder, model, kind, x, names, told):
    """One file, and what its outputs are called."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Only with strict=False tracing takes lists and dicts.
        exported = torch.jit.trace(model, x, strict=False) if kind == "traced" else torch.jit.script(model)
    file = f"several.{type(model).__name__}.{kind}.pt"
    exported.save(str(folder / file))
    return {"file": file, "names": names, "told": told}
