"""results.json with everything, table.md for people, and the archive of all that came out."""

import datetime
import io
import json
import tarfile

# Of the archive; so much comes back from most machines that are lent.
MOST_BYTES = 16 << 20
# A log that is longer is cut in the middle.
LOG_BYTES = 1 << 20

KERNELS = (
    "| op | layer | medcam | warm | launched | libtorch | warm | torch eager | warm | graph | "
    "compiled | floor | floor / medcam |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)
DOORS = ("bare", "medcam_rs", "rust", "tape", "hooks")
NETWORKS = (
    "| network | precision | door | bare | auto | late | auto / bare | late / bare | "
    "peak MiB: bare | auto | late | waits | copies to host | to device | kernels |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)
WAITS = (
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize",
    "cuCtxSynchronize", "cuEventSynchronize",
)


class Report:
    """What is written after each step, so that nothing is lost where a run is stopped."""

    def __init__(self, run, machine, described, measured, start):
        self.run, self.machine, self.described = run, machine, described
        self.measured, self.start = measured, start

    def write(self):
        """Writes both files; returns the text of the table."""
        took = datetime.datetime.now() - self.start
        results = {
            "started": self.start.isoformat(timespec="seconds"),
            "seconds": round(took.total_seconds(), 1),
            "good": self.run.good(),
            "trial": self.run.trial,
            "bundle": self.described,
            "machine": self.machine.facts,
            "steps": [vars(step) for step in self.run.steps],
            "rows": joined(self.measured),
            "measured": self.measured,
        }
        text = json.dumps(results, indent=1) + "\n"
        (self.run.folder / "results.json").write_text(text, encoding="utf-8")
        text = table(results)
        (self.run.folder / "table.md").write_text(text, encoding="utf-8")
        return text

    def pack(self):
        """Puts everything into results.tar.gz; table.md stays beside it, too."""
        folder = self.run.folder
        path = folder / "results.tar.gz"
        logs = sorted((folder / "logs").glob("*.txt"))
        with tarfile.open(path, "w:gz") as archive:
            for file in [folder / "table.md", folder / "results.json", *logs]:
                text = file.read_bytes()
                if file in logs and len(text) > LOG_BYTES:
                    half = LOG_BYTES // 2
                    text = text[:half] + b"\n... cut ...\n" + text[-half:]
                entry = tarfile.TarInfo(f"results/{file.relative_to(folder)}")
                entry.size, entry.mtime = len(text), int(file.stat().st_mtime)
                archive.addfile(entry, io.BytesIO(text))
        size = path.stat().st_size
        if size > MOST_BYTES:
            return f"{path}: {size} bytes are more than {MOST_BYTES}; the logs are beside it"
        for file in [*logs, folder / "results.json"]:
            file.unlink()
        if logs:
            logs[0].parent.rmdir()
        return f"{path}, {size / 1024:.0f} KiB; table.md is beside it"


def joined(measured):
    """One row for each op and layer, of what was measured of it, in seconds."""
    rows = {}
    for row in measured.get("ops", {}).get("rows", []):
        rows[row["id"]] = {
            "bytes": row["bytes_read"] + row["bytes_written"],
            "floor": row["floor"],
            "is_cold": row["is_cold"],
            "medcam": row["cold"]["median"],
            "medcam_warm": row["warm"]["median"],
            "launched": row["launched"]["median"],
            "libtorch": row["libtorch"]["median"],
            "libtorch_warm": row["libtorch_warm"]["median"],
        }
    for row in measured.get("torch", {}).get("rows", []):
        found = rows.setdefault(row["id"], {})
        found[row["how"]], found[f"{row['how']}_warm"] = row["cold"], row["warm"]
    return [{"id": name, **row} for name, row in rows.items()]


def table(results):
    """The steps, and the figures if there are any."""
    measured = results["measured"]
    lines = [f"# gpu-check, {results['started']}", "", device(results), ""]
    lines += ["| step | | | s |", "|---|---|---|---|"]
    for step in results["steps"]:
        reason = step["reason"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {step['name']} | {step['status']} | {reason} | {step['seconds']:.0f} |")
    good = "All that was asked for was run and is good."
    lines += ["", good if results["good"] else "**Not everything is good.**"]
    ceilings = [measured[name] for name in ("ceilings", "ops") if measured.get(name)]
    for ceiling in ceilings:
        if "read_bandwidth" in ceiling:
            read, own, added, copy = (
                ceiling[name] / 1e9
                for name in (
                    "read_bandwidth", "read_by_our_kernel", "read_by_libtorch_sum", "copy_bandwidth",
                )
            )
            lines += ["", f"Device memory: read at {read:.0f} GB/s (by our kernel {own:.0f}, by "
                      f"libtorch's sum {added:.0f}), copied at {copy:.0f} GB/s, read and written."]
    if results["rows"]:
        lines += ["", "## Kernels and chains, microseconds per call", "", KERNELS]
        lines += [kernel_line(row) for row in results["rows"]]
    clocks = results["machine"]["clocks"]
    if clocks:
        names = list(clocks[0])
        lines += ["", "Right behind each step:", "", "| " + " | ".join(names) + " |"]
        lines += ["|---" * len(names) + "|"]
        lines += ["| " + " | ".join(row.get(name, "") for name in names) + " |" for row in clocks]
    networks = [row for found in measured.values() if isinstance(found, dict)
                for row in found.get("rows", []) if "door" in row]
    if networks:
        lines += ["", "## Whole networks, milliseconds per forward", "", NETWORKS]
        lines += network_lines(networks)
    if measured.get("profile"):
        lines += ["", "## Kernels under ncu", ""]
        names = list(measured["profile"][0])
        lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
        lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |"
                  for row in measured["profile"]]
    return "\n".join(lines) + "\n"


def kernel_line(row):
    """One row of the table of kernels."""
    op, _, layer = row["id"].split("/", 2)
    keys = ("medcam", "medcam_warm", "launched", "libtorch", "libtorch_warm")
    keys += ("eager", "eager_warm", "graph", "compiled", "floor")
    cells = [digits(row.get(key), 1e6) for key in keys]
    share = f"{row['floor'] / row['medcam']:.2f}" if row.get("medcam") and row["is_cold"] else ""
    return f"| {op} | {layer} | " + " | ".join(cells) + f" | {share} |"


def network_lines(rows):
    """One line for each network, precision and door."""
    kinds = dict.fromkeys((row["network"], row["precision"]) for row in rows)
    for network, precision in kinds:
        of_kind = [row for row in rows if (row["network"], row["precision"]) == (network, precision)]
        in_python = next((row for row in of_kind if row["door"] == "bare"), {})
        for door in DOORS[1:]:
            ways = {row["way"]: row for row in of_kind if row["door"] == door}
            if not ways:
                continue
            # From Rust, a file of its own; in Python, the module alone.
            ways.setdefault("bare", in_python)
            found = [ways.get(way, {}) for way in ("bare", "auto", "late")]
            seconds = [row.get("seconds") for row in found]
            ratios = [f"{one / seconds[0]:.2f}" if one and seconds[0] else "" for one in seconds[1:]]
            peaks = [row.get("peak_allocated", row.get("used")) for row in found]
            cells = [network, precision, door, *(digits(one, 1e3) for one in seconds), *ratios]
            cells += ["" if one is None else f"{one / 2**20:.0f}" for one in peaks]
            yield "| " + " | ".join(cells + counted(found[1])) + " |"


def counted(row):
    """Waits, copies to the host and to the device, kernels, of one forward with the map of `auto`."""
    counts = row.get("counts")
    if not counts:
        return [""] * 4
    # Calls of libtorch's runtime, or waits by whoever's calls where the profiler tells of these.
    synchronised = [name for name in counts if name.endswith(" Sync")]
    parts = (
        synchronised or [name for name in counts if name in WAITS],
        [name for name in counts if name.startswith("Memcpy DtoH")],
        [name for name in counts if name.startswith("Memcpy HtoD")],
        ["kernels"],
    )
    return [str(sum(counts.get(name, 0) for name in names)) for names in parts]


def digits(seconds, scale):
    """Three digits that count; nothing where nothing was measured."""
    if not seconds:
        return ""
    value = seconds * scale
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def device(results):
    """The GPU in a line."""
    facts = results["machine"]
    words = "A trial, in which no figure means anything. " if results["trial"] else ""
    smi = facts["nvidia_smi"]
    if isinstance(smi, list) and smi:
        told = ", ".join(f"{key} {value}" for key, value in smi[0].items())
        return words + told
    names = facts["driver"].get("devices")
    return words + (f"{', '.join(names)} (no nvidia-smi)" if names else "No CUDA device.")
