"""gzip at level 1 for the Python loops: with libdeflate, as the program writes its maps, or with Python's zlib.

libdeflate is compiled from the sources that cargo fetched for medcam, so both sides have the same version of it.
"""

import ctypes
import os
import subprocess
import zlib
from pathlib import Path

LEVEL = 1


def build(folder):
    """Compiles libdeflate into a shared library in `folder`; returns its file."""
    library = Path(folder) / "libdeflate.so"
    if library.exists():
        return library
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    found = sorted(cargo.glob("registry/src/*/libdeflate-sys-*/libdeflate"))
    if not found:
        raise SystemExit("libdeflate: no sources; build medcam first, or take --gzip zlib")
    sources = sorted(str(file) for file in found[-1].glob("lib/**/*.c"))
    command = ["cc", "-O2", "-shared", "-fPIC", "-I", str(found[-1]), "-o", str(library), *sources]
    subprocess.run(command, check=True)
    return library


class Libdeflate:
    """Calls of the library."""

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        for name, result, takes in (
            ("alloc_compressor", ctypes.c_void_p, [ctypes.c_int]),
            ("gzip_compress_bound", ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_size_t]),
            ("gzip_compress", ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t] * 2),
        ):
            function = getattr(self.library, f"libdeflate_{name}")
            function.restype, function.argtypes = result, takes
        compress = self.library.libdeflate_gzip_compress
        compress.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
        self.compressor = self.library.libdeflate_alloc_compressor(LEVEL)

    def __call__(self, content):
        bound = self.library.libdeflate_gzip_compress_bound(self.compressor, len(content))
        out = ctypes.create_string_buffer(bound)
        length = self.library.libdeflate_gzip_compress(self.compressor, content, len(content), out, bound)
        assert length, "the bound was too small"
        return memoryview(out)[:length]


def with_zlib(content):
    """A gzip file."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return compressor.compress(content) + compressor.flush()


def of(library):
    """What makes a gzip file of bytes: that of a shared library, or zlib where it is empty."""
    return Libdeflate(library) if library else with_zlib
