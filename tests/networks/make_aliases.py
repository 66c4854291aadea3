"""The networks of aliases.py: exported, with their output and the HiResCAM maps that autograd gives."""

import warnings

import torch

import aliases
import expected

STABLE = 1e-5
CLASS = 1


def make(folder, save):
    """Write all files; returns the entry of the manifest. `save(name, tensor)` writes one array."""
    x = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(5)) + 0.1
    entry = {"input": save("aliases.input.npy", x), "networks": []}
    for kind in aliases.NETWORKS:
        model, name = network(kind), kind.__name__
        with torch.no_grad():
            output = model(x.clone())
        single, double = maps(model, x), maps(expected.in_double(model), x.double())
        for layer, map in double.items():
            error = (map - single[layer]).abs().max().item()
            assert error < STABLE, f"aliases.py: {name} {layer} is not stable ({error})"
        entry["networks"].append(
            {
                "name": name,
                "refused": kind.refused,
                "files": export(folder, model, x),
                "output": save(f"aliases.{name}.output.npy", output),
                "maps": {
                    layer: save(f"aliases.{name}.{layer}.npy", map)
                    for layer, map in double.items()
                    if layer not in kind.refused
                },
            }
        )
    return entry


def network(kind):
    torch.manual_seed(7)
    model = kind().eval()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(norm.running_mean)
            torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return model


def maps(model, x):
    """By layer, of its last run: ReLU of the sum over channels of activation times gradient, in [0, 1].

    Both are those of the moment when the layer returned: the hook of a tensor that is written to later
    gets the gradient of what was in it before.
    """
    values, gradients = {}, {}

    def arrived(name, value, gradient):
        if values[name] is value:
            gradients[name] = gradient

    def keep(name):
        def hook(_module, _inputs, output):
            if output.requires_grad and output.dim() == 4:
                value = values[name] = output.detach().clone()
                output.register_hook(lambda gradient: arrived(name, value, gradient))
                # The hook of a view that is written to is lost.
                return output.clone() if output._is_view() and name not in model.refused else None
            return None

        return hook

    hooks = [
        module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name
    ]
    model(x.clone())[:, CLASS].sum().backward()
    for hook in hooks:
        hook.remove()
    return {name: hirescam(values[name], gradients[name]) for name in values if name in gradients}


def hirescam(activation, gradient):
    map = (activation * gradient).sum(1, keepdim=True).relu()
    low, high = map.amin((1, 2, 3), keepdim=True), map.amax((1, 2, 3), keepdim=True)
    return (map - low) / (high - low).clamp_min(1e-300 if map.dtype == torch.double else 1e-30)


def export(folder, model, x):
    files = []
    for way in ("scripted", "traced") if model.traced else ("scripted",):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = (
                torch.jit.trace(model, x.clone(), check_trace=False)
                if way == "traced"
                else torch.jit.script(model)
            )
        files.append(f"aliases.{type(model).__name__}.{way}.pt")
        exported.save(str(folder / files[-1]))
    return files
