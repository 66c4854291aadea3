"""The Python environment in the cache: made once, checked on every run, repaired when damaged."""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

from .common import SCRIPTS, SetupError, clean_environment, discard, pip, say, write_atomically

TORCH_VERSION = "2.11.0"

# Per group: files that must be there (relative to site-packages), and a program that must run.
KEY_FILES = {
    "torch": (
        "torch/__init__.py",
        "torch/lib/libtorch.so",
        "torch/lib/libtorch_cpu.so",
        "torch/lib/libc10.so",
        "torch/include/torch/csrc/api/include/torch/torch.h",
        "torch/include/torch/script.h",
    ),
    "clang": ("clang/native/libclang.so",),
    "test": (
        "numpy/__init__.py",
        "nibabel/__init__.py",
        "PIL/__init__.py",
        "torchvision/__init__.py",
        "monai/__init__.py",
    ),
}
TRIAL = {
    "torch": "import torch; torch.ones(2).sum()",
    "clang": "import clang.cindex, ctypes, os; "
    "ctypes.CDLL(os.path.join(os.path.dirname(clang.__file__), 'native', 'libclang.so'))",
    "test": "import numpy, nibabel, PIL.Image, torchvision, monai",
}
DOWNLOAD = {"torch": "torch with its CUDA libraries, 2.5 GB", "clang": "libclang", "test": "the test packages"}


def requirements(group):
    """The file that pins a group's packages."""
    return SCRIPTS / f"requirements-{group}.txt"


class Environment:
    """A virtual environment, with one stamp per installed group.

    A stamp holds the hash of the group's requirements and is written last. While pip runs, a mark
    lies in the folder; a mark found at the start means an interrupted run, which may have left
    anything, so the environment is made anew (from pip's own cache of downloads, where it has one).
    """

    def __init__(self, root, lock):
        self.root = root
        self.lock = lock
        self.folder = root / f"torch-{TORCH_VERSION}"
        self.python = self.folder / "bin" / "python"
        self.mark = self.folder / "install-in-progress"
        self._site_packages = None
        self._damage = None

    @property
    def site_packages(self):
        """Where its packages lie; None where the interpreter does not start."""
        if self._site_packages is None:
            answer = self._run("import sysconfig; print(sysconfig.get_path('purelib'))")
            self._site_packages = Path(answer.strip()) if answer else None
        return self._site_packages

    @property
    def libtorch(self):
        """The torch package has libtorch's own layout: include/ and lib/."""
        return self.site_packages / "torch"

    @property
    def libclang(self):
        """The folder with libclang.so."""
        return self.site_packages / "clang" / "native"

    @property
    def nvrtc(self):
        """The folder with NVRTC, which comes with torch; None where torch was not installed."""
        folders = (path.parent for path in sorted(self.site_packages.glob("nvidia/*/lib/libnvrtc.so.*")))
        return next(folders, None)

    def lacking(self, groups):
        """The groups that have to be installed; all of them where the environment is damaged."""
        if self.damage():
            return list(groups)
        return [group for group in groups if not self._stamped(group)]

    def damage(self):
        """Why the environment cannot be used, or None; looked at once and after each change."""
        if self._damage is None:
            self._damage = (self._find_damage(),)
        return self._damage[0]

    def _find_damage(self):
        if not self.folder.exists():
            return "not made yet"
        if self.mark.exists():
            return "an earlier installation was interrupted"
        if self.site_packages is None:
            return "its Python does not start"
        for group, names in KEY_FILES.items():
            if self._stamped(group):
                for name in names:
                    if not (self.site_packages / name).is_file():
                        return f"{name} is missing"
        return self._damaged_file()

    def install(self, groups):
        """Install the groups that lack, making the environment anew where it is damaged."""
        damage = self.damage()
        lacking = self.lacking(groups)
        if damage is None and not lacking:
            return
        if damage is None and self._run("import pip._internal.cli.main") is None:
            damage = "its pip does not start"
        if damage:
            self._make_anew(damage)
            lacking = list(groups)
        failed = self._install_into(lacking)
        if failed and damage is None:
            self._make_anew(f"{failed} does not work in it")
            failed = self._install_into(groups)
        if failed:
            raise SetupError(
                f"the packages of {requirements(failed)} were installed but do not work. "
                f"To see why: {self.python} -c '{TRIAL[failed]}'"
            )

    def _make_anew(self, why):
        say(f"making the Python environment {self.folder} ({why})")
        self._damage = None
        discard(self.root, self.folder)
        self._site_packages = None
        self.folder.mkdir()
        self.mark.touch()
        done = subprocess.run(
            [sys.executable, "-m", "venv", str(self.folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(),
            pass_fds=(self.lock,),
            check=False,
        )
        if done.returncode != 0:
            raise SetupError(f"python3 -m venv failed:\n{done.stdout.strip()}")

    def _install_into(self, groups):
        """Returns the first group that does not work after its installation, or None."""
        self.mark.touch()
        if not groups:
            self.mark.unlink()
            return None
        say("installing " + ", ".join(DOWNLOAD[group] for group in groups))
        arguments = ["install", "--quiet", "--no-input", "--no-compile", "--only-binary=:all:"]
        # torch's pin always counts: no other package may replace it.
        arguments += ["--constraint", str(requirements("torch"))]
        for group in groups:
            arguments += ["--requirement", str(requirements(group))]
        try:
            pip(self.python, arguments, self.root, self.lock)
        except SetupError:
            # pip undoes its own work when it fails, and what was there before is still good.
            self.mark.unlink()
            raise
        for group in groups:
            if self._run(TRIAL[group]) is None:
                return group
        for group in groups:
            write_atomically(self._stamp(group), self._hash(group) + "\n")
        self.mark.unlink()
        return None

    def _stamp(self, group):
        return self.folder / f"installed-{group}"

    def _stamped(self, group):
        try:
            return self._stamp(group).read_text(encoding="utf-8").strip() == self._hash(group)
        except OSError:
            return False

    @staticmethod
    def _hash(group):
        return hashlib.sha256(requirements(group).read_bytes()).hexdigest()

    def _damaged_file(self):
        """Compare every file with the size that its package's record gives (about 0.1 s)."""
        for record in self.site_packages.glob("*.dist-info/RECORD"):
            with open(record, newline="", encoding="utf-8") as handle:
                for name, _, size in csv.reader(handle):
                    if not size:
                        continue
                    try:
                        found = (self.site_packages / name).stat().st_size
                    except OSError:
                        return f"{name} is missing"
                    if found != int(size):
                        return f"{name} has {found} bytes instead of {size}"
        return None

    def _run(self, program):
        """What a program prints in this environment, or None where it fails."""
        try:
            done = subprocess.run(
                [str(self.python), "-c", program],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=clean_environment(),
                check=False,
            )
        except OSError:
            return None
        return done.stdout if done.returncode == 0 else None
