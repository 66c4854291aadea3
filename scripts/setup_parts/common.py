"""What every part of the set-up uses: the error, the lock, and running pip."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = CHECKOUT / "scripts"
LEFTOVER_PREFIX = "leftover-"

# What pip says when it cannot reach a registry.
NETWORK_SIGNS = (
    "NewConnectionError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "ConnectTimeoutError",
    "Max retries exceeded",
    "Read timed out",
    "Network is unreachable",
    "connection broken",
    "ProxyError",
)


class SetupError(Exception):
    """Something the user has to put right; the message says what and how."""


def say(message):
    """One line per step."""
    print(f"set-up: {message}", flush=True)


def cache_root():
    """`${XDG_CACHE_HOME:-$HOME/.cache}/medcam`, shared by all checkouts of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).expanduser().absolute() / "medcam"


@contextlib.contextmanager
def locked(root):
    """Hold the cache alone. Yields the lock's descriptor: a child that inherits it keeps the lock,
    so an installer that outlives a killed set-up is waited for instead of raced."""
    with open(root / "lock", "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another set-up that works in the same cache")
            fcntl.flock(handle, fcntl.LOCK_EX)
        remove_leftovers(root)
        yield handle.fileno()


def remove_leftovers(root):
    """Delete what interrupted runs left behind; only called under the lock."""
    for path in root.glob(LEFTOVER_PREFIX + "*"):
        shutil.rmtree(path, ignore_errors=True)


def discard(root, path):
    """Move a folder out of sight in one step, then delete it, so that no half of it is ever found."""
    if not path.exists():
        return
    aside = root / f"{LEFTOVER_PREFIX}{path.name}-{os.getpid()}"
    path.rename(aside)
    shutil.rmtree(aside)


@contextlib.contextmanager
def working_folder(root, name):
    """A folder inside the cache that is gone afterwards, whatever happens."""
    path = root / f"{LEFTOVER_PREFIX}{name}-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def publish(root, temporary, final):
    """Put a finished folder in its place with one rename."""
    discard(root, final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(final)


def write_atomically(path, text):
    """Write a file so that a reader sees all of it or none of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def clean_environment(**extra):
    """The environment for our own interpreter: nothing of the user's Python leaks in."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX")
    }
    environment.update(PYTHONNOUSERSITE="1", PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    environment.update(extra)
    return environment


def pip(python, arguments, root, lock):
    """Run pip. It unpacks inside the cache, for /tmp is often a small memory disk."""
    with working_folder(root, "pip") as scratch:
        done = subprocess.run(
            [str(python), "-m", "pip", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=clean_environment(TMPDIR=str(scratch)),
            pass_fds=(lock,),
            check=False,
        )
    if done.returncode == 0:
        return
    tail = "\n".join("    " + line for line in done.stdout.splitlines()[-12:])
    if any(sign in done.stdout for sign in NETWORK_SIGNS):
        raise SetupError(
            "pip could not reach the package registry. Connect to the network (behind a proxy: "
            "export HTTPS_PROXY=http://HOST:PORT; with a mirror: export PIP_INDEX_URL=URL) and run "
            f"the same command again. pip said:\n{tail}"
        )
    if "No space left on device" in done.stdout:
        raise SetupError(f"the disk is full: free some space under {root} and run again:\n{tail}")
    command = " ".join(arguments[:1] + [word for word in arguments if "==" in word or ".txt" in word])
    raise SetupError(f"pip {command} failed (python {sys.version.split()[0]}). pip said:\n{tail}")


def digest_of(paths):
    """Of the names and contents of files, for the name of a folder that is made from them."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def generate(environment, script, final, **variables):
    """Have a script of this checkout fill the folder `final`, unless that is there already."""
    if final.exists():
        return
    place = script.relative_to(CHECKOUT)
    say(f"making {final} with {place}")
    with working_folder(environment.root, final.name) as work:
        unfinished = work / "unfinished"
        unfinished.mkdir()
        done = subprocess.run(
            [str(environment.python), str(script), str(unfinished)],
            env=clean_environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise SetupError(f"{place} failed:\n{done.stdout.strip()}")
        publish(environment.root, unfinished, final)


def install_apart(environment, name, requirements, what):
    """Packages that must not mix with the environment's, in a folder of their own; returns it."""
    final = environment.root / f"{name}-packages-{digest_of([requirements])}"
    if not final.exists():
        say(f"installing {what}")
        with working_folder(environment.root, final.name) as work:
            target = work / "target"
            arguments = ["install", "--quiet", "--no-input", "--no-compile", "--only-binary=:all:"]
            arguments += ["--no-deps", "--target", str(target), "--requirement", str(requirements)]
            pip(environment.python, arguments, environment.root, environment.lock)
            publish(environment.root, target, final)
    return final
