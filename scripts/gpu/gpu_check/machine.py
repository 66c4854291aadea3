"""What this machine has: the GPU and its driver, torch, NVRTC, compute-sanitizer, ncu."""

import json
import os
import platform
import shutil
import stat
import subprocess
from pathlib import Path

from .steps import FAILED, PASSED, ending, last_line

QUERY = (
    "name,driver_version,compute_cap,memory.total,clocks.max.sm,clocks.max.mem,power.limit,"
    "ecc.mode.current"
)
# As they are while it works.
CLOCKS = "clocks.sm,clocks.mem,temperature.gpu,power.draw,utilization.gpu,memory.used"

# Asked in a process of its own: a driver or a torch that crashes is an answer, too.
DRIVER = """
import ctypes, json
driver = ctypes.CDLL("libcuda.so.1")
status = driver.cuInit(0)
if status:
    raise SystemExit(f"cuInit says {status}")
version, count, names = ctypes.c_int(), ctypes.c_int(), []
# A driver that stands in for NVIDIA's has no version.
getattr(driver, "cuDriverGetVersion", lambda _: 0)(ctypes.byref(version))
driver.cuDeviceGetCount(ctypes.byref(count))
for ordinal in range(count.value):
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, 256, ordinal)
    names.append(name.value.decode())
print(json.dumps({"cuda": version.value, "devices": names}))
"""
TORCH = """
import json, os, platform, torch
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "devices": torch.cuda.device_count(),
    "cudnn": torch.backends.cudnn.version(), "python": platform.python_version(),
    "lib": os.path.join(os.path.dirname(torch.__file__), "lib"),
}))
"""
WANTED_TORCH = "2.11.0"


class Machine:
    """What was found, and the environment in which the bundle's programs run."""

    def __init__(self, options):
        self.python = options.python
        self.device = options.device
        self.libraries = [options.driver] if options.driver else []
        self.variables = _variables(options.driver)
        self.nvrtc = None
        self.torch = self._ask(TORCH)
        if "error" not in self.torch:
            lib = Path(self.torch["lib"])
            self.libraries += [lib, *sorted(lib.parents[1].glob("nvidia/*/lib"))]
        self.nvrtc = self._find_nvrtc()
        self.driver = self._ask(DRIVER)
        self.sanitizer = self._find_sanitizer(options.sanitizer)
        self.ncu = _find_ncu()
        self.facts = {
            "nvidia_smi": nvidia_smi(QUERY),
            "clocks": [],
            "driver": self.driver,
            "torch": self.torch,
            "nvrtc": self.nvrtc,
            "compute_sanitizer": self.sanitizer,
            "ncu": self.ncu,
            "nvcc": shutil.which("nvcc"),
            "python": self.python,
            "compiler": shutil.which("gcc") or shutil.which("cc") or shutil.which("clang"),
            "glibc": " ".join(platform.libc_ver()),
            "threads": os.cpu_count(),
        }

    def environment(self, **more):
        """The variables of a program that needs the driver, libtorch and NVRTC."""
        environment = {**os.environ, **self.variables}
        path = [*self.libraries, environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(str(part) for part in path if str(part))
        if self.device == "cpu":
            # Enough for a trial, and threads that wait by spinning do not disturb others.
            environment["OMP_NUM_THREADS"] = "1"
        if self.nvrtc:
            environment["MEDCAM_NVRTC"] = self.nvrtc
        environment.update({key: str(value) for key, value in more.items()})
        return environment

    def note_clocks(self, step):
        """Remember the clocks right behind a step, while they are still those of its work."""
        told = nvidia_smi(CLOCKS)
        if isinstance(told, list) and told:
            self.facts["clocks"].append({"step": step, **told[0]})

    def report(self, run):
        """Remember for each thing that the checks need whether it is there."""
        if self.device == "cpu":
            return
        error = self.driver.get("error") or ("" if self.driver["devices"] else "it sees no device")
        names = ", ".join(self.driver.get("devices", []))
        run.add("machine: driver", FAILED if error else PASSED, error or names)
        error = self.torch.get("error")
        if not error and not self.torch["version"].startswith(WANTED_TORCH):
            error = f"{self.torch['version']}; the programs were built for {WANTED_TORCH}"
        run.add("machine: torch", FAILED if error else PASSED, error or self.torch["version"])
        where = self.nvrtc or "neither beside torch nor where MEDCAM_NVRTC says"
        run.add("machine: NVRTC", PASSED if self.nvrtc else FAILED, where)

    def _ask(self, program):
        """What a Python program prints as JSON, or {"error": its last words}."""
        try:
            done = subprocess.run(
                [self.python, "-c", program],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment(),
                timeout=120,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"error": str(error)}
        if done.returncode != 0:
            return {"error": f"{last_line(done.stdout)} ({ending(done.returncode)})"}
        return json.loads(done.stdout.strip().splitlines()[-1])

    def _find_nvrtc(self):
        """The folder of NVRTC, as the programs want to have it named."""
        named = os.environ.get("MEDCAM_NVRTC")
        toolkits = [*Path("/usr/local").glob("cuda*/lib64")]
        for folder in [named, *self.libraries, *toolkits]:
            if folder and any(Path(folder).glob("libnvrtc.so*")):
                return str(folder)
        return None

    def _find_sanitizer(self, named):
        """The program compute-sanitizer: as named, on the PATH, in a toolkit or in NVIDIA's package
        nvidia-cuda-sanitizer-api beside torch."""
        if named:
            path = Path(named)
            found = [path] if path.is_file() else path.rglob("compute-sanitizer")
            # The program itself rather than a script that calls it.
            found = sorted((path for path in found if path.is_file()), key=_size)
            return _executable(found[-1]) if found else None
        on_path = shutil.which("compute-sanitizer")
        if on_path:
            return on_path
        packages = [library.parent for library in map(Path, self.libraries)]
        for folder in [*packages, *Path("/usr/local").glob("cuda*")]:
            for part in ("compute-sanitizer", "bin"):
                path = folder / part / "compute-sanitizer"
                if path.is_file():
                    return str(path)
        return None


def _size(path):
    return path.stat().st_size


def _executable(program):
    """The program, which may run afterwards: a package unpacked by hand has lost the permission."""
    if not os.access(program, os.X_OK):
        for path in program.resolve().parent.iterdir():
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(program)


def _variables(driver):
    """What the driver that runs kernels on the CPU wants to know, if it is that one."""
    files = Path(driver).absolute().glob("*_*.so") if driver else []
    # KERNELS_TYPE_KEY.so: of several keys, the sources are those of the last that was built.
    newest = sorted(files, key=lambda path: path.stat().st_mtime)
    kernels = {path.name.rsplit("_", 1)[0]: path for path in newest}.values()
    if not kernels:
        return {}
    return {
        "MEDCAM_ON_HOST": "1",
        "MEDCAM_ON_HOST_ORDER": "forward",
        "MEDCAM_ON_HOST_KERNELS": os.pathsep.join(map(str, kernels)),
    }


def _find_ncu():
    """Nsight Compute: on the PATH, in a toolkit, or where its own package puts it."""
    found = shutil.which("ncu")
    places = [*Path("/usr/local").glob("cuda*/bin/ncu")]
    places += sorted(Path("/opt/nvidia").glob("nsight-compute/*/ncu"))
    return found or next((str(place) for place in places[::-1] if place.is_file()), None)


def nvidia_smi(query):
    """What nvidia-smi says of each GPU, by the name of the field."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    if done.returncode != 0:
        return {"error": last_line(done.stdout)}
    fields = query.split(",")
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
    return [dict(zip(fields, row)) for row in rows]
