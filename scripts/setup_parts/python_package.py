"""What the tests of the Python package need: pytest, and the CAM libraries that it accelerates."""

from .common import install_apart
from .environment import requirements


def install_pytest(environment):
    """Install pytest, unless that was done before; returns the folder for PYTHONPATH."""
    return install_apart(environment, "pytest", requirements("pytest"), "pytest, 8 MB")


def install_peers(environment):
    """Install the libraries, unless that was done before; returns the folder for PYTHONPATH."""
    what = "pytorch-grad-cam, TorchCAM and Captum, 40 MB"
    return install_apart(environment, "peers", requirements("peers"), what)
