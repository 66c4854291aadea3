"""What the tests of `export` share: networks of the same weights each time, and files compared with them."""

import copy
import warnings

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

IMAGE = (1, 1, 16, 16)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(make):
    """A network in evaluation mode, the same weights each time."""
    torch.manual_seed(0)
    return make().eval()


def loaded(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path)).eval()


def tensors(output):
    if torch.is_tensor(output):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts for tensor in tensors(part)]


def gives(path, module, *inputs):
    """Whether a file gives the module's output, exactly."""
    file = loaded(path)
    module = copy.deepcopy(module).eval()
    with torch.no_grad():
        pairs = [(tensors(file(x.clone())), tensors(module(x.clone()))) for x in inputs]
    return all(
        len(one) == len(two) and all(map(torch.equal, one, two)) for one, two in pairs
    )
