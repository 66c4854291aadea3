"""Threads, forks and memory."""

import multiprocessing
import subprocess
import sys
import threading
import time

import numpy
import pytest

import medcam_rs

# Large enough that the ops share it among threads.
LARGE = (1, 16, 64, 64, 64)


def large_map():
    values = numpy.random.default_rng(4).random(LARGE, dtype="float32")
    return medcam_rs.cam(values, values[:, ::-1].copy(), size=(96, 96, 96))


def in_fork(connection):
    connection.send(large_map())


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
def test_a_fork_has_threads_of_its_own():
    expected = large_map()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=in_fork, args=(sender,))
    process.start()
    assert receiver.poll(60), "the fork hangs"
    assert numpy.array_equal(receiver.recv(), expected)
    process.join(60)
    assert process.exitcode == 0


def test_workers_of_a_data_loader():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    large_map()

    class Maps(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            values = torch.full(LARGE, float(index + 1))
            return medcam_rs.channel_weights(values)

    loader = torch.utils.data.DataLoader(Maps(), num_workers=2, timeout=60)
    assert [float(weights.flatten()[0]) for weights in loader] == [1, 2, 3, 4]


def test_threads_give_what_one_gives():
    expected = large_map()
    found = [None] * 4

    def run(i):
        found[i] = large_map()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(numpy.array_equal(maps, expected) for maps in found)


def test_the_interpreter_goes_on():
    values = numpy.ones((4, 32, 64, 64, 64), dtype="float32")
    done, turns = threading.Event(), 0

    def run():
        for _ in range(4):
            medcam_rs.cam(values, values, "gradcam++")
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    while not done.is_set():
        time.sleep(0)
        turns += 1
    thread.join()
    # With the lock held, this thread has a turn or two between the calls.
    assert turns > 100, turns


def run_alone(code):
    """The output of a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


MEASURE = """
import ctypes, gc
import numpy, medcam_rs

def status(name):
    # What the heap of the C library has free is no growth.
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

def peak(call):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    result = call()
    return status("VmHWM") - before, result
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("order", ["C", "channels last"])
def test_nothing_is_copied(order):
    code = MEASURE + f"""
a = numpy.ones((2, 64, 48, 48, 48), dtype="float32")
if {order!r} != "C":
    a = numpy.moveaxis(numpy.ascontiguousarray(numpy.moveaxis(a, 1, -1)), -1, 1)
a.flags.writeable = False
g = a
medcam_rs.cam(numpy.ones((1, 2, 3, 3), "float32"), numpy.ones((1, 2, 3, 3), "float32"))
for method in ("gradcam", "gradcam++", "hirescam", "layercam"):
    used, maps = peak(lambda: medcam_rs.cam(a, g, method, size=(96, 96, 96)))
    print(used - maps.nbytes)
"""
    # The workspace: a map on the layer's grid, 4·B·N bytes, and some rows for each thread.
    allowed = 4 * 2 * 48**3 + (8 << 20)
    assert all(int(line) <= allowed for line in run_alone(code).split()), run_alone(code)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow():
    code = MEASURE + """

def call(seed):
    # The same fifty again and again: what later ones take, earlier ones took.
    draw = numpy.random.default_rng(seed % 50)
    b, c, d, h, w = (int(n) for n in draw.integers(1, [3, 24, 24, 24, 24]))
    a = draw.random((b, c, d, h, w), dtype="float32")
    size = tuple(int(n) for n in draw.integers(1, 40, 3))
    maps = medcam_rs.cam(a, a, ("gradcam", "gradcam++", "hirescam")[b], size=size)
    medcam_rs.normalize(medcam_rs.resample(maps, (d, h, w)))
    medcam_rs.score(maps, (maps > 0.5), ("ioa",))

for seed in range(50):
    call(seed)
early = status("VmRSS")
for seed in range(950):
    call(seed)
print(early, status("VmRSS"))
"""
    early, late = map(int, run_alone(code).split())
    assert late <= 1.01 * early, (early, late)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_no_library_of_pytorch_or_cuda_comes_with_the_package():
    code = "\n".join(
        (
            "import sys, medcam_rs._native",
            "assert 'torch' not in sys.modules",
            "print(open('/proc/self/maps').read())",
        )
    )
    maps = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "_native" in maps.stdout
    assert not [word for word in ("libtorch", "libc10", "libcuda") if word in maps.stdout]
