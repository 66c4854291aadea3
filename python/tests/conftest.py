"""What the tests share: both libraries, and drawn layers."""

import numpy
import pytest


def in_numpy(array):
    """A tensor or array as float64 of NumPy."""
    if hasattr(array, "detach"):
        array = array.detach().double().numpy()
    return numpy.asarray(array, dtype=numpy.float64)


class Numpy:
    """NumPy's arrays."""

    dtypes = ("float32", "float16")

    def make(self, values, dtype="float32"):
        return numpy.ascontiguousarray(values.astype(dtype))

    def channels_last(self, array):
        """The same array with the channels of a voxel side by side in memory."""
        moved = numpy.ascontiguousarray(numpy.moveaxis(array, 1, -1))
        return numpy.moveaxis(moved, -1, 1)


class Torch:
    """PyTorch's tensors."""

    dtypes = ("float32", "float16", "bfloat16")

    def __init__(self):
        self.torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

    def make(self, values, dtype="float32"):
        return self.torch.from_numpy(values.copy()).to(getattr(self.torch, dtype))

    def channels_last(self, array):
        kind = "channels_last" if array.ndim == 4 else "channels_last_3d"
        return array.to(memory_format=getattr(self.torch, kind))


@pytest.fixture(params=[Numpy, Torch])
def library(request):
    return request.param()


def drawn_layers(count=24):
    """Seeds and shapes of layers in 2D and 3D, odd ones among them."""
    draw = numpy.random.default_rng(15)
    layers = []
    for seed in range(count):
        axes = 2 if seed % 2 else 3
        batch, channels = int(draw.integers(1, 4)), int(draw.integers(1, 40))
        grid = tuple(int(n) for n in draw.integers(1, 14, axes))
        size = tuple(int(n) for n in draw.integers(1, 30, axes))
        layers.append(pytest.param(seed, (batch, channels, *grid), size, id=f"{seed}"))
    return layers


# PyTorch's own, of ways that it still has.
DEPRECATED = (
    "ignore:`torch.jit:DeprecationWarning",
    "ignore:`torch.distributed.reduce_op`:FutureWarning",
    "ignore:`isinstance\\(treespec, LeafSpec\\)`:FutureWarning",
)


def pytest_collection_modifyitems(items):
    """Warnings of PyTorch about itself are not those of a test."""
    for item in items:
        # In front: what a test filters itself goes before.
        for ignored in DEPRECATED:
            item.add_marker(pytest.mark.filterwarnings(ignored), append=False)
