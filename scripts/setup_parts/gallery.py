"""The models and inputs of docs/gallery.md, made by examples/gallery/make_models.py."""

from . import data
from .common import CHECKOUT, digest_of, generate, install_apart
from .environment import requirements

SOURCES = CHECKOUT / "examples" / "gallery"


def make(environment):
    """Convert one model and train another, unless that was done before; returns their folder."""
    fetched = data.install(environment, data.GALLERY_PACKAGES)
    sources = [path for path in sorted(SOURCES.glob("*.py")) if path.name != "make_gallery.py"]
    groups = [requirements(group) for group in ("torch", "test", "gallery")]
    final = environment.root / f"gallery-{digest_of(sources + groups)}"
    if not final.exists():
        packages = install_apart(environment, "gallery", groups[-1], "onnx and onnxruntime, 40 MB")
        variables = {"PYTHONPATH": str(packages), "MEDCAM_DATA": str(fetched)}
        generate(environment, SOURCES / "make_models.py", final, **variables)
    return final
