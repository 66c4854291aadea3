"""Hands cases to workers and writes down how they end."""

import collections
import json
import time

import ray
from ray.exceptions import RayActorError, RayTaskError

from journal import DEATHS, differences

# Seconds between two messages of progress.
PROGRESS = 30


class RunError(Exception):
    """The run cannot go on."""


class Worker:
    """An actor, as the driver sees it."""

    def __init__(self, number, handle):
        self.number = number
        self.handle = handle
        # Whether it has said hello since it started.
        self.is_ready = False
        self.in_flight = 0


class Dispatcher:
    """Gives each worker a few cases at a time. A case during which a worker died is tried again alone, after the
    others, so that a second death tells that this case was the reason."""

    # One case that the worker's model runs on, and four that its pipeline reads ahead.
    IN_FLIGHT = 5

    def __init__(self, journal, stopping, say):
        self._journal = journal
        self._stopping = stopping
        self._say = say
        self._queue = collections.deque()
        self._alone = collections.deque()
        self._workers = []
        # What each call that has not returned is about: its worker, and its case or None for hello.
        self._calls = {}
        self._finished = 0
        self._has_stopped = False
        self._told = time.monotonic()

    def run(self, cases, handles, plan, retry_failed):
        """Explain all cases. `plan` completes the first line of the journal."""
        self._plan = plan
        self._confirmed = False
        self._sort(cases, retry_failed)
        self._total = len(self._queue) + len(self._alone)
        for number, handle in enumerate(handles):
            worker = Worker(number, handle)
            self._workers.append(worker)
            self._await(worker)
        while not self._is_over():
            ready, _ = ray.wait(list(self._calls), timeout=1.0)
            self._stopping.check()
            if self._stopping.signal and not self._has_stopped:
                self._has_stopped = True
                self._journal.stop(self._stopping.signal)
            for call in ready:
                worker, case = self._calls.pop(call)
                if case is None:
                    self._take_hello(worker, call)
                else:
                    self._take_answer(worker, case, call)
            self._hand_out()
            self._tell()

    def _sort(self, cases, retry_failed):
        for case in cases:
            ended = self._journal.ended.get(case.id, {})
            is_doubtful = self._journal.deaths.get(case.id, 0) > 0 or ended.get("status") == "suspect"
            if retry_failed:
                # It may fail twice again.
                self._journal.deaths.pop(case.id, None)
            (self._alone if is_doubtful else self._queue).append(case)

    def _is_over(self):
        busy = any(case is not None for _, case in self._calls.values())
        if busy:
            return False
        if self._stopping.signal:
            return True
        if not self._workers:
            raise RunError("no worker is left; the same command goes on where this run stopped")
        return self._confirmed and not self._queue and not self._alone

    def _await(self, worker):
        """Ask for the worker's hello, which comes once the model is loaded. Ray may repeat this call, so it also
        waits for a restart."""
        worker.is_ready = False
        call = worker.handle.hello.options(max_task_retries=-1).remote()
        self._calls[call] = worker, None

    def _take_hello(self, worker, call):
        try:
            kind, text, where = ray.get(call)
            hello = json.loads(text) if kind == "hello" else None
        except (RayActorError, RayTaskError) as error:
            self._drop(worker, str(error).strip())
            return
        except ValueError as error:
            self._drop(worker, f"its first line is no JSON: {error}")
            return
        if hello is None:
            # Not started anew, since the same model would fail again.
            self._drop(worker, text)
            return
        plan = {**hello, **self._plan}
        if not self._confirmed:
            self._journal.begin_run(plan)
            self._confirmed = True
            self._set_suspects_aside()
        else:
            found = differences(self._journal.plan, plan)
            if found:
                # Its maps would not be comparable with those of the others.
                self._drop(worker, f"it is unlike the others: {'; '.join(found)}")
                return
        worker.is_ready = True
        self._say(f"worker {worker.number} is ready: {where}, {hello.get('device')}")

    def _drop(self, worker, why):
        self._say(f"worker {worker.number} is given up: {why}")
        self._workers.remove(worker)
        ray.kill(worker.handle)

    def _set_suspects_aside(self):
        """Cases during which earlier runs died too often."""
        for case in list(self._alone):
            if self._journal.deaths.get(case.id, 0) >= DEATHS:
                self._alone.remove(case)
                self._end_as_suspect(case, f"the process died {DEATHS} times while it was being explained")

    def _end_as_suspect(self, case, why):
        self._journal.set_aside(case, why)
        self._finished += 1
        self._say(f"{case.id} is suspect and set aside: {why}")

    def _hand_out(self):
        if self._stopping.signal:
            return
        # Round by round, so that a few cases are not all given to one worker.
        for limit in range(1, self.IN_FLIGHT + 1):
            for worker in self._workers:
                if worker.is_ready and self._queue and worker.in_flight < limit:
                    self._give(worker, self._queue.popleft())
        for worker in self._workers:
            if worker.is_ready and not self._queue and self._alone and worker.in_flight == 0:
                self._give(worker, self._alone.popleft())

    def _give(self, worker, case):
        self._journal.begin(case.id)
        worker.in_flight += 1
        self._calls[worker.handle.explain.remote(case.id, case.line())] = worker, case

    def _take_answer(self, worker, case, call):
        worker.in_flight -= 1
        try:
            kind, text = ray.get(call)
        except RayActorError:
            # The process of medcam is gone too: it ends with its input, if it was not killed along.
            kind, text = "died", "the actor's process or its node is gone"
        if kind == "stopped":
            self._journal.stop("error")
            raise RunError(f"worker {worker.number} stopped: {text}\nMake room; the same command goes on")
        if kind == "died":
            self._take_death(worker, case, text)
            return
        answer = json.loads(text)
        if answer["id"] != case.id:
            # The worker did not understand the line and answered without its id.
            text = json.dumps({**answer, "id": case.id, "image": case.image}, ensure_ascii=False)
        self._journal.end(text)
        self._finished += 1
        if answer["status"] != "done":
            self._say(f"{case.id} {answer['status']}: {answer.get('reason')}")

    def _take_death(self, worker, case, why):
        deaths = self._journal.deaths
        deaths[case.id] = deaths.get(case.id, 0) + 1
        if deaths[case.id] >= DEATHS:
            self._end_as_suspect(case, why)
        else:
            self._say(f"{case.id} is tried again alone, since worker {worker.number} died meanwhile: {why}")
            self._alone.append(case)
        if worker.is_ready:
            self._await(worker)

    def _tell(self):
        now = time.monotonic()
        if now - self._told >= PROGRESS:
            self._told = now
            ready = sum(worker.is_ready for worker in self._workers)
            self._say(f"{self._finished} of {self._total} ended, {ready} workers ready")
