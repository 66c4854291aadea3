"""The journal of a cohort: the driver writes it as `medcam cohort` does, so that `medcam merge` reads it."""

import fcntl
import json
import os
from pathlib import Path

JOURNAL = "journal.jsonl"

# How often a worker may die while it explains a case before that case is set aside.
DEATHS = 2


class JournalError(Exception):
    """The journal belongs to another run, or cannot be read."""


class Journal:
    """`journal.jsonl` in the folder of the maps. While it is open, no other run can open it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder / JOURNAL
        self.plan = None
        # How each case ended the last time, and how often a worker died during it since.
        self.ended = {}
        self.deaths = {}
        self._in_flight = set()
        # Whether the next case is the first of a run that goes on.
        self._resumes = False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _lock(self):
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"{self.path}: another run writes into this folder; wait for it, or take another folder"
            ) from None
        except OSError:
            # A file system without locks.
            pass

    def _read(self):
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            # A death cut this line off.
            self._file.truncate(whole)
        for number, line in enumerate(text[:whole].splitlines(), start=1):
            try:
                self._take(number, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise JournalError(f"{self.path}: damaged: line {number}: {error!r}") from error

    def _take(self, number, line):
        kind = line["line"]
        if (kind == "run") != (number == 1):
            raise ValueError(f"{kind!r} does not belong there")
        if kind == "run":
            self.plan = line
        elif kind == "begun":
            self._in_flight.add(line["id"])
            self.deaths[line["id"]] = self.deaths.get(line["id"], 0) + 1
        elif kind == "stopped":
            # That what was in flight did not end is no case's fault.
            for case_id in self._in_flight:
                self.deaths[case_id] -= 1
            self._in_flight.clear()
        elif kind == "resumed":
            self._in_flight.clear()
        elif kind == "ended":
            self._in_flight.discard(line["id"])
            self.deaths.pop(line["id"], None)
            self.ended[line["id"]] = line

    def begin_run(self, plan):
        """Write the first line, or compare it with that of the earlier run."""
        if self.plan is None:
            self._append(json.dumps(plan, ensure_ascii=False), sync=True)
            sync_folder(self.folder)
            self.plan = plan
            return
        found = differences(self.plan, plan)
        if found:
            raise JournalError(
                f"{self.path}: an earlier run into this folder was another: {'; '.join(found)}. "
                "Give the same again, or take another folder"
            )
        self._resumes = True

    def begin(self, case_id):
        """Note that a worker got a case."""
        if self._resumes:
            self._append(json.dumps({"line": "resumed"}), sync=True)
            self._resumes = False
        self._append(json.dumps({"line": "begun", "id": case_id}, ensure_ascii=False), sync=True)

    def stop(self, reason):
        """Note that the run stops, and that what is in flight is not to blame."""
        self._append(json.dumps({"line": "stopped", "reason": reason}), sync=True)

    def end(self, text):
        """Note how a case ended; the text is a line of the journal. It stays as it is, since a number would not
        keep its digits if it were read and written again."""
        self._append(text, sync=True)
        line = json.loads(text)
        self.deaths.pop(line["id"], None)
        self.ended[line["id"]] = line

    def set_aside(self, case, why):
        """Note that a case is suspect."""
        line = {"line": "ended", "id": case.id, "image": case.image, "status": "suspect"}
        self.end(json.dumps({**line, "reason": why, "outputs": []}, ensure_ascii=False))

    def is_over(self, case_id, retry_failed):
        """Whether nothing is left to do for a case: it ended, and its files have the length that was noted."""
        line = self.ended.get(case_id)
        if line is None or self.deaths.get(case_id):
            return False
        if line["status"] != "done":
            return not retry_failed
        return all(self._has(output) for output in line["outputs"])

    def _has(self, output):
        try:
            return (self.folder / output["file"]).stat().st_size == output["bytes"]
        except OSError:
            return False

    def _append(self, text, sync):
        self._file.write(text.encode() + b"\n")
        self._file.flush()
        if sync:
            os.fdatasync(self._file.fileno())

    def close(self):
        """Let other runs open it."""
        self._file.close()


def sync_folder(folder):
    """The name of a new file survives a crash only once its folder is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def differences(earlier, now):
    """The names of what differs between two plans, with both values."""
    found = []

    def compare(one, other):
        for name in {**one, **other}:
            if name not in ("line", "settings") and one.get(name) != other.get(name):
                found.append(f"{name}: {json.dumps(one.get(name))}, now {json.dumps(other.get(name))}")

    compare(earlier, now)
    compare(earlier.get("settings", {}), now.get("settings", {}))
    return found
