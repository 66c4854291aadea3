#!/usr/bin/env python3
"""Prepare this machine: `scripts/setup.py demo|check|test|bench|gallery`; `env` prints what it found.

Everything goes into `${XDG_CACHE_HOME:-$HOME/.cache}/medcam`, where other checkouts find it again;
the checkout itself gets `.cargo/config.toml`, so that plain cargo commands find it too. Nothing
that is there and sound is done again, and what an interrupted run left half done is repaired.
Your own LIBTORCH and LIBCLANG_PATH are used where they are set.

`eval "$(scripts/setup.py env)"` tells a shell what a crate that depends on medcam needs to build and run.
"""

import argparse
import os
import shlex
import sys

from setup_parts import cargo_config, data, gallery, m3dcam, networks, preflight, python_package, ray
from setup_parts.common import SetupError, cache_root, locked
from setup_parts.environment import Environment


def groups_for(job):
    """The groups of Python packages that a job needs."""
    groups = []
    runs_python = job not in ("demo", "check")
    if runs_python or not os.environ.get("LIBTORCH"):
        groups.append("torch")
    if not os.environ.get("LIBCLANG_PATH"):
        groups.append("clang")
    if runs_python:
        groups.append("test")
    return groups


def own_path(name):
    """The absolute path that the user gave in an environment variable, or None."""
    value = os.environ.get(name)
    return os.path.abspath(value) if value else None


def prepare(job):
    """All steps of a job."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    groups = groups_for(job)
    with locked(root) as lock:
        environment = Environment(root, lock)
        problems = preflight.problems(job) + [cargo_config.problem()]
        lacking = environment.lacking(groups)
        if lacking or environment.damage():
            problems += preflight.problems_of_installing(root, "torch" in lacking)
        problems = [problem for problem in problems if problem]
        if problems:
            raise SetupError("cannot go on:\n" + "\n".join(f"  - {problem}" for problem in problems))
        environment.install(groups)
        entries = {
            "LIBTORCH": own_path("LIBTORCH") or environment.libtorch,
            "LIBCLANG_PATH": own_path("LIBCLANG_PATH") or environment.libclang,
        }
        if job != "check":
            entries["MEDCAM_DATA"] = data.install(environment)
        if environment.nvrtc:
            entries["MEDCAM_NVRTC"] = environment.nvrtc
        if "test" in groups:
            entries["MEDCAM_PYTHON"] = environment.python
        if job == "test":
            entries["MEDCAM_NETWORKS"] = networks.make(environment, "networks")
            entries["MEDCAM_OPERATORS"] = networks.make(environment, "operators")
            entries["MEDCAM_WILD"] = networks.make_wild(environment)
            entries["MEDCAM_ARCHITECTURES"] = networks.make(environment, "architectures")
            entries["MEDCAM_NETWORKS_PACKAGES"] = networks.install_packages(environment)
            entries["MEDCAM_M3DCAM"] = m3dcam.make(environment)
            entries["MEDCAM_M3DCAM_PACKAGES"] = m3dcam.install(environment)
            entries["MEDCAM_PEERS"] = python_package.install_peers(environment)
            entries["MEDCAM_PYTEST"] = python_package.install_pytest(environment)
            entries["MEDCAM_RAY"] = ray.install(environment)
        if job == "bench":
            entries["MEDCAM_BENCH"] = networks.make(environment, "bench")
        if job == "gallery":
            entries["MEDCAM_GALLERY"] = gallery.make(environment)
        cargo_config.write(entries)


def exports():
    """The shell's lines for crates elsewhere: what cargo finds in this checkout, and, as programs of
    theirs are not linked with its path, where libtorch's libraries are."""
    entries = cargo_config.read()
    if "LIBTORCH" not in entries:
        raise SetupError("nothing is set up in this checkout: first run scripts/setup.py demo")
    lines = [
        f"export {name}={shlex.quote(entries[name])}"
        for name in ("LIBTORCH", "LIBCLANG_PATH")
        if name in entries
    ]
    lines.append('export LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"')
    return "\n".join(lines)


def main():
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("job", choices=("demo", "check", "test", "bench", "gallery", "env"), help="what to prepare for")
    job = parser.parse_args().job
    try:
        if job == "env":
            print(exports())
        else:
            prepare(job)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; the next run repairs what is half done", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
