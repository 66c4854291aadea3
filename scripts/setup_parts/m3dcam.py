"""M3d-CAM itself, and what it gives for the networks of tests/m3dcam/."""

from .common import CHECKOUT, digest_of, generate, pip, publish, say, working_folder
from .environment import requirements

SOURCES = CHECKOUT / "tests" / "m3dcam"


def make(environment):
    """Run the package on the networks, unless that was done before; returns the folder with the maps."""
    groups = [requirements(group) for group in ("torch", "test", "m3dcam")]
    networks = CHECKOUT / "tests" / "networks"
    # Its networks take these from there.
    borrowed = [networks / name for name in ("make_networks.py", "nets2d.py", "nets3d.py", "specs.py")]
    digest = digest_of(sorted(SOURCES.glob("*.py")) + borrowed + groups)
    final = environment.root / f"m3dcam-{digest}"
    if not final.exists():
        generate(environment, SOURCES / "make_expected.py", final, PYTHONPATH=str(_packages(environment)))
    return final


def _packages(environment):
    """The folder with the package and what it needs besides the environment's packages."""
    final = environment.root / f"m3dcam-packages-{digest_of([requirements('m3dcam')])}"
    if not final.exists():
        say("installing M3d-CAM and what it needs, 150 MB")
        with working_folder(environment.root, "m3dcam-packages") as work:
            target = work / "target"
            arguments = ["install", "--quiet", "--no-input", "--no-compile", "--only-binary=:all:"]
            arguments += ["--no-deps", "--target", str(target)]
            arguments += ["--requirement", str(requirements("m3dcam"))]
            pip(environment.python, arguments, environment.root, environment.lock)
            publish(environment.root, target, final)
    return final
