"""Compares medcam_rs with what the ops gave, bit for bit: `compare_bits.py cases.json`."""

import json
import pathlib
import sys

import numpy
import torch

import medcam_rs


def read(path, dtype, shape):
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=getattr(torch, dtype)).view(shape)


def layer(path, case):
    """A tensor that lies in memory as its bytes in the file do."""
    grid = case["grid"][1:] if case["grid"][0] == 1 else case["grid"]
    batch, channels = case["shape"]
    if not case["channels_last"]:
        return read(path, case["dtype"], (batch, channels, *grid))
    return read(path, case["dtype"], (batch, *grid, channels)).movedim(-1, 1)


def same(found, path):
    assert found.numpy().tobytes() == path.read_bytes(), f"{path}: other bits"
    return 1


def results_of(case, methods):
    """How many results were compared, from tensors and, where NumPy has the type, from arrays."""
    folder = pathlib.Path(case["folder"])
    a, g = layer(folder / "activation", case), layer(folder / "gradient", case)
    flat = case["grid"][0] == 1
    to = tuple(case["to"][1:] if flat else case["to"])
    guided = read(folder / "guided", "float32", (len(a), *to))
    count = 0
    for i, (method, denominator) in enumerate(methods):
        options = {"denominator": denominator, "out_dtype": case["out_dtype"]}
        count += same(medcam_rs.cam(a, g, method, size=to, **options), folder / f"cam{i}")
        guided_map = medcam_rs.guided_cam(a, g, guided, method, **options)
        count += same(guided_map, folder / f"guided_cam{i}")
        if case["dtype"] != "bfloat16":
            array = medcam_rs.cam(a.numpy(), g.numpy(), method, size=to, **options)
            assert array.tobytes() == (folder / f"cam{i}").read_bytes()
    weights, mean = medcam_rs.channel_weights(g), medcam_rs.channel_mean(a)
    count += same(weights, folder / "channel_weights")
    count += same(mean, folder / "channel_mean")
    signed = medcam_rs.project(weights, a, rectify=False)
    count += same(signed, folder / "weighted_sum")
    nearest = medcam_rs.resample(mean, to, interpolation="nearest")
    count += same(nearest, folder / "nearest")
    return count + same(medcam_rs.normalize(mean), folder / "normalized")


def main():
    listed = json.loads(pathlib.Path(sys.argv[1]).read_text())
    counts = [results_of(case, listed["methods"]) for case in listed["cases"]]
    print(f"{len(counts)} cases, {sum(counts)} results, all of the same bits")


main()
