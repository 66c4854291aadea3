"""What goes wrong, by kind."""


class MedcamError(Exception):
    """Every error of this package; the message names the argument and says what to do."""


class InputError(MedcamError, ValueError):
    """A shape, an order in memory or a value that does not fit."""


class DtypeError(MedcamError, TypeError):
    """Something that is no array or tensor, or whose values are of another type."""


class FileError(MedcamError, OSError):
    """A file or folder that cannot be written: no room, no permission, not a folder.

    The message names it. `errno` is the system's number (`errno.ENOSPC`, `errno.EACCES`) where it
    gave one, else None.
    """


class UnavailableError(MedcamError, RuntimeError):
    """A CUDA device, its driver or NVRTC is not there."""


class DeviceError(MedcamError, RuntimeError):
    """A device failed: it is out of memory, or a kernel did not run."""
