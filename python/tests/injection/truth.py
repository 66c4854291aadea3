"""What the tests of maps share: the folder of networks, and maps by float64 autograd."""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
pytest.importorskip("torchvision", reason="torchvision is not installed here")
pytest.importorskip("monai", reason="MONAI is not installed here")
sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "networks"))

from torch.nn import functional as F  # noqa: E402

METHODS = ("gcam", "gcampp", "hirescam", "layercam")


def activations_and_gradients(net, x, names, score):
    """Of each layer's last run, and the gradient at the input, by autograd of the whole network."""
    seen = {}

    def hook_of(name):
        def hook(module, args, output):
            seen[name] = output
            # What writes over it in place leaves `seen` alone.
            return output.clone()

        return hook

    handles = [net.get_submodule(n).register_forward_hook(hook_of(n)) for n in names]
    x = x.detach().clone().requires_grad_()
    try:
        total = score(getattr(net, "logits", net)(x.clone()))
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(total, [x, *seen.values()])
    found = {n: (a.detach(), g) for (n, a), g in zip(seen.items(), gradients[1:])}
    return found, gradients[0]


def raw_map(a, g, method):
    """`(B, 1, [D,] H, W)`, before it is resampled."""
    axes = tuple(range(2, a.ndim))
    if method in ("hirescam", "layercam"):
        g = g.clamp_min(0) if method == "layercam" else g
        return (g * a).sum(1, keepdim=True).clamp_min(0)
    if method == "gcam":
        w = g.mean(axes, keepdim=True)
    else:
        below = 2 + g * a.sum(axes, keepdim=True)
        w = torch.where(g > 0, g / below, 0).sum(axes, keepdim=True)
    return (w * a).sum(1, keepdim=True).clamp_min(0)


def finished(raw, size):
    mode = "bilinear" if raw.ndim == 4 else "trilinear"
    maps = F.interpolate(raw, size, mode=mode, align_corners=False)
    return normalized(maps)


def normalized(maps):
    axes = tuple(range(1, maps.ndim))
    low, high = maps.amin(axes, keepdim=True), maps.amax(axes, keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def best_of(y):
    """The class of each sample by `label="best"`, from logits."""
    if y.shape[1] == 1:
        return [0] * len(y)
    if y.ndim == 2:
        return y.argmax(1).tolist()
    counts = torch.stack([(y.argmax(1) == k).flatten(1).sum(1) for k in range(y.shape[1])], 1)
    counts[:, 0] = 0
    return counts.argmax(1).tolist()


def score_of(classes):
    return lambda y: sum(y[b, k].sum() for b, k in enumerate(classes))


def tolerance(exact, single):
    """1e-5, or twice what autograd in single precision misses."""
    return max(1e-5, 2 * float((exact - single.double()).abs().max()))
