"""Runs commands, each with a time limit and a log, and remembers how each step went."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

PASSED, FAILED, TIMED_OUT, NOT_RUN = "passed", "failed", "timed out", "not run"

# What is run apart, each within a command of some minutes, and its groups of steps.
PARTS = {
    "checks": ("tests", "sanitizer", "ceilings"),
    "bench": ("bench",),
    "networks": ("networks", "profile"),
}

# A step that cannot have this long is not begun.
LEAST_SECONDS = 5


@dataclass
class Step:
    """How one step went. Only `passed` is good."""

    name: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    details: dict = field(default_factory=dict)


@dataclass
class Ended:
    """How a command ended."""

    status: int
    output: str
    seconds: float
    timed_out: bool


class Run:
    """The steps of one run, which together may take so many seconds.

    `only` are those that were asked for; in a trial all is small, and what is not there is left out.
    `after_each` is called when a step has ended.
    """

    def __init__(self, folder, budget_seconds, only, trial=False):
        self.folder = Path(folder)
        # For caches and the like, which are no results.
        self.scratch = self.folder / "scratch"
        self.steps = []
        self.trial = trial
        self.after_each = lambda: None
        self._only = only
        self._end = time.monotonic() + budget_seconds

    def wanted(self, name):
        """Whether a step, the group before its colon, or the part that it is in was asked for."""
        group = name.split(":")[0]
        part = next(part for part, groups in PARTS.items() if group in groups)
        return not self._only or bool({name, group, part} & set(self._only))

    def left(self):
        """Seconds that are left."""
        return max(0.0, self._end - time.monotonic())

    def add(self, name, status, reason="", seconds=0.0, **details):
        """Remember how a step went, and say so."""
        self.steps.append(Step(name, status, reason, round(seconds, 1), details))
        after = f": {reason}" if reason else ""
        print(f"  {status:9}  {name} ({seconds:.0f} s){after}", flush=True)
        self.after_each()

    def command(self, name, command, environment, most_seconds):
        """Run a command, its output in `logs/NAME.txt`. Returns how it ended; None where it was not
        begun or did not end in time, which is remembered here."""
        limit = min(most_seconds, self.left())
        if limit < LEAST_SECONDS:
            self.add(name, NOT_RUN, "no time was left (--budget)")
            return None
        print(f"  running    {name}", flush=True)
        log = self.folder / "logs" / (name.replace(": ", "-") + ".txt")
        log.parent.mkdir(exist_ok=True)
        self.scratch.mkdir(exist_ok=True)
        try:
            ended = run(command, environment, limit, log)
        except OSError as error:
            self.add(name, NOT_RUN, f"{command[0]} does not start: {error}")
            return None
        if ended.timed_out:
            self.add(name, TIMED_OUT, f"stopped after {limit:.0f} s; {log}", ended.seconds)
            return None
        return ended

    def good(self):
        """Whether there were steps, and all passed. In a trial some may lack what they need."""
        good = (PASSED, NOT_RUN) if self.trial else (PASSED,)
        return bool(self.steps) and all(step.status in good for step in self.steps)


def run(command, environment, limit, log):
    """Run a command with all it starts; after `limit` seconds all of that is killed."""
    start = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            # A group of its own, so that what it started goes with it.
            start_new_session=True,
        )
        timed_out = False
        try:
            process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = Path(log).read_text(encoding="utf-8", errors="replace")
    return Ended(process.returncode, text, time.monotonic() - start, timed_out)


def last_line(text):
    """The last line that says something, shortened: most errors end with it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def ending(status):
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
