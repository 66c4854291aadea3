"""A run of the program with one case in the pipeline at a time: what each stage costs alone, in a warm process.

The program cannot be asked for this, so it is held up from outside. Between the volumes it gets empty files, each
under a lease (`fcntl(2)`, F_SETLEASE): the system has whoever opens such a file wait until the holder of the lease
gives it back. That is done when the case before has all its files and the process has used no CPU for a while.
Then the empty file is read, fails, and the next volume is read, inferred and written with nothing else at work.
"""

import fcntl
import os
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path

import common

STAGES = ("read", "discovery", "inference", "maps", "write")
# Longer than libtorch's idle threads spin.
QUIET_SECONDS = 0.06


class Gate:
    """An empty file that nobody can open until `open` is called."""

    def __init__(self, path):
        path.touch()
        self.path = path
        self.handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.fcntl(self.handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            sys.exit(f"{path}: no lease ({error}); take a --work folder of your own on a local disk")

    def is_waited_for(self):
        """Whether somebody waits in open()."""
        return fcntl.fcntl(self.handle, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def open(self):
        """Lets them go on."""
        fcntl.fcntl(self.handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(self.handle)


def run(words_of, out, files, threads, environment=None):
    """Seconds of each stage (medians), CPU seconds (mean), and both by case.

    The first three cases, in which libtorch profiles and compiles the model, only warm up; of fewer than six, the
    first.

    `words_of(files)` is the command line for these files, with maps into `out`.
    """
    # What the system says when somebody waits; by default it ends a process.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    folder = out.with_name(f"{out.name}_gates")
    folder.mkdir(parents=True, exist_ok=True)
    gates = [Gate(folder / f"gate{index}.nii.gz") for index in range(len(files))]
    ids = [file.name.removesuffix(".nii.gz") for file in files]
    in_turn = [file for case, gate in zip(files, gates) for file in (case, gate.path)]
    process = common.Run(words_of(in_turn), out, ids, threads, environment)
    cpu = []
    for done, gate in enumerate(gates, 1):
        used, since = -1.0, time.time()
        while True:
            # Not ended: the last gate is still closed.
            now = process.status()
            if now is None:
                process.wait(allowed=())
            if now[2] != used:
                used, since = now[2], time.time()
            finished = sum(map(bool, common.maps_of(out, ids[:done]).values()))
            if gate.is_waited_for() and finished == done and time.time() - since > QUIET_SECONDS:
                break
            time.sleep(0.01)
        cpu.append(used)
        gate.open()
    # 1: the empty files failed.
    process.wait(allowed=(0, 1))
    stages = common.stage_seconds(out)
    by_case = [{stage: stages[id][stage] for stage in STAGES} for id in ids]
    # The first has the start of the process too.
    cpu = [cpu[0], *(after - before for before, after in zip(cpu, cpu[1:]))]
    warm = 3 if len(files) >= 6 else 1
    medians = {stage: statistics.median(case[stage] for case in by_case[warm:]) for stage in STAGES}
    # The clock of CPU time is coarse, so a mean.
    return {**medians, "cpu": statistics.mean(cpu[warm:]), "by_case": by_case, "cpu_by_case": cpu}
