"""What the scripts of this folder share: a program that is run and watched, tables, and where things are."""

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "scripts"), str(CHECKOUT / "tests" / "networks")]

from setup_parts.common import cache_root, digest_of  # noqa: E402  pylint: disable=wrong-import-position
from setup_parts.environment import requirements  # noqa: E402  pylint: disable=wrong-import-position

MIB = 2**20
# Clock ticks of a process' CPU time.
TICK = 1 / os.sysconf("SC_CLK_TCK")


def use_packages(group):
    """Makes importable what set-up installed into a folder of its own."""
    folder = cache_root() / f"{group}-packages-{digest_of([requirements(group)])}"
    if not folder.exists():
        sys.exit(f"{group}: not installed; run `python3 scripts/setup.py test` first")
    sys.path.append(str(folder))


def data(name):
    """A file that set-up has fetched."""
    path = cache_root() / "data" / name
    if not path.exists():
        sys.exit(f"{name}: not fetched; run `python3 scripts/setup.py gallery` first")
    return path


def size(text):
    """`X,Y,Z`, or one extent for all three."""
    extents = [int(part) for part in text.split(",")]
    extents = extents * 3 if len(extents) == 1 else extents
    if len(extents) != 3 or min(extents) < 1:
        raise ValueError(text)
    return extents


def usable_cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def machine():
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    processor = model or platform.machine()
    return {"processor": processor, "cores": usable_cores(), "date": time.strftime("%Y-%m-%d %H:%M")}


class Run:
    """A process that makes maps, and what was seen of it.

    `ids` are the cases, which begin the names of their files. A case is finished when the last of its files was
    written, by the file's time stamp; so the same clock serves all programs, and watching costs them nothing.

    Attributes after `wait`: `seconds` (start of the process to its end), `cpu_seconds`, `peak_mib` (VmHWM),
    `samples` (seconds, RSS in MiB, CPU seconds), `finished` (seconds at which each case was, sorted), `files` and
    `bytes` that were written.
    """

    def __init__(self, words, out, ids, threads, environment=None, hertz=10):
        self.out, self.ids = Path(out), list(ids)
        cores = sorted(os.sched_getaffinity(0))[:threads]
        self.samples, self.peak_mib = [], 0.0
        self.begun = time.time()
        with open(f"{out}.log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                [str(word) for word in words],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                # All programs get the same cores, whatever threads they start.
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        self.watcher = threading.Thread(target=self._watch, args=(1 / hertz,), daemon=True)
        self.watcher.start()

    def _watch(self, pause):
        while self.process.returncode is None:
            seen = self.status()
            if seen:
                self.samples.append(seen)
            time.sleep(pause)

    def status(self):
        """Seconds since the start, RSS in MiB and CPU seconds; None when the process has ended."""
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
            stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return None
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "VmRSS" not in fields:
            return None
        self.peak_mib = max(self.peak_mib, int(fields["VmHWM"].split()[0]) / 1024)
        # The name, in parentheses, may have spaces.
        user, system = stat.rsplit(")", 1)[1].split()[11:13]
        cpu = (int(user) + int(system)) * TICK
        return time.time() - self.begun, int(fields["VmRSS"].split()[0]) / 1024, cpu

    def wait(self, allowed=(0,)):
        """Waits for the end; fails with the program's own words if its exit code is not `allowed`."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.seconds = time.time() - self.begun
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.watcher.join()
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        if self.process.returncode not in allowed:
            words = Path(f"{self.out}.log").read_text(encoding="utf-8")[-2000:]
            sys.exit(f"{self.process.args[0]} ended with {self.process.returncode}:\n{words}")
        written = maps_of(self.out, self.ids)
        lacking = [id for id in self.ids if not written[id]]
        if lacking:
            sys.exit(f"{self.out}: no map of {', '.join(lacking[:3])}")
        stats = {id: [file.stat() for file in files] for id, files in written.items()}
        self.finished = sorted(max(s.st_mtime_ns for s in of_case) / 1e9 - self.begun for of_case in stats.values())
        self.files = sum(map(len, stats.values()))
        self.bytes = sum(s.st_size for of_case in stats.values() for s in of_case)
        return self

    @property
    def first(self):
        """Seconds from the start of the process to the first finished case."""
        return self.finished[0]

    @property
    def steady(self):
        """Seconds per case from the third finished case to the last (of few cases, from the first): without the
        start of the process, and without the runs in which libtorch profiles and compiles a TorchScript model."""
        begin = 2 if len(self.finished) >= 6 else 0
        return (self.finished[-1] - self.finished[begin]) / (len(self.finished) - 1 - begin)

    def finished_at(self, seconds):
        """How many cases were finished at a time."""
        return sum(at <= seconds for at in self.finished)

    def record(self):
        """For a JSON file."""
        keys = ("seconds", "cpu_seconds", "peak_mib", "first", "steady", "files", "bytes")
        return {key: getattr(self, key) for key in keys}


def maps_of(out, ids):
    """By case the maps under a folder."""
    found = {id: [] for id in ids}
    for file in Path(out).rglob("*.nii.gz"):
        stem = file.name.removesuffix(".nii.gz")
        id = next((id for id in (stem, stem.rsplit("_", 1)[0]) if id in found), None)
        if id and not file.name.startswith("."):
            found[id].append(file)
    return found


def stage_seconds(out):
    """By case the seconds of its stages, from journal.jsonl (`cohort`) or run.json (`map`)."""
    journal, found = Path(out) / "journal.jsonl", {}
    if journal.exists():
        lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            if line.get("line") == "ended" and line.get("done"):
                found[line["id"]] = line["done"]["seconds"]
        return found
    for entry in json.loads((Path(out) / "run.json").read_text(encoding="utf-8"))["inputs"]:
        if "seconds" in entry:
            found[Path(entry["input"]).name.removesuffix(".nii.gz")] = entry["seconds"]
    return found


def middle(values):
    """Median and range, as text."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(head, rows):
    """Prints a Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def pyplot():
    """matplotlib, drawing into files."""
    use_packages("m3dcam")
    os.environ["MPLBACKEND"] = "Agg"
    from matplotlib import pyplot as plots  # pylint: disable=import-outside-toplevel

    plots.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "axes.grid": True})
    plots.rcParams.update({"grid.alpha": 0.3, "figure.dpi": 120, "savefig.bbox": "tight"})
    return plots


def save_plot(figure, path):
    """Writes a figure."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"figure: {path}")


def program_arguments(parser):
    """The options of every script that runs the program."""
    default = CHECKOUT / "target" / "release" / "medcam"
    parser.add_argument("--program", type=Path, default=default, help="the medcam program")
    parser.add_argument("--command", default="cohort", help="its command: cohort, or map [default: cohort]")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads, and cores, of each process")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and maps; emptied by each run")
    parser.add_argument("--json", type=Path, help="where all figures go")
