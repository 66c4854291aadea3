"""The networks that the tests compare with and the benchmarks run, made by tests/networks/."""

from .common import CHECKOUT, digest_of, generate
from .environment import requirements

SOURCES = CHECKOUT / "tests" / "networks"
GENERATORS = {"networks": "make_networks.py", "bench": "make_bench_networks.py"}


def make(environment, kind):
    """Run a generator, unless the same sources and packages made its networks before.

    `kind` is "networks" or "bench"; returns the folder with the networks.
    """
    others = [name for name in GENERATORS.values() if name != GENERATORS[kind]]
    sources = sorted(path for path in SOURCES.glob("*.py") if path.name not in others)
    digest = digest_of(sources + [requirements("torch"), requirements("test")])
    final = environment.root / f"{kind}-{digest}"
    generate(environment, SOURCES / GENERATORS[kind], final)
    return final
