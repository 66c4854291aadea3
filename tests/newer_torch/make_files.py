#!/usr/bin/env python3
"""The TorchScript files of a newer torch, their outputs, and the Grad-CAM maps of autograd in float64.

The files here were made with torch 2.15.0. Run it with a Python that has a torch newer than the one that medcam
runs on, in any folder; it writes beside itself.

Weights and inputs have so few digits that each sum is exact: the output is the same to the last bit whatever
torch and whatever processor adds it up.
"""

import pathlib
import re
import sys
import warnings
import zipfile

import numpy
import torch
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "networks"))
sys.dont_write_bytecode = True
import expected  # noqa: E402

LABEL = 1
LAYER = "second"


class Base(nn.Module):
    """A segmentation at the size of the input, from features at half of it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 3, 1)

    def features(self, x):
        return self.second(F.max_pool2d(torch.relu(self.first(x)), 2))


class Interpolate(Base):
    def forward(self, x):
        x = F.interpolate(self.features(x), size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.head(torch.relu(x))


class Upsample(Base):
    def __init__(self):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")

    def forward(self, x):
        return self.head(torch.relu(self.up(self.features(x))))


class Broadcast(Base):
    """Calls an operator that torch 2.11 has under another name."""

    def forward(self, x):
        x = self.features(x)
        shape = torch.broadcast_shapes(x.shape, [1, 6, 1, 1])
        return self.head(torch.relu(x.expand(shape)))


class Constant(Base):
    """Has a branch that folding constants could compute when the file loads."""

    def forward(self, x):
        x = self.features(x)
        if x.size(0) > 1000:
            ones = torch.ones([1, 6, 4, 4])
            x = x + torch._C._nn._upsample_lanczos2d_aa(ones, [2, 2], False, None).sum()
        return self.head(torch.relu(x))


class Lanczos(Base):
    """Runs an operator that torch 2.11 does not have."""

    def forward(self, x):
        x = F.interpolate(self.features(x), size=x.shape[2:], mode="lanczos", antialias=True)
        return self.head(torch.relu(x))


def network(kind):
    model, numbers = kind().eval(), numpy.random.default_rng(3)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.copy_(torch.from_numpy(numbers.integers(-4, 5, parameter.shape) / 4))
    return model


def image():
    numbers = numpy.random.default_rng(5)
    return torch.from_numpy(numbers.integers(-4, 5, (2, 1, 12, 16)) / 2).float()


def script(name, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(HERE / f"{name}.pt"))
    rewrite(name, name)


def rewrite(source, name, edit=lambda _record, data: data):
    """One file as another: without the source code of Python and its paths, its records edited."""
    with zipfile.ZipFile(HERE / f"{source}.pt") as archive:
        records = [(record, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(HERE / f"{name}.pt", "w") as archive:
        for record, data in records:
            if record.filename.endswith(".debug_pkl"):
                continue
            written = zipfile.ZipInfo(record.filename)
            # libtorch maps tensors into memory as they lie in the file.
            compress = record.filename.endswith(".py")
            written.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            archive.writestr(written, edit(record.filename, data))


def in_code(old, new):
    """An edit of the network's own code, which must be there to be edited."""

    def edit(record, data):
        if not record.endswith("/code/__torch__.py"):
            return data
        assert old.encode() in data, f"make_files.py: no '{old}' in the code"
        return data.replace(old.encode(), new.encode())

    return edit


def in_version(version):
    return lambda record, data: version if re.fullmatch(r"[^/]*/version", record) else data


def make():
    print(f"make_files.py: torch {torch.__version__}")
    x = image()
    numpy.save(HERE / "input.npy", x.numpy())
    for kind in (Interpolate, Upsample, Broadcast, Constant):
        name, model = kind.__name__.lower(), network(kind)
        script(name, model)
        with torch.no_grad():
            numpy.save(HERE / f"{name}.output.npy", torch.jit.load(HERE / f"{name}.pt")(x).numpy())
        double = expected.in_double(model)
        run = expected.Run(double, x.double(), LABEL)
        map = run.map(dict(double.named_modules())[LAYER], 1)
        numpy.save(HERE / f"{name}.map.npy", map.float().numpy())
    script("lanczos", network(Lanczos))

    # What other, still newer torches and extensions write.
    relu = "torch.relu("
    rewrite("interpolate", "unknown_operator", in_code(relu, "torch.relu_of_tomorrow("))
    rewrite("interpolate", "unknown_extension", in_code(relu, "ops.torchvision.relu("))
    rewrite("interpolate", "unknown_argument", in_code(relu, "torch.relu(slope=2, self="))
    rewrite("interpolate", "unknown_type", in_code("x: Tensor", "x: Tansor"))
    extension = "__torch__.torch.classes.torchvision.Video"
    rewrite("interpolate", "unknown_class", in_code("x: Tensor", f"x: {extension}"))
    rewrite("interpolate", "newer_format", in_version(b"99\n"))


if __name__ == "__main__":
    make()
