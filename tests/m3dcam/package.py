"""The real package, medcam 0.1.22, and what has to be put back for its evaluation to run at all."""

import os
import warnings

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy
import pandas
import torch


def put_back_what_was_removed():
    """np.float went with NumPy 1.24, DataFrame.append with pandas 2.0."""
    numpy.float = float

    def append(self, row, ignore_index):
        assert ignore_index
        row = pandas.DataFrame([row])
        return row if self.empty else pandas.concat([self, row], ignore_index=True)

    pandas.DataFrame.append = append


put_back_what_was_removed()

from medcam import medcam, medcam_utils  # noqa: E402


class Failed(Exception):
    """The package raised; the text is its error."""


def maps(model, x, label, backend, layer, first=False):
    """By layer its attention maps on the layer's grid, (B, 1, ...), and where there is one layer also
    what it hands out, at the size of the input.

    Unless this is the `first` call, its test run, of itself part of the first call, is done before.
    """
    x = x.clone()
    one = layer == "auto" or backend == "gbp" or isinstance(layer, str) and layer != "full"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            injected = medcam.inject(model, backend=backend, layer=layer, label=label, return_attention=one)
            inside = injected.medcam_dict["model_backend"]
            found = {}
            generate = inside.generate_attention_map

            def keep(batch, label):
                result = generate(batch, label)
                found.clear()
                found.update(result[1])
                return result

            inside.generate_attention_map = keep
            if not first:
                injected.test_run(x.clone(), internal=True)
            result = injected(x)
        except Exception as error:  # whatever it is, it is the result of this case
            raise Failed(f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0]) from error
    found = {name: torch.as_tensor(values) for name, values in found.items()}
    return found, result[1] if one else None


def layers(model):
    """The package's order of the layers."""
    return medcam_utils.get_layers(model)
