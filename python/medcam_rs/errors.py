"""What goes wrong, by kind."""


class MedcamError(Exception):
    """Every error of this package; the message names the argument and says what to do."""


class InputError(MedcamError, ValueError):
    """A shape, an order in memory or a value that does not fit."""


class DtypeError(MedcamError, TypeError):
    """Something that is no array or tensor, or whose values are of another type."""


class UnavailableError(MedcamError, RuntimeError):
    """A CUDA device, its driver or NVRTC is not there."""


class DeviceError(MedcamError, RuntimeError):
    """A device failed: it is out of memory, or a kernel did not run."""
