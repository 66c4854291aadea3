"""The chains composed of torch's own calls, eager and through torch.compile, and the bandwidth of a
copy in device memory. Run by gpu-check: torch_baselines.py SIZES.json RESULTS.json SECONDS

Each figure is the median over bursts of the time per call, by CUDA events; inputs are used in turn,
so that the second-level cache does not hold them.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

COPY_BYTES = 1 << 30
# Sets of inputs together have at least so many bytes, several times the second-level cache.
COLD_BYTES = 256 << 20
MOST_SETS = 1 << 10
BURST = 20
BURSTS = 9
# A compilation that may not be done in the time that is left is not begun.
COMPILE_SECONDS = 25


def grad_cam(activation, gradient, guided):
    """ReLU(sum_c mean(G)·A), on the grid of the input, normalised."""
    weights = gradient.mean(dim=axes(gradient), keepdim=True)
    return finished((activation * weights).sum(dim=1, keepdim=True).relu(), guided)


def guided_grad_cam(activation, gradient, guided):
    """Grad-CAM's map times the guided map, normalised."""
    weights = gradient.mean(dim=axes(gradient), keepdim=True)
    values = (activation * weights).sum(dim=1, keepdim=True).relu()
    return normalized(on_grid_of(guided, values) * guided)


def grad_cam_plus_plus(activation, gradient, guided):
    """Grad-CAM++ with the paper's denominator, as pytorch-grad-cam writes it."""
    squared = gradient.pow(2)
    cubed = squared * gradient
    total = activation.sum(dim=axes(activation), keepdim=True)
    alpha = squared / (2 * squared + total * cubed + 1e-6)
    alpha = torch.where(gradient != 0, alpha, torch.zeros_like(alpha))
    weights = (gradient.relu() * alpha).sum(dim=axes(gradient), keepdim=True)
    return finished((activation * weights).sum(dim=1, keepdim=True).relu(), guided)


def hires_cam(activation, gradient, guided):
    """ReLU(sum_c G·A), on the grid of the input, normalised."""
    return finished((gradient * activation).sum(dim=1, keepdim=True).relu(), guided)


def layer_cam(activation, gradient, guided):
    """ReLU(sum_c ReLU(G)·A), on the grid of the input, normalised."""
    return finished((gradient.relu() * activation).sum(dim=1, keepdim=True).relu(), guided)


# All take the same, though only Guided Grad-CAM reads the values of the guided map.
CHAINS = (grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, guided_grad_cam)


def axes(tensor):
    """The spatial axes."""
    return tuple(range(2, tensor.dim()))


def finished(values, guided):
    """The map on the grid of the guided map, normalised."""
    return normalized(on_grid_of(guided, values))


def on_grid_of(guided, values):
    """The map in f32, resampled."""
    values, grid = values.float(), guided.shape[2:]
    if values.shape[2:] == grid:
        return values
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    return F.interpolate(values, size=grid, mode=mode, align_corners=False)


def normalized(values):
    """To [0, 1]."""
    minimum = values.amin(dim=axes(values), keepdim=True)
    maximum = values.amax(dim=axes(values), keepdim=True)
    return (values - minimum) / (maximum - minimum)


class Size:
    """One layer: its shape as torch has it, and the grid of the network's input."""

    def __init__(self, entry):
        self.all_types = entry.get("all_types", False)
        # Two axes for images.
        skip = 1 if entry["grid"][0] == 1 else 0
        self.shape = (1, entry["channels"], *entry["grid"][skip:])
        self.grid = tuple(entry["input"][skip:])
        self.name = "x".join(str(extent) for extent in (1, entry["channels"], *entry["grid"]))

    def sets(self, dtype):
        """Activations, gradients and guided maps."""
        size = 2 * math.prod(self.shape) * dtype.itemsize
        count = min(-(-COLD_BYTES // size), MOST_SETS)
        generator = torch.Generator("cuda").manual_seed(0)

        def tensor(shape=self.shape, kind=dtype):
            return torch.randn(shape, device="cuda", dtype=kind, generator=generator)

        guided = (1, 1, *self.grid)
        return [(tensor().relu(), tensor(), tensor(guided, torch.float32)) for _ in range(count)]


def seconds_per_call(call, sets):
    """The median over the bursts."""
    turn = 0
    times = []
    for burst in range(BURSTS + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(BURST):
            call(*sets[turn])
            turn = (turn + 1) % len(sets)
        end.record()
        torch.cuda.synchronize()
        # The first warms up.
        if burst > 0:
            times.append(start.elapsed_time(end) / 1e3 / BURST)
    return sorted(times)[BURSTS // 2]


def copy_bandwidth():
    """Bytes read and written per second by `copy_` of 1 GiB."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = seconds_per_call(lambda to, of: to.copy_(of), [(target, source)])
    return 2 * COPY_BYTES / seconds


def plan(sizes):
    """Chain, size, type and whether compiled: what matters most comes first."""
    kinds = (("f16", torch.float16), ("bf16", torch.bfloat16))
    f32 = ("f32", torch.float32)
    eager = [(chain, size, f32, False) for size in sizes for chain in CHAINS]
    eager += [
        (chain, size, kind, False)
        for size in sizes if size.all_types for kind in kinds for chain in CHAINS
    ]
    # A compilation takes seconds: the largest size, and one of each other kind.
    few = [sizes[-1]] + [size for size in sizes[:-1] if size.all_types]
    return eager + [(chain, size, f32, True) for size in few for chain in CHAINS]


def measure(item, end):
    """The row of one item; None where no time is left for it."""
    chain, size, (dtype_name, dtype), compiled = item
    if time.monotonic() > end - (COMPILE_SECONDS if compiled else 1):
        return None
    call = torch.compile(chain, dynamic=False, fullgraph=True) if compiled else chain
    with torch.no_grad():
        sets = size.sets(dtype)
        seconds = seconds_per_call(call, sets)
    if compiled:
        torch.compiler.reset()
    return {
        "id": f"{chain.__name__}/cuda/{dtype_name}/{size.name}",
        "how": "compiled" if compiled else "eager",
        "seconds": seconds,
    }


def main():
    """Writes what there is after every figure."""
    sizes, results, seconds = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    sizes = [Size(entry) for entry in json.loads(Path(sizes).read_text(encoding="utf-8"))]
    found = {"torch": torch.__version__, "device": torch.cuda.get_device_name(), "rows": []}
    found["copy_bandwidth"] = copy_bandwidth()
    found["problems"] = problems = []
    left_out = 0
    for item in plan(sizes):
        try:
            row = measure(item, end)
        except Exception as error:  # pylint: disable=broad-except
            # Compilation needs a C compiler and more; the other figures do not.
            what = f"{item[0].__name__} {item[1].name} {'compiled' if item[3] else 'eager'}"
            problems.append(f"{what}: {str(error).strip().splitlines()[0][:200]}")
            continue
        if row:
            found["rows"].append(row)
        else:
            left_out += 1
        Path(results).write_text(json.dumps(found, indent=1), encoding="utf-8")
    if left_out:
        problems.append(f"no time was left for {left_out} figures")
    Path(results).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
