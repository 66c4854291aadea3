"""Resident memory stays where it is, over many calls and many rounds of inject and eject."""

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed here")

# In a process of its own, whose memory no other test has touched.
PROGRAM = """
import gc, warnings
import torch
from torch import nn
from medcam_rs import inject

warnings.simplefilter("ignore")
torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3),
).eval()

def held():
    gc.collect()
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1])

def call(number):
    net(torch.randn(2, 1, 40 + number % 5 * 8, 48))

inject(net, layer="2", backend="ggcam")
for number in range(1, 1001):
    call(number)
    if number == 50:
        early = held()
print(early, held())
net.eject()
for number in range(1, 101):
    inject(net, layer="2")
    call(number)
    net.eject()
    if number == 5:
        early = held()
print(early, held())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_resident_memory_after_many_calls_and_rounds():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(pairs) == 2 and all(late <= early * 1.01 for early, late in pairs), pairs
