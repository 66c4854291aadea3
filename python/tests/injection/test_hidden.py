"""Modules that cannot be injected, and the spared backward of those that can."""

import contextlib

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from small import Net, made
from torch import nn

import medcam_rs
from medcam_rs.errors import DtypeError, InputError
from medcam_rs.injection import _skips, inject


def hidden(kind):
    net, x = made()
    if kind == "traced":
        return torch.jit.trace(net, x), "TorchScript"
    if kind == "compiled":
        return torch.compile(net), "_orig_mod"
    if kind == "compiled inside":
        net.first.compile()
        return net, "submodule 'first'.*compiled"
    if kind == "wrapped":
        return nn.DataParallel(torch.compile(net)), "_orig_mod"
    if kind == "lazy":
        return nn.Sequential(nn.LazyConv2d(3, 3)), "lazy"
    program = torch.export.export(net, (x,))
    return (program if kind == "program" else program.module()), "unflatten"


@pytest.mark.parametrize(
    "kind", ["traced", "compiled", "compiled inside", "wrapped", "lazy", "program", "exported"]
)
def test_what_hides_its_layers_is_refused_before_anything_changes(kind, tmp_path):
    model, match = hidden(kind)
    before = dict(model.__dict__)
    with pytest.raises((InputError, DtypeError), match=match):
        inject(model, tmp_path / "made", save_maps=True)
    after = model.__dict__
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert not (tmp_path / "made").exists()


def test_a_layer_of_windows_is_told_at_the_batch_that_shows_it():
    class Folded(Net):
        def forward(self, x):
            if len(x) > 1:
                x = torch.cat([x, x.flip(3)])
            x = torch.relu(self.second(self.first(x)))
            y = self.head(x.mean((2, 3)))
            return y.unflatten(0, (2, -1)).mean(0) if len(y) > 1 else y

    torch.manual_seed(0)
    net, x = Folded().eval(), torch.randn(2, 2, 15, 17)
    inject(net, layer="second")
    net(x[:1])
    assert len(net.attention_maps()) == 1
    with pytest.raises(InputError, match="'second'.*4 along its first axis for a batch of 2"):
        net(x)
    assert net.attention_maps() == []


class Skipped(nn.Module):
    """A level of a U-Net."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, padding=1)
        self.deep = nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.Conv2d(10, 3, 3, padding=1)

    def forward(self, x):
        skip = self.down(x).relu()
        return self.up(torch.cat([self.deep(skip).relu(), skip], 1))


@pytest.mark.skipif(
    not _skips.is_available(), reason="this PyTorch has not what the spared backward stands on"
)
def test_the_backward_is_spared_where_there_is_something_to_spare(monkeypatch):
    entered = []

    class Counted(_skips.needed_parts_only):
        def __enter__(self):
            entered.append(self)
            return super().__enter__()

    monkeypatch.setattr(_skips, "needed_parts_only", Counted)
    torch.manual_seed(0)
    net, x = Skipped().eval(), torch.randn(2, 2, 12, 10)
    with torch.no_grad():
        plain = net(x)
    inject(net, layer="deep", label=1)
    for _ in range(3):
        assert torch.equal(net(x), plain)
    spared = net.attention_maps()[0].values
    assert [mode.replaced for mode in entered] == [1, 1, 1]
    entered.clear()
    monkeypatch.setattr(_skips, "is_available", lambda: False)
    assert torch.equal(net(x), plain) and not entered
    assert torch.allclose(net.attention_maps()[0].values, spared, atol=1e-5)
    monkeypatch.undo()
    monkeypatch.setattr(_skips, "needed_parts_only", Counted)
    other, x = made()
    inject(other, layer="second")
    for size in (15, 15, 13, 13, 15):
        other(x[..., :size])
    # Once for each shape.
    assert [mode.replaced for mode in entered] == [0, 0]


@pytest.mark.skipif(
    not _skips.is_available(), reason="this PyTorch has not what the spared backward stands on"
)
def test_a_pytorch_without_the_private_functions_is_told(monkeypatch):
    assert _skips.is_available()
    _skips.is_available.cache_clear()
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    try:
        assert not _skips.is_available()
    finally:
        _skips.is_available.cache_clear()


def test_parameters_of_inference_mode_are_refused():
    with torch.inference_mode():
        net = Skipped()
    with pytest.raises(InputError, match="inference_mode"):
        inject(net, layer="deep")
    assert "forward" not in vars(net)


class GoesOnWithTheInput(nn.Module):
    """What a layer returns is its input, with which the network goes on."""

    def __init__(self, layer, use):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.layer, self.use = layer, use
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.first(x)
        y = self.layer(x)
        return self.head(self.use(self, x, y).mean((2, 3)))


def written(net, x, y):
    x += 1
    return net.second(y).tanh()


def shortcut(net, x, y):
    return net.second(y) * x


@pytest.mark.parametrize("use", (written, shortcut))
@pytest.mark.parametrize("layer", (nn.Dropout(0.1), nn.ReLU(inplace=True), nn.Identity()))
def test_a_layer_that_returns_its_input(layer, use):
    torch.manual_seed(0)
    net, x = GoesOnWithTheInput(layer, use).eval(), torch.randn(2, 1, 8, 9)
    before = net.first(x).detach()
    plain = net(x).detach()
    # The truth: the tensor that the layer returns, as an input of the rest.
    a = layer(before.clone()).requires_grad_()
    # A second name of one tensor, as the network has it.
    one = a * 1
    score = net.head(use(net, one, one).mean((2, 3)))[:, 1].sum()
    (gradient,) = torch.autograd.grad(score, [a])
    expected = medcam_rs.cam(a.detach(), gradient, "hirescam")
    net = inject(net, layer="layer", label=1, backend="hirescam")
    assert torch.equal(net(x), plain)
    assert torch.allclose(net.attention_maps()[-1].values[:, 0], expected, atol=1e-5)


class GoesOnBehind(GoesOnWithTheInput):
    """Two layers, of which the second returns its input, with which the network goes on."""

    def forward(self, x):
        x = self.first(x)
        # What sigmoid keeps for its gradient stays valid, and may not be written to.
        x = x.sigmoid() if self.use is shortcut and not isinstance(self.layer, nn.ReLU) else 2 * x
        return self.head(self.use(self, x, self.layer(x)).mean((2, 3)))


@pytest.mark.parametrize("use", (written, shortcut))
@pytest.mark.parametrize("layer", (nn.Dropout(0.1), nn.ReLU(inplace=True), nn.Identity()))
def test_a_layer_that_returns_its_input_behind_another(layer, use):
    torch.manual_seed(0)
    net, x = GoesOnBehind(layer, use).eval(), torch.randn(2, 1, 8, 9)
    with torch.no_grad():
        plain = net(x)
    inject(net, layer="layer", label=1, backend="hirescam")(x)
    alone = net.attention_maps()[0].values
    net.eject()
    inject(net, layer=["first", "layer"], label=1, backend="hirescam")
    if use is written and isinstance(layer, nn.ReLU):
        with pytest.raises(InputError, match="writes over a value that the gradient needs"):
            net(x)
        return
    assert torch.equal(net(x), plain)
    assert torch.allclose(net.attention_maps()[1].values, alone, atol=1e-5)


@pytest.mark.parametrize("layer", ("layer", ["first", "layer"]))
def test_a_view_that_a_layer_returns_and_the_network_writes_to(layer):
    class Views(GoesOnBehind):
        def forward(self, x):
            x = self.first(x).flatten(2).unflatten(2, x.shape[2:])
            return self.head(self.use(self, x, self.layer(x)).mean((2, 3)))

    net, x = Views(nn.Dropout(0.1), written).eval(), torch.randn(2, 1, 8, 9)
    inject(net, layer=layer, label=1)
    with pytest.raises(InputError, match="'layer'.*writes to later on"):
        net(x)


class Switches(Skipped):
    """Gradients are switched on or off around the layers `down` and `deep`."""

    def forward(self, x):
        with self.switch():
            skip = self.down(x).relu()
            deep = self.deep(skip) if self.all else None
        deep = deep if self.all else self.deep(skip)
        return self.up(torch.cat([deep.relu(), skip], 1))


@pytest.mark.parametrize("switch", (torch.enable_grad, torch.no_grad))
@pytest.mark.parametrize(("both", "layer"), ((True, "deep"), (False, ["down", "deep"])))
def test_a_switch_of_gradients_around_a_layer_does_not_end_the_tape(switch, both, layer):
    torch.manual_seed(0)
    net, x = Switches().eval(), torch.randn(2, 2, 12, 10)
    net.all, net.switch = both, contextlib.nullcontext
    inject(net, layer=layer, label=1)
    with torch.no_grad():
        plain = net(x)
    expected = net.attention_maps()
    net.switch = switch
    runs = []
    net.down.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(2):
        assert torch.equal(net(x), plain)
        for one, other in zip(net.attention_maps(), expected):
            assert torch.allclose(one.values, other.values, atol=1e-5)
    # Once more where it was first seen.
    assert len(runs) == 3


class LooksOnce(nn.Module):
    """A layer whose output never reaches the score."""

    def __init__(self):
        super().__init__()
        self.coarse = nn.Conv2d(1, 2, 3, padding=1)
        self.fine = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))

    def forward(self, x):
        with torch.no_grad():
            region = self.coarse(x).argmax(1, keepdim=True).float()
        return self.fine(torch.cat([x, region], 1))


@pytest.mark.parametrize("layer", ("auto", "full", "fine.1"))
def test_a_layer_whose_output_never_reaches_the_score_is_none(layer):
    net, x = LooksOnce().eval(), torch.rand(2, 1, 8, 8)
    plain = net(x).detach()
    inject(net, layer=layer, label=1)
    assert torch.equal(net(x), plain)
    assert "coarse" not in [one.layer for one in net.attention_maps()]
    net.eject()
    inject(net, layer="coarse", label=1)
    with pytest.raises(InputError, match="coarse"):
        net(x)


def test_a_module_within_an_injected_one_is_refused():
    net = Skipped().eval()
    inject(net, layer="deep")
    outer = nn.Sequential(net)
    with pytest.raises(InputError, match="submodule '0' is injected"):
        inject(outer, layer="0.deep")
    net.eject()
    inject(outer, layer="0.deep").eject()


def test_buffers_that_are_not_dense():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    net.register_buffer("sparse", torch.eye(3).to_sparse())
    net.register_buffer("meta", torch.empty(2, device="meta"))
    net.eval()
    x = torch.rand(2, 1, 8, 9)
    plain = net(x).detach()
    assert torch.equal(inject(net, layer="1", label=1)(x), plain)
    assert net.attention_maps()
