"""What injecting changes of a module, and what it leaves as it was."""

import copy
import gc
import io
import pickle
import threading
import warnings

import numpy
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from small import Net, made
from torch import nn

from medcam_rs.errors import DtypeError, InputError
from medcam_rs.injection import AttentionWarning, inject


def state(net):
    parameters = {name: (id(p), p.requires_grad, p.grad) for name, p in net.named_parameters()}
    own = {name: dict(module.__dict__) for name, module in net.named_modules()}
    hooks = {name: list(m._forward_hooks) for name, m in net.named_modules()}
    return parameters, own, hooks


def test_ejected_it_is_what_it_was_object_by_object():
    net, x = made()
    before = state(net)
    entries = dict(net.__dict__)
    keys = list(net.state_dict())
    assert inject(net, layer="second") is net and isinstance(net, Net)
    net(x)
    assert list(net.state_dict()) == keys
    assert all(p.grad is None for p in net.parameters())
    net.eject()
    assert state(net) == before
    assert all(net.__dict__[name] is entry for name, entry in entries.items())
    loss = net.train()(x).square().sum()
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["first.0", "drop"])
def test_what_a_layer_raises_leaves_no_trace(error, where):
    net, x = made()

    def fail(module, args):
        raise error("stop")

    inject(net, layer="second")(x)
    before = state(net)
    handle = net.get_submodule(where).register_forward_pre_hook(fail)
    with pytest.raises(error, match="stop"):
        net(x)
    handle.remove()
    assert state(net) == before and torch.is_grad_enabled()
    assert net.attention_maps() == []
    net(x)
    assert len(net.attention_maps()) == 1
    with torch.no_grad():
        net(x)
        assert not torch.is_grad_enabled()


def test_outputs_are_the_modules_own_in_every_grad_mode():
    net, x = made()
    with torch.no_grad():
        plain = net(x)
    inject(net, layer="second")
    net(x)
    expected = net.attention_maps()[0].values
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            output = net(x.clone())
            assert torch.equal(output, plain) and not output.requires_grad
            assert torch.equal(net.attention_maps()[0].values, expected)
    leaf = x.clone().requires_grad_()
    net(leaf)
    assert leaf.grad is None and torch.equal(net.attention_maps()[0].values, expected)


def test_arguments_go_to_the_network_and_ours_do_not():
    net, x = made()
    plain = net(x, scale=2.0).detach()
    inject(net, layer="second")
    assert torch.equal(net(x, scale=2.0, label=1, name="one"), plain)
    assert net.attention_maps()[0].classes == [1, 1]
    assert torch.equal(net(x=x, scale=2.0), plain)
    with pytest.raises(TypeError, match="unknown"):
        net(x, unknown=1)
    with pytest.raises(InputError, match="evaluate=True"):
        net(x, mask=torch.ones(2, 1, 15, 17))


def test_under_autocast_the_output_is_that_of_autocast():
    net, x = made()
    inject(net, layer=["first", "second"])
    with torch.autocast("cpu", torch.bfloat16):
        output = net(x)
        maps = net.attention_maps()
        net.disable_medcam()
        with torch.no_grad():
            plain = net(x)
    assert output.dtype == torch.bfloat16 and torch.equal(output, plain)
    assert all(one.values.dtype == torch.float32 for one in maps)
    assert all(float(one.values.max()) == 1 for one in maps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_numbers(dtype):
    net, x = made()
    inject(net, layer="second", label=1)(x)
    single = net.attention_maps()[0].values
    net.to(dtype)
    assert net(x.to(dtype)).dtype == dtype
    error = float((net.attention_maps()[0].values - single).abs().max())
    assert error < (1e-5 if dtype == torch.float64 else 0.2)


def test_in_training_mode_it_warns_and_the_output_is_of_that_mode():
    net, x = made()
    twin = copy.deepcopy(net).train()
    inject(net.train(), layer="second")
    with pytest.warns(AttentionWarning, match="TRAINING_MODE.*1 Dropout"):
        net(x)
    net.eject()
    net.load_state_dict(twin.state_dict())
    inject(net, layer="second").test_run(x)
    twin.load_state_dict(net.state_dict())
    torch.manual_seed(5)
    plain = twin(x)
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(net(x), plain)
    assert [warned.code for warned in net.warnings()] == ["TRAINING_MODE"]
    assert torch.equal(net.first[1].running_mean, twin.first[1].running_mean)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "save"])
def test_a_copy_is_injected_by_itself(way):
    net, x = made()
    inject(net, layer="second")
    output = net(x)
    if way == "deepcopy":
        other = copy.deepcopy(net)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(net))
    else:
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert other.attention_maps() == []
    with torch.no_grad():
        other.head.bias += 1
    assert torch.allclose(other(x), output + 1) and torch.equal(net(x), output)
    assert torch.equal(other.attention_maps()[0].values, net.attention_maps()[0].values)
    other.eject()
    assert "forward" in net.__dict__ and "forward" not in other.__dict__


def test_threads_take_turns():
    net, _ = made()
    batches = [torch.randn(1, 2, 15, 17) for _ in range(4)]
    with torch.no_grad():
        plain = [net(x) for x in batches]
    inject(net, layer="second")
    outputs = [None] * len(batches)

    def run(i):
        for _ in range(10):
            outputs[i] = net(batches[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(outputs, plain))
    assert all(p.requires_grad for p in net.parameters())


def test_one_that_calls_itself_is_plain_within():
    class Twice(Net):
        def forward(self, x, depth=0):
            return super().forward(x) + (self(x.flip(3), 1) if depth == 0 else 0)

    torch.manual_seed(0)
    net, x = Twice().eval(), torch.randn(1, 2, 15, 17)
    plain = net(x).detach()
    inject(net, layer=["second#1", "second#2"])
    assert torch.equal(net(x), plain) and len(net.attention_maps()) == 2


def test_a_wrapped_network_runs_within():
    net, x = made()
    plain = net(x).detach()
    wrapped = inject(nn.DataParallel(net), layer="second")
    assert torch.equal(wrapped(x), plain) and len(wrapped.attention_maps()) == 1
    wrapped.eject()
    assert "forward" not in wrapped.__dict__ and "forward" not in net.__dict__


def test_a_distributed_network_runs_within_and_trains_afterwards(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("PyTorch was built without torch.distributed")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        net, x = made()
        wrapped = nn.parallel.DistributedDataParallel(net)
        plain = wrapped(x).detach()
        inject(wrapped, layer="second")
        assert torch.equal(wrapped(x), plain) and len(wrapped.attention_maps()) == 1
        assert all(p.grad is None for p in net.parameters())
        wrapped.eject()
        wrapped.train()(x).sum().backward()
        assert all(p.grad is not None for p in net.parameters())
    finally:
        torch.distributed.destroy_process_group()


def test_disabled_it_is_the_plain_module():
    net, x = made()
    inject(net, layer="second", enabled=False)
    output = net(x)
    assert output.requires_grad and net.attention_maps() == []
    net.enable_medcam()
    assert not net(x).requires_grad and len(net.attention_maps()) == 1
    net.disable_medcam()
    net(x).sum().backward()
    assert net.head.weight.grad is not None


def test_the_map_replaces_the_output_or_comes_with_it():
    net, x = made()
    plain = net(x).detach()
    inject(net, layer="second", replace=True)
    assert torch.equal(net(x), net.attention_maps()[0].values)
    net.replace_output(False)
    assert torch.equal(net(x), plain)
    assert net.get_attention_map().shape == (2, 1, 15, 17)
    net.eject()
    inject(net, layer="second", return_attention=True)
    output, attention = net(x)
    assert torch.equal(output, plain) and attention.shape == (2, 1, 15, 17)
    net.eject()
    inject(net, layer=["first", "second"], replace=True)
    with pytest.raises(InputError, match="made 2: first/best, second/best"):
        net(x)


def test_sizes():
    net, x = made()
    inject(net, layer="second")
    for size, expected in (("default", (15, 17)), (None, (7, 8)), ((5, 6), (5, 6))):
        net.set_data_shape(size)
        net(x)
        assert net.attention_maps()[0].values.shape[2:] == expected
    net.set_data_shape((3, 4, 5))
    with pytest.raises(InputError, match="2 whole numbers"):
        net(x)


def test_fused_maps():
    net, x = made()
    inject(net, layer=["first", "second"], label=1)(x)
    first, second = (one.values for one in net.attention_maps())
    net.eject()
    for how, both in (("mean", (first + second) / 2), ("max", torch.maximum(first, second))):
        inject(net, layer=["first", "second"], label=1, fuse=how)(x)
        (one,) = net.attention_maps()
        net.eject()
        low, high = both.amin((2, 3), keepdim=True), both.amax((2, 3), keepdim=True)
        assert one.layer == "fused"
        assert torch.allclose(one.values, (both - low) / (high - low), atol=1e-6)


def test_what_does_not_fit_is_refused_in_words():
    net, x = made()
    for error, match, options in (
        (InputError, "backend.*gcampp", {"backend": "grad"}),
        (InputError, "save_archive", {"save_pickle": True}),
        (InputError, "output_dir", {"save_maps": True}),
        (InputError, "evaluate", {"save_scores": True, "output_dir": "x"}),
        (InputError, "fuse", {"fuse": "sum"}),
        (InputError, "layer", {"layer": []}),
        (InputError, "label", {"label": True}),
        (InputError, "data_shape", {"data_shape": 3}),
        (InputError, "data_shape", {"data_shape": (float("inf"), 4)}),
        (InputError, "layer", {"layer": 3.5}),
        (InputError, "output: -1", {"output": -1}),
        (InputError, "backend", {"backend": numpy.zeros(2)}),
        (DtypeError, "output_dir", {"output_dir": 3}),
        (DtypeError, "save_archive", {"save_archive": 3}),
        (DtypeError, "metrics: None", {"evaluate": True, "metric": None}),
    ):
        with pytest.raises(error, match=match):
            inject(net, **options)
        assert "forward" not in net.__dict__
    with pytest.raises(DtypeError, match="Module"):
        inject(lambda x: x)
    inject(net, layer="second")
    with pytest.raises(InputError, match="eject"):
        inject(net)
    for error, match, call in (
        (InputError, "2 of 1020 values", lambda: net(with_bad(x))),
        (InputError, "class 7 is out of range", lambda: net(x, label=7)),
        (InputError, "1 classes for a batch of 2", lambda: net(x, label=[1])),
        (InputError, "4 axes|\\(B, C, H, W\\)", lambda: net(x[0])),
        (DtypeError, "mask\\(y\\)|\\* y", lambda: net(x, label=lambda y: y > 0)),
    ):
        with pytest.raises(error, match=match):
            call()


def with_bad(x):
    x = x.clone()
    x[0, 0, 0, 0], x[1, 1, 1, 1] = float("nan"), float("inf")
    return x


def test_a_method_of_the_models_own_stays():
    net, x = made()
    net.scores = lambda: "own"
    with pytest.warns(AttentionWarning, match="scores"):
        inject(net, layer="second")
    net(x)
    assert net.scores() == "own" and net.forward.scores() == []
    net.eject()
    assert net.scores() == "own"


def test_nothing_is_left_after_a_call():
    net, x = made()
    inject(net, layer=["first", "second"], backend="ggcam")

    def tensors():
        gc.collect()
        return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())

    for _ in range(3):
        net(x)
    before = tensors()
    for _ in range(5):
        net(x)
    assert tensors() == before
