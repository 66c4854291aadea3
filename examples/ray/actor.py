"""The Ray actor: it owns a process `medcam cohort --worker`, which has loaded the model, and one device.

This module is sent to the workers by value, so a node of the cluster needs Ray and medcam, but none of
these files. It imports nothing but the standard library.
"""

import collections
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import threading

# How much of the process's messages is kept to explain an early end.
TAIL_LINES = 20


class Worker:
    """Hands cases to its process and returns the process's answers. Ray runs several calls at once, each on a
    thread of its own, which keeps the pipeline of the process full.

    When the process dies, the calls in progress return why, and the next call of `hello` ends the actor,
    so that Ray restarts it.
    """

    def __init__(self, command, folder):
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            # Relative paths among the options are relative to the driver's folder.
            cwd=folder if os.path.isdir(folder) else None,
            # Ctrl-C at the terminal is for the driver alone, which lets the process finish its cases.
            start_new_session=True,
        )
        self._messages = collections.deque(maxlen=TAIL_LINES)
        self._forwarding = threading.Thread(target=self._forward_messages, daemon=True)
        self._forwarding.start()
        self._hello = self._process.stdout.readline()
        self._lock = threading.Lock()
        self._pending = {}
        self._strays = []
        # ("died" or "stopped", why) once the process has ended.
        self._died = None
        self._failed = None
        if self._hello.endswith("\n"):
            threading.Thread(target=self._read_answers, daemon=True).start()
        else:
            # No exception: Ray would show pages of its own stack for it.
            self._failed = self._how_it_ended()[1]

    def hello(self):
        """Returns `("hello", line, where)`, the first line of the process and which process it is, or
        `("failed", why, None)` if the model could not be loaded. Ends the actor if the process died later."""
        if self._failed:
            return "failed", self._failed, None
        with self._lock:
            if self._died is not None:
                # Ray restarts an actor that ends like this, but not one that calls `exit_actor`.
                os._exit(1)
        return "hello", self._hello, f"process {self._process.pid} on {socket.gethostname()}"

    def explain(self, case_id, line):
        """Hands a case to the process; returns `("answer", line)`, `("died", why)`, or `("stopped", why)` if the
        process ended by itself because of something that is no case's fault, such as a full disk."""
        future = concurrent.futures.Future()
        with self._lock:
            if self._died is not None:
                return self._died
            self._pending[case_id] = future
            try:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            except OSError:
                # The process is dead; the thread that reads its answers finds that out as well.
                pass
        return future.result()

    def _forward_messages(self):
        for line in self._process.stderr:
            self._messages.append(line.rstrip("\n"))
            print(line, end="", file=sys.stderr, flush=True)

    def _read_answers(self):
        how = None
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break
            try:
                case_id = json.loads(line)["id"]
            except (ValueError, KeyError, TypeError):
                how = "died", f"medcam answered {line[:200].rstrip()!r}"
                self._process.kill()
                break
            self._answer(case_id, line.rstrip("\n"))
        how = how or self._how_it_ended()
        with self._lock:
            self._died = how
            pending, self._pending = self._pending, {}
        for future in pending.values():
            future.set_result(how)

    def _answer(self, case_id, line):
        with self._lock:
            future = self._pending.pop(case_id, None)
            if future is not None:
                future.set_result(("answer", line))
            else:
                # A line that the process did not understand is answered without an id.
                self._strays.append(line)
            # Such answers can only be for the pending cases once there are as many of them.
            if self._strays and len(self._strays) == len(self._pending):
                for stray, future in zip(self._strays, self._pending.values()):
                    future.set_result(("answer", stray))
                self._strays, self._pending = [], {}

    def _how_it_ended(self):
        code = self._process.wait()
        self._forwarding.join(timeout=5)
        if code < 0:
            try:
                ended = f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                ended = f"was killed by signal {-code}"
        else:
            ended = f"ended with exit code {code}"
        said = "".join(f"\n    {line}" for line in self._messages)
        why = f"medcam {ended}" + (f"; it said:{said}" if said else "")
        # Its own errors; a panic has another code.
        return "stopped" if code == 1 else "died", why
