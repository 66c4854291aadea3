"""The package's evaluation: scores of single maps, and whole runs with their scores.xlsx."""

import contextlib
import io
import math
import tempfile
from pathlib import Path

import numpy
import pandas
import torch

import package
from networks import NETWORKS, batch, build

METRICS = ("ioa", "wioa", "iou", "wiou")
THRESHOLDS = ("otsu", 0.3, 0.75)

# network, backend, layers, threshold.
RUNS = (
    ("classifier2d", "gcam", ["block1", "block3"], "otsu"),
    ("segmenter2d", "gcam", ["dec", "enc.norm", "bottleneck"], 0.4),
    ("sigmoid_segmenter2d", "gcampp", ["bottleneck"], "otsu"),
    ("classifier3d", "gcam", ["block2", "block1.norm"], "otsu"),
    ("segmenter3d", "ggcam", ["bottleneck"], 0.5),
)


class Arrays:
    """Arrays kept one after the other, for one file."""

    def __init__(self):
        self.kept = []
        self.length = 0

    def keep(self, array):
        """Returns where it will be."""
        array = torch.as_tensor(array).detach().float()
        place = {"at": self.length, "shape": list(array.shape)}
        self.kept.append(array.flatten())
        self.length += array.numel()
        return place

    def write(self, path):
        """Write the file."""
        numpy.save(path, torch.cat(self.kept).numpy())


def network_of(name):
    """The network of a name."""
    return next(network for network in NETWORKS if network.name == name)


def mask_of(shape, seed):
    """A mask of two boxes, `shape` in voxels."""
    generator = numpy.random.default_rng(seed)
    mask = numpy.zeros(shape, dtype=numpy.float32)
    for _ in range(2):
        low = [generator.integers(0, extent // 2) for extent in shape]
        high = [at + 1 + generator.integers(extent // 4, extent // 2) for at, extent in zip(low, shape)]
        mask[tuple(slice(a, b) for a, b in zip(low, high))] = 1
    return mask


def number(score):
    """JSON has no NaN."""
    return None if math.isnan(score) else float(score)


def scores(arrays):
    """Scores of single maps by every metric and threshold."""
    found = []
    for name, backend, layers, _ in RUNS:
        network = network_of(name)
        maps, _ = package.maps(build(network), batch(network, 1), network.label, backend, layers)
        everything = [(map_[0, 0].numpy(), seed) for seed, map_ in enumerate(maps.values())]
        if name == "segmenter3d":  # a guided map that is not normalised, and one that says nothing
            noise = numpy.random.default_rng(7).normal(size=(6, 6, 8)).astype(numpy.float32)
            everything += [(noise, 8), (numpy.zeros((4, 4, 4), numpy.float32), 9)]
        for map_, seed in everything:
            mask = mask_of(network.sample[1:], seed)
            places = {"map": arrays.keep(map_), "mask": arrays.keep(mask)}
            for metric in METRICS:
                for threshold in THRESHOLDS:
                    with numpy.errstate(invalid="ignore"):
                        score = package.medcam.compute_score(map_.copy(), mask, metric, threshold)
                    settings = {"metric": metric, "threshold": threshold}
                    found.append({**places, **settings, "score": number(score)})
    return found


def run(arrays, name, backend, layers, threshold, metric):
    """Three batches through an injected network, then its tables as pandas reads them."""
    network = network_of(name)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        injected = package.medcam.inject(
            build(network),
            output_dir=folder,
            backend=backend,
            layer=layers,
            label=network.label,
            evaluate=True,
            save_scores=True,
            metric=metric,
            threshold=threshold,
        )
        injected.test_run(batch(network, 1))
        forwards = []
        for seed in range(3):
            # Of ggcam's batches only the first sample is right.
            samples = 1 if backend == "ggcam" else 2
            x = batch(network, samples) + 0.3 * seed
            mask = numpy.stack([mask_of(network.sample[1:], 10 * seed + b)[None] for b in range(samples)])
            forwards.append({"input": arrays.keep(x), "mask": arrays.keep(mask)})
            injected(x, mask=torch.as_tensor(mask))
        injected.dump()
        tables = pandas.read_excel(
            Path(folder) / "scores.xlsx", sheet_name=None, keep_default_na=False, na_values=["NaN"]
        )
    rows = [
        {"layer": row["layer"], "class": int(row["class_label"]), "score": number(row["evaluation"])}
        for _, row in tables["Scores"].iterrows()
    ]
    means = [
        {"layer": row["layer"], "class": int(row["class_label"]), "score": number(row["mean_score"])}
        for _, row in tables["Mean Scores"].iterrows()
    ]
    return {
        "network": name,
        "backend": backend,
        "layers": layers,
        "label": network.label,
        "metric": metric,
        "threshold": threshold,
        "forwards": forwards,
        "scores": rows,
        "means": means,
    }


def make(folder):
    """All of it, for the manifest."""
    arrays = Arrays()
    made = {"scores": scores(arrays)}
    made["runs"] = [
        run(arrays, *settings, metric) for settings, metric in zip(RUNS, (*METRICS, METRICS[1]))
    ]
    arrays.write(folder / "evaluation.npy")
    return {**made, "arrays": "evaluation.npy"}
