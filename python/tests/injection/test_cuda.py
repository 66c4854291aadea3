"""Live modules on a CUDA device against the CPU; skipped where no device is."""

import os

import numpy
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
from small import Net  # isort: skip
from torch import nn  # isort: skip

import medcam_rs
from medcam_rs.injection import inject

if not torch.cuda.is_available():
    reason = "PyTorch sees no CUDA device here"
    if os.environ.get("MEDCAM_REQUIRE_CUDA") == "1":
        raise RuntimeError(f"MEDCAM_REQUIRE_CUDA=1, and {reason}")
    pytest.skip(reason, allow_module_level=True)

METHODS = ("gcam", "gcampp", "hirescam", "layercam", "gbp", "ggcam")
TOLERANCE = 1e-3
"""Of maps in [0, 1]: both devices compute in float32 and sum in orders of their own."""


@pytest.fixture(autouse=True)
def in_single_precision():
    """TF32 would round convolutions and products of matrices to 11 bits."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


class Segmenter(nn.Module):
    """A small network in 3D with a skip connection."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv3d(8, 16, 3, stride=2, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose3d(16, 8, 2, stride=2)
        self.last = nn.Sequential(nn.Conv3d(16, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv3d(8, 3, 1)

    def forward(self, x):
        x = self.first(x)
        return self.head(self.last(torch.cat([x, self.up(self.down(x))], 1)))


def networks():
    torch.manual_seed(0)
    return [
        (Net().eval(), torch.randn(3, 2, 15, 17), "second"),
        (Segmenter().eval(), torch.randn(2, 1, 12, 10, 8), "down.1"),
    ]


def maps_of(net, x, device, **options):
    injected = inject(net.to(device), **options)
    output = injected(x.to(device))
    maps = [(one.layer, one.target, one.values) for one in injected.attention_maps()]
    injected.eject()
    return output, maps


def alike(found, expected):
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    for (*_, one), (*_, other) in zip(found, expected):
        assert (one.cpu() - other.cpu()).abs().max() <= TOLERANCE


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("label", ["best", 1, (0, 1, "best")])
def test_maps_are_those_of_the_cpu_and_stay_there(method, label):
    for net, x, layer in networks():
        options = {"backend": method, "label": label}
        if method != "gbp":
            options["layer"] = layer
        _, expected = maps_of(net, x, "cpu", **options)
        output, found = maps_of(net, x, "cuda", **options)
        assert output.is_cuda
        assert all(values.is_cuda for *_, values in found)
        alike(found, expected)


def test_full_and_fused():
    for net, x, _ in networks():
        for options in ({"layer": "full"}, {"layer": "full", "fuse": "mean"}):
            alike(maps_of(net, x, "cuda", **options)[1], maps_of(net, x, "cpu", **options)[1])


def test_orders_in_memory_sizes_and_streams():
    for net, x, layer in networks():
        _, expected = maps_of(net, x, "cpu", layer=layer)
        injected = inject(net.cuda(), layer=layer)
        kind = torch.channels_last if x.ndim == 4 else torch.channels_last_3d

        def maps(batch, injected=injected):
            injected(batch)
            return [(one.layer, one.target, one.values) for one in injected.attention_maps()]

        there = x.cuda()
        alike(maps(there.contiguous(memory_format=kind)), expected)
        maps(torch.cat([there, there]))
        alike(maps(there), expected)
        streams = [torch.cuda.Stream() for _ in range(2)]
        found = []
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                found.append(maps(there))
        torch.cuda.synchronize()
        for one in found:
            alike(one, expected)
        injected.eject()


def test_half_precision_runs():
    for net, x, layer in networks():
        for dtype in (torch.float16, torch.bfloat16):
            _, found = maps_of(net.to(dtype), x.to(dtype), "cuda", layer=layer)
            for *_, values in found:
                assert values.dtype == torch.float32
                assert bool(torch.isfinite(values).all())


WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def waits(run):
    """How often the host waits for the device in a call, by PyTorch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        run()
    # The profiler itself waits once at its end.
    return sum(event.count for event in profile.key_averages() if event.key in WAITS)


@pytest.mark.parametrize("method", METHODS)
def test_a_forward_with_its_map_waits_once(method):
    net, x, layer = networks()[1]
    there = x.cuda()
    net = net.cuda()
    with torch.no_grad():
        net(there)
        bare = waits(lambda: net(there))
    options = {} if method == "gbp" else {"layer": layer}
    injected = inject(net, backend=method, **options)
    for _ in range(2):
        injected(there)
    assert waits(lambda: injected(there)) - bare <= 1
    injected.eject()


def test_ops_on_a_device_are_those_of_the_cpu():
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(2, 5, 4, 7, 9, generator=generator)
    g = torch.randn(2, 5, 4, 7, 9, generator=generator)
    for method in ("gradcam", "gradcam++", "hirescam", "layercam"):
        expected = medcam_rs.cam(a, g, method, size=(8, 9, 10))
        found = medcam_rs.cam(a.cuda(), g.cuda(), method, size=(8, 9, 10))
        assert found.is_cuda
        numpy.testing.assert_allclose(found.cpu(), expected, atol=1e-4)
