"""The chains composed of torch's own calls: eager, captured in a CUDA graph, and through torch.compile.
Run by gpu-check; `--help` lists its options.

Each figure is the median over bursts of the time per call, by CUDA events: `cold` with inputs in turn
that are together too much for the second-level cache, `warm` with the same inputs each time. Eager
calls on small layers take as long as it takes to launch them; captured, as long as their kernels take.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F

# Sets of inputs together have at least so many bytes, several times the second-level cache.
COLD_BYTES = 256 << 20
MOST_SETS = 1 << 11
# As many where even the greatest number would fit in the cache.
WARM_SETS = 64
# Inputs begin at multiples of this.
ALIGNMENT = 256
# Seconds of a burst, calls in it, and bursts after one that warms up.
BURST_SECONDS = 4e-3
FEWEST_CALLS, MOST_CALLS = 4, 512
BURSTS = 9
# A compilation that may not be done in the time that is left is not begun.
COMPILE_SECONDS = 25
TRIAL_BYTES = 4 << 20


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

    def bytes(self, dtype):
        """Of an activation and its gradient."""
        return 2 * math.prod(self.shape) * dtype.itemsize


class Pool:
    """Random values on the device. Inputs are pieces of them, which takes no kernel for each."""

    def __init__(self, device):
        self.device = device
        self.values = {}

    def sets(self, size, dtype, trial):
        """Activations, gradients and guided maps."""
        wanted = -(-COLD_BYTES // size.bytes(dtype))
        count = wanted if wanted <= MOST_SETS else WARM_SETS
        count = 1 if trial else count
        guided = (1, 1, *size.grid)
        return list(
            zip(
                self._pieces("rectified", dtype, size.shape, count),
                self._pieces("signed", dtype, size.shape, count),
                self._pieces("guided", torch.float32, guided, count),
            )
        )

    def _pieces(self, name, dtype, shape, count):
        elements = math.prod(shape)
        step = -(-elements * dtype.itemsize // ALIGNMENT) * ALIGNMENT // dtype.itemsize
        values = self.values.get((name, dtype))
        if values is None or values.numel() < count * step:
            self.values.pop((name, dtype), None)
            values = torch.rand(count * step, device=self.device).mul_(2).sub_(1)
            values = (values.relu_() if name == "rectified" else values).to(dtype)
            self.values[name, dtype] = values
        starts = range(0, count * step, step)
        return [values[start : start + elements].view(shape) for start in starts]


class Clock:
    """Seconds of work on the device, or on the CPU in a trial."""

    def __init__(self, device):
        self.events = None
        if device == "cuda":
            self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def seconds(self, work):
        """From the beginning to the end of what `work` enqueues."""
        if not self.events:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        start, end = self.events
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def in_turn(call, sets, calls):
    """Calls on one set after the other."""
    for number in range(calls):
        call(*sets[number % len(sets)])


def fitting(call, sets, clock):
    """How many calls a burst takes."""
    in_turn(call, sets, FEWEST_CALLS)
    each = clock.seconds(lambda: in_turn(call, sets, FEWEST_CALLS)) / FEWEST_CALLS
    return min(MOST_CALLS, max(FEWEST_CALLS, int(BURST_SECONDS / each)))


def median(work, calls, clock, bursts):
    """Seconds per call, over the bursts."""
    times = [clock.seconds(work) / calls for _ in range(bursts + 1)]
    return sorted(times[1:])[bursts // 2]


def figures(call, sets, clock, trial):
    """Cold and warm, launched call by call."""
    calls, bursts = (1, 1) if trial else (fitting(call, sets, clock), BURSTS)
    # All sets, so that none is left in the cache from the burst before.
    cold = -(-calls // len(sets)) * len(sets)
    return {
        "cold": median(lambda: in_turn(call, sets, cold), cold, clock, bursts),
        "warm": median(lambda: in_turn(call, sets[:1], calls), calls, clock, bursts),
    }


def captured(call, sets, clock):
    """The same in CUDA graphs."""
    calls = fitting(call, sets, clock)
    found = {}
    for name, of, count in (
        ("cold", sets, -(-calls // len(sets)) * len(sets)),
        ("warm", sets[:1], calls),
    ):
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            in_turn(call, of, count)
        found[name] = median(graph.replay, count, clock, BURSTS)
        del graph
    return found


def plan(sizes, options):
    """Chain, size, type and how: what matters most comes first."""
    kinds = (("f16", torch.float16), ("bf16", torch.bfloat16))
    f32 = ("f32", torch.float32)
    if options.trial:
        sizes = [size for size in sizes if size.bytes(torch.float32) <= TRIAL_BYTES]
        return [(chain, size, f32, "eager") for size in sizes[:2] for chain in CHAINS]
    hows = ("eager", "graph") if options.device == "cuda" else ("eager",)
    items = [(chain, size, f32, how) for how in hows for size in sizes for chain in CHAINS]
    # A compilation takes seconds: the largest size, and one of each other kind.
    few = [sizes[-1]] + [size for size in sizes[:-1] if size.all_types]
    items += [(chain, size, f32, "compiled") for size in few for chain in CHAINS]
    return items + [
        (chain, size, kind, how)
        for how in hows for size in sizes if size.all_types for kind in kinds for chain in CHAINS
    ]


def measure(item, pool, clock, options):
    """The row of one item."""
    chain, size, (dtype_name, dtype), how = item
    with torch.no_grad():
        sets = pool.sets(size, dtype, options.trial)
        if how == "graph":
            found = captured(chain, sets, clock)
        elif how == "compiled":
            # Nothing of another size is left.
            torch.compiler.reset()
            call = torch.compile(chain, dynamic=False, fullgraph=True)
            found = figures(call, sets, clock, options.trial)
        else:
            found = figures(chain, sets, clock, options.trial)
    name = f"{chain.__name__}/cuda/{dtype_name}/{size.name}"
    return {"id": name, "how": how, "sets": len(sets), **found}


def main():
    """Writes what there is after every figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--sizes", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--trial", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    sizes = [Size(entry) for entry in json.loads(options.sizes.read_text(encoding="utf-8"))]
    found = {"torch": torch.__version__, "rows": [], "problems": []}
    if options.device == "cuda":
        found["device"] = torch.cuda.get_device_name()
    pool, clock = Pool(options.device), Clock(options.device)
    left_out = 0
    for item in plan(sizes, options):
        needed = COMPILE_SECONDS if item[3] == "compiled" else 1
        if time.monotonic() > end - needed:
            left_out += 1
            continue
        try:
            row = measure(item, pool, clock, options)
        except Exception as error:  # pylint: disable=broad-except
            # Compilation needs a C compiler and more; the other figures do not.
            what = f"{item[0].__name__} {item[1].name} {item[3]}"
            said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            found["problems"].append(f"{what}: {said}")
        else:
            found["rows"].append(row)
            figures_of = f"cold {row['cold'] * 1e6:.1f}, warm {row['warm'] * 1e6:.1f} us"
            print(f"{row['id']} {row['how']}: {figures_of}", flush=True)
        options.results.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if left_out:
        found["problems"].append(f"no time was left for {left_out} figures")
    options.results.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
