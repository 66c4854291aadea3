"""Where the libraries are, small networks, and comparisons with and without the patches.

`scripts/setup.py test` installs the five libraries into folders of the cache and names them in
`.cargo/config.toml`; cargo passes these on as environment variables, and without cargo they are
read from there. The fixtures are here and not in a conftest.py, whose name the other tests import.
"""

import collections
import importlib.util
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import medcam_rs

CONFIG = Path(__file__).resolve().parents[3] / ".cargo" / "config.toml"
KERNELS = (
    "cam",
    "channel_weights",
    "alpha_weights",
    "project",
    "channel_mean",
    "resample",
    "normalize",
    "guided_activation",
    "guided_product",
)


def _folder(variable):
    if variable in os.environ:
        return os.environ[variable]
    lines = CONFIG.read_text(encoding="utf-8").splitlines() if CONFIG.exists() else []
    values = [
        line.split(" = ", 1)[1].strip('"') for line in lines if line.startswith(f"{variable} = ")
    ]
    return values[0] if values else None


# At the end, so that what the environment has comes from there.
for _variable in ("MEDCAM_PEERS", "MEDCAM_M3DCAM_PACKAGES"):
    if _place := _folder(_variable):
        sys.path.append(_place)

IMPORTED = {
    "m3dcam": "medcam",
    "pytorch_grad_cam": "pytorch_grad_cam",
    "monai": "monai",
    "torchcam": "torchcam",
    "captum": "captum",
}


def needed(library):
    """A mark that skips, and says why, where the package of `library` is not installed."""
    missing = importlib.util.find_spec(IMPORTED[library]) is None
    reason = f"the package {IMPORTED[library]} is not installed: run scripts/setup.py test"
    return pytest.mark.skipif(missing, reason=reason)


class Classifier(nn.Module):
    """Two convolutional stages, pooling, three classes; 2D or 3D."""

    def __init__(self, dimensions, inplace=False):
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[dimensions]
        mean = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dimensions]
        self.early = conv(1, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)
        self.pool = pool(2)
        self.late = conv(6, 8, 3, padding=1)
        self.late_relu = nn.ReLU(inplace=inplace)
        # Pooling to 2 and a linear layer: the gradient varies over the map.
        self.mean = mean(2)
        self.head = nn.Linear(8 * 2**dimensions, 3)

    def forward(self, x):
        x = self.pool(self.relu(self.early(x)))
        x = self.mean(self.late_relu(self.late(x)))
        return self.head(x.flatten(1))


class Segmenter(nn.Module):
    """Down, a hidden layer, up again, a map of logits; 2D or 3D."""

    def __init__(self, dimensions, classes):
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.early = conv(1, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.hidden = conv(6, 8, 3, stride=2, padding=1)
        self.hidden_relu = nn.ReLU()
        self.up = nn.Upsample(scale_factor=2)
        self.last = conv(8, classes, 3, padding=1)

    def forward(self, x):
        x = self.hidden_relu(self.hidden(self.relu(self.early(x))))
        return self.last(self.up(x))


def classifier(dimensions, inplace=False, seed=0):
    torch.manual_seed(seed)
    return Classifier(dimensions, inplace).eval()


def segmenter(dimensions, classes=2, seed=0):
    torch.manual_seed(seed)
    return Segmenter(dimensions, classes).eval()


def image(dimensions, batch=1, seed=1):
    """No two extents alike, so that swapped axes would show."""
    torch.manual_seed(seed)
    extents = {2: (20, 28), 3: (12, 16, 20)}[dimensions]
    return torch.randn(batch, 1, *extents)


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of each kernel, so that no comparison of a library with itself can pass."""
    counts = collections.Counter()
    for name in KERNELS:

        def counted(*args, _name=name, _kernel=getattr(medcam_rs, name), **kwargs):
            counts[_name] += 1
            return _kernel(*args, **kwargs)

        monkeypatch.setattr(medcam_rs, name, counted)
    return counts


@pytest.fixture(autouse=True)
def quiet():
    """The libraries warn about hooks on each call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def both(library, run, **flags):
    """What `run` gives without the patches and with them."""
    plain = run()
    with medcam_rs.accelerate(library, **flags):
        ours = run()
    return plain, ours


def same(plain, ours, tolerance=1e-5):
    """Equal in type, shape, device and, within the tolerance, value."""
    assert type(ours) is type(plain)
    assert ours.dtype == plain.dtype
    assert tuple(ours.shape) == tuple(plain.shape)
    if isinstance(plain, torch.Tensor):
        assert ours.device == plain.device
        plain, ours = plain.detach().float().numpy(), ours.detach().float().numpy()
    assert np.isfinite(plain).all()
    np.testing.assert_allclose(ours, plain, rtol=0, atol=tolerance)


def varies(values):
    """Refuses a map that would be equal to anything of one value."""
    values = values.detach().float().numpy() if isinstance(values, torch.Tensor) else values
    assert all(np.ptp(sample) > 1e-3 * np.abs(values).max() > 0 for sample in values)
