"""Resident memory of this process on the CPU: what it holds, and the most that a call needs."""

import contextlib
import ctypes
import resource


def held():
    """Bytes that are resident, after the allocator gave back what it kept."""
    _trim()
    try:
        return _status("VmRSS")
    except OSError:
        return _greatest()


def greatest(work):
    """The most bytes that were resident during the call; of the process so far, where Linux does not
    start anew."""
    _trim()
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as handle:
            handle.write("5")
        work()
        return _status("VmHWM")
    except OSError:
        work()
        return _greatest()


def _trim():
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(field):
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _greatest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
