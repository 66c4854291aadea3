"""Ray, for the driver of examples/ray."""

from .common import install_apart
from .environment import requirements


def install(environment):
    """Install it, unless that was done before; returns the folder for PYTHONPATH."""
    return install_apart(environment, "ray", requirements("ray"), "Ray and what it needs, 80 MB")
