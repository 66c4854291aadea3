"""The networks that the tests compare with and the benchmarks run, made by tests/networks/."""

import hashlib
import subprocess

from .common import CHECKOUT, SetupError, clean_environment, publish, say, working_folder
from .environment import requirements

SOURCES = CHECKOUT / "tests" / "networks"
GENERATORS = {"networks": "make_networks.py", "bench": "make_bench_networks.py"}


def make(environment, kind):
    """Run a generator, unless the same sources and packages made its networks before.

    `kind` is "networks" or "bench"; returns the folder with the networks.
    """
    others = [name for name in GENERATORS.values() if name != GENERATORS[kind]]
    sources = sorted(path for path in SOURCES.glob("*.py") if path.name not in others)
    digest = hashlib.sha256()
    for path in sources + [requirements("torch"), requirements("test")]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    final = environment.root / f"{kind}-{digest.hexdigest()[:16]}"
    if final.exists():
        return final
    say(f"making {final} with tests/networks/{GENERATORS[kind]}")
    with working_folder(environment.root, kind) as work:
        unfinished = work / "unfinished"
        unfinished.mkdir()
        done = subprocess.run(
            [str(environment.python), str(SOURCES / GENERATORS[kind]), str(unfinished)],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise SetupError(f"tests/networks/{GENERATORS[kind]} failed:\n{done.stdout.strip()}")
        publish(environment.root, unfinished, final)
    return final
