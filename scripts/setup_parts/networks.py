"""The networks that the tests compare with and the benchmarks run, made by tests/networks/."""

from .common import CHECKOUT, digest_of, generate, install_apart
from .environment import requirements

SOURCES = CHECKOUT / "tests" / "networks"
WILD = CHECKOUT / "tests" / "wild"
GENERATORS = {
    "networks": "make_networks.py",
    "architectures": "make_architectures.py",
    "bench": "make_bench_networks.py",
    "operators": "make_operators.py",
}
OPERATORS = ("make_operators.py", "operators.py")
# The sources that a generator does not read.
APART = ("make_architectures.py", "architectures.py", "covid_net.py", "inf_net.py")
ALIASES = ("make_aliases.py", "aliases.py")
OTHERS = {
    "networks": ("make_bench_networks.py", *APART),
    "architectures": ("make_bench_networks.py", *ALIASES),
    "bench": ("make_networks.py", "make_several.py", *APART, *ALIASES),
}


def install_packages(environment):
    """What the networks of nnU-Net and MONAI's transformers need; returns the folder."""
    group = requirements("networks")
    return install_apart(environment, "networks", group, "nnU-Net's architectures")


def make(environment, kind):
    """Run a generator, unless the same sources and packages made its networks before.

    `kind` is one of `GENERATORS`; returns the folder with the networks.
    """
    groups = [requirements(group) for group in ("torch", "test", "networks")]
    if kind == "operators":
        sources = [SOURCES / name for name in OPERATORS]
    else:
        others = (*OTHERS[kind], *OPERATORS)
        sources = sorted(path for path in SOURCES.glob("*.py") if path.name not in others)
    final = environment.root / f"{kind}-{digest_of(sources + groups)}"
    if not final.exists():
        packages = str(install_packages(environment))
        generate(environment, SOURCES / GENERATORS[kind], final, PYTHONPATH=packages)
    return final


def make_wild(environment):
    """Networks and inputs as people bring them; returns their folder."""
    sources = sorted(WILD.glob("*.py")) + [requirements(group) for group in ("torch", "test")]
    final = environment.root / f"wild-{digest_of(sources)}"
    generate(environment, WILD / "make_wild.py", final)
    return final
