"""One network, bare and with its map: in Python with `medcam_rs` and with plain hooks, and from Rust.
Run by gpu-check; `--help` lists its options.

| door | |
|---|---|
| `bare` | the module alone, under `torch.no_grad` |
| `medcam_rs` | `medcam_rs.inject`, and the map as an array |
| `hooks` | as the libraries do it: activation and gradient by hooks, a backward through the whole network |
| `tape` | what an expert writes: the tape begins at the layer, and the weights are frozen |
| `rust` | the same network as a TorchScript file, by `medcam::inject` |

All end with a map in the host's memory, of class 1. In each round every door runs once. Peaks are of
libtorch's allocator during a call, over what was held before it. Waits and copies are counted in one
more call, under torch's profiler. Every row is written as it is measured.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import models
import torch
from doors import CLASS, DOORS, Subject, bare, ours

WARM_UP = 3
FEWEST_ROUNDS = 5
MOST_ROUNDS = 30
# Name, type, whether convolutions and products may round to TF32, and how far maps may be apart.
PRECISIONS = (
    ("f32", torch.float32, False, 5e-3),
    ("f32 with TF32", torch.float32, True, 5e-2),
    ("bf16", torch.bfloat16, True, 0.5),
)
# What the profiler tells of, by its categories of a trace.
COUNTED = ("cuda_runtime", "cuda_driver", "gpu_memcpy", "gpu_memset", "cuda_sync", "kernel")
FORWARD = "one forward with its map"


def synchronize(options):
    """Waits for the device."""
    if options.device == "cuda":
        torch.cuda.synchronize()


def seconds(call, options):
    """Of one call, from a device that has nothing to do until it has nothing to do."""
    synchronize(options)
    start = time.perf_counter()
    call()
    synchronize(options)
    return time.perf_counter() - start


def peak(call, options):
    """The greatest memory of a call over what was held before, and what libtorch had reserved."""
    if options.device != "cuda":
        return {}
    # What it left behind the last time counts, too.
    getattr(call, "release", lambda: None)()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return {
        "peak_allocated": torch.cuda.max_memory_allocated() - before,
        "held_before": before,
        "peak_reserved": torch.cuda.max_memory_reserved(),
    }


def counts(call, options):
    """Waits, copies and launches of one call, by name."""
    from torch.profiler import ProfilerActivity, profile, record_function

    activities, more = [ProfilerActivity.CPU], {}
    if options.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
        # Waits by the driver's own functions show only so.
        config = torch._C._profiler._ExperimentalConfig
        try:
            more["experimental_config"] = config(enable_cuda_sync_events=True)
        except TypeError:
            pass
    synchronize(options)
    with profile(activities=activities, **more) as profiler:
        with record_function(FORWARD):
            call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    # The host's range: the device's has the same name.
    whole = next(
        event for event in events
        if event.get("name") == FORWARD and event.get("cat") == "user_annotation"
    )
    found = {}
    for event in events:
        category = event.get("cat")
        if category not in COUNTED or not 0 <= event["ts"] - whole["ts"] <= whole["dur"]:
            continue
        name = "kernels" if category == "kernel" else event["name"]
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def memory_by_process():
    """Bytes of each process, as nvidia-smi tells them."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, stdout=subprocess.PIPE, text=True, timeout=20, check=True).stdout
        rows = [line.split(",") for line in told.splitlines() if "," in line]
        return {int(pid): int(used) << 20 for pid, used in rows}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def python_calls(network, options, precision):
    """A warm call for each door in Python and each way, and the layer of each way."""
    _, dtype, tf32, _ = precision
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    subject = Subject(network, options, dtype)
    calls = {("bare", "bare"): bare(subject, None), ("medcam_rs", "auto"): ours(subject, "auto")}
    calls["medcam_rs", "auto"]()
    layers = {"auto": calls["medcam_rs", "auto"].layer, "late": network.late}
    for way, layer in layers.items():
        for door, build in DOORS.items():
            calls.setdefault((door, way), build(subject, layer))
    return calls, layers


def python_rows(network, options, precision):
    """The doors in Python."""
    calls, layers = python_calls(network, options, precision)
    maps = {}
    for key, call in calls.items():
        for _ in range(1 if options.trial else WARM_UP):
            maps[key] = call()
    measured = {key: [] for key in calls}
    start, rounds = time.monotonic(), 1 if options.trial else MOST_ROUNDS
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and time.monotonic() - start > options.each:
            break
        # Neither is always the first.
        for key in list(calls)[:: -1 if number % 2 else 1]:
            measured[key].append(seconds(calls[key], options))
    rows = []
    for (door, way), times in measured.items():
        row = {
            "network": options.network,
            "precision": precision[0],
            "door": door,
            "way": way,
            "layer": layers.get(way),
            "seconds": statistics.median(times),
            "least": min(times),
            "greatest": max(times),
            "rounds": len(times),
            **peak(calls[door, way], options),
        }
        if way != "bare":
            row["apart"] = float(abs(maps[door, way] - maps["tape", way]).max())
        rows.append(row)
    return rows


def count(network, options, precision, rows):
    """Adds to the rows of a precision what its calls wait for, copy and launch."""
    calls, _ = python_calls(network, options, precision)
    for row in rows:
        key = row["door"], row["way"]
        if row["precision"] == precision[0] and key in calls:
            calls[key]()
            row["counts"] = counts(calls[key], options)


def rust_rows(network, options, precision, file):
    """The door in Rust, in a process of its own."""
    name, _, tf32, _ = precision
    shape = network.small if options.trial else network.shape
    arguments = {
        "--network": file,
        "--input": "x".join(map(str, shape)),
        "--precision": name.split()[0],
        "--device": options.device,
        "--class": CLASS,
        "--late": network.late,
        "--seconds": options.each / 2,
        "--rounds": 1 if options.trial else MOST_ROUNDS,
    }
    command = [str(part) for pair in arguments.items() for part in pair]
    environment = dict(os.environ)
    if not tf32:
        environment["NVIDIA_TF32_OVERRIDE"] = "0"
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
    rows = []
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
        [options.ops, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
    ) as process:
        for line in process.stdout:
            if line.startswith("{"):
                # It waits meanwhile, since nvidia-smi disturbs what is timed.
                smi = memory_by_process().get(process.pid)
                rows.append({**json.loads(line), "smi": smi})
                process.stdin.write("\n")
                process.stdin.flush()
        process.wait()
        if process.returncode != 0:
            errors.seek(0)
            lines = [line for line in errors.read().splitlines() if line.strip()]
            raise RuntimeError(f"{' / '.join(lines[-3:])[:300]} (exit {process.returncode})")
    known = {"network": options.network, "precision": name, "door": "rust"}
    return [{**known, **row} for row in rows]


def main():
    """Writes what there is after every precision and door."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--network", choices=models.NETWORKS, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--ops", help="our program for networks from Rust", required=True)
    parser.add_argument("--seconds", type=float, default=120, help="no precision is begun after that")
    parser.add_argument("--each", type=float, default=4, help="seconds of rounds (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--trial", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    network = models.NETWORKS[options.network]
    found = {"rows": [], "smi": {}, "problems": []}
    found["shape"] = network.small if options.trial else network.shape

    def write():
        text = json.dumps(found, indent=1)
        options.results.write_text(text, encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.pt"
        with torch.no_grad():
            small = torch.randn(network.small)
            torch.jit.trace(network.made(), small, check_trace=False).save(str(file))
        for precision in PRECISIONS[:1] if options.trial else PRECISIONS:
            if time.monotonic() > end:
                found["problems"].append(f"no time was left for {precision[0]}")
                continue
            for door, rows_of in (("python", python_rows), ("rust", rust_rows)):
                arguments = (file,) if door == "rust" else ()
                try:
                    rows = rows_of(network, options, precision, *arguments)
                except Exception as error:  # pylint: disable=broad-except
                    said = f"{type(error).__name__}: {str(error).strip()[:300]}"
                    found["problems"].append(f"{precision[0]}, {door}: {said}")
                    write()
                    continue
                found["rows"] += rows
                if door == "python":
                    # Of the greatest of all peaks, with CUDA's context and libtorch's cache.
                    smi = memory_by_process().get(os.getpid())
                    found["smi"][precision[0]] = smi
                for row in rows:
                    # NaN is no distance, either.
                    if not row.get("apart", 0) <= precision[3]:
                        what = f"{precision[0]}, {row['door']}, {row['way']}"
                        found["problems"].append(f"{what}: {row['apart']:.1e} from the tape's map")
                write()
                gc.collect()
    # Last of all: what the profiler attaches to the process may slow it from then on.
    for precision in PRECISIONS:
        if any(row["precision"] == precision[0] for row in found["rows"]):
            try:
                count(network, options, precision, found["rows"])
            except Exception as error:  # pylint: disable=broad-except
                said = f"{type(error).__name__}: {str(error).strip()[:300]}"
                found["problems"].append(f"{precision[0]}, counts: {said}")
            write()
            gc.collect()
    write()


if __name__ == "__main__":
    main()
