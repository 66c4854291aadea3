"""M3d-CAM itself, and what it gives for the networks of tests/m3dcam/."""

from .common import CHECKOUT, digest_of, generate, install_apart
from .environment import requirements

SOURCES = CHECKOUT / "tests" / "m3dcam"


def install(environment):
    """Install the package, unless that was done before; returns the folder for PYTHONPATH."""
    what = "M3d-CAM and what it needs, 150 MB"
    return install_apart(environment, "m3dcam", requirements("m3dcam"), what)


def make(environment):
    """Run the package on the networks, unless that was done before; returns the folder with the maps."""
    groups = [requirements(group) for group in ("torch", "test", "m3dcam")]
    networks = CHECKOUT / "tests" / "networks"
    # Its networks take these from there.
    borrowed = [networks / name for name in ("make_networks.py", "nets2d.py", "nets3d.py", "specs.py")]
    digest = digest_of(sorted(SOURCES.glob("*.py")) + borrowed + groups)
    final = environment.root / f"m3dcam-{digest}"
    if not final.exists():
        variables = {"PYTHONPATH": str(install(environment))}
        generate(environment, SOURCES / "make_expected.py", final, **variables)
    return final
