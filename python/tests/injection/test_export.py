"""Modules as the files of the program: which way is taken, what is lost, and that the output is the module's."""

import json
import os
import warnings

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

from export_files import IMAGE, build, drawn, gives, loaded
from torch import nn
from torch.nn import functional as F

from medcam_rs._export import export
from medcam_rs.errors import InputError


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(6, 3)

    def features(self, x):
        return self.relu(self.norm(self.conv(x)))

    def scores(self, y):
        return self.linear(y.mean((2, 3)))

    def forward(self, x):
        return self.scores(self.features(x))


class Branch(Base):
    """Another network for a dark image than for a bright one."""

    def forward(self, x):
        y = self.features(x)
        if x.sum() > 0:
            y = y * 2
        return self.scores(y)


class UncompiledBranch(Branch):
    def forward(self, x, **unused):
        return super().forward(x)


class Formatted(Base):
    """Has what torch.jit.script does not compile."""

    def forward(self, x, **unused):
        assert x.dim() == 4, f"{x.shape=}"
        return self.scores(self.features(x))


class BakedBatch(Base):
    """The batch as a number of Python's: tracing makes a constant of it."""

    def forward(self, x):
        y = self.features(x)
        return self.linear(y.view(int(x.shape[0]), 6, -1).mean(2))


class UncompiledBakedBatch(BakedBatch):
    def forward(self, x, **unused):
        y = self.features(x)
        return self.linear(y.view(int(x.shape[0]), 6, -1).mean(2))


class BakedSize(Base):
    def forward(self, x, **unused):
        side = int(x.shape[2])
        return self.scores(self.features(x)[:, :, side // 2 - 4 :] * side)


class Inplace(Base):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x.mul_(2)
        return self.scores(self.features(x).add_(1))


class Shared(Base):
    """One module under two names, and run twice."""

    def __init__(self):
        super().__init__()
        self.again = nn.Module()
        self.again.inner = self.relu

    def forward(self, x, **unused):
        return self.scores(self.again.inner(self.norm(self.again.inner(self.conv(x)))))


class Counting(Base):
    """Has a state that a forward changes, and a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))
        self.register_buffer("scale", torch.tensor(3.0))

    def forward(self, x):
        self.runs += 1
        return self.scores(self.features(x)) * self.runs * self.scale


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(x)
        return gradient * gate * (1 + x * (1 - gate))


class OwnFunction(Base):
    """An autograd function, which no TorchScript file can hold."""

    def forward(self, x):
        return self.scores(Swish.apply(self.features(x)))


class Random(Base):
    def forward(self, x):
        return self.scores(F.dropout(self.features(x)))


class Several(Base):
    def forward(self, x, **unused):
        y = self.features(x)
        return {"out": self.scores(y), "aux": self.scores(y + 1)}


class OneSample(Base):
    def forward(self, x):
        assert x.shape[0] == 1
        return self.scores(self.features(x))


class TwoInputs(Base):
    def forward(self, x, y):
        return self.scores(self.features(x + y))


class Text(Base):
    def forward(self, x):
        return "no tensor"


@pytest.mark.parametrize(
    ("make", "way"),
    [
        (Base, "script"),
        (Branch, "script"),
        (BakedBatch, "script"),
        (Inplace, "script"),
        (Formatted, "trace"),
        (Shared, "trace"),
        (Several, "trace"),
    ],
)
def test_the_way_that_is_taken(tmp_path, make, way):
    module = build(make)
    done = export(module, drawn(*IMAGE), tmp_path / "m.pt")
    assert (done.way, done.lost_names, done.difference) == (way, (), 0)
    bright, dark = drawn(3, 1, 16, 16) + 1, drawn(3, 1, 16, 16) - 1
    assert gives(done.path, module, bright, dark, bright[:1])
    if way == "trace":
        assert any(note.startswith("not by torch.jit.script") for note in done.notes)


def test_a_state_that_a_run_changes_is_written_as_it_was(tmp_path):
    module = build(Counting)
    done = export(module, drawn(*IMAGE), tmp_path / "m.pt")
    file = loaded(done.path)
    assert module.runs == 0 and file.runs == 0 and file.scale == 3
    assert gives(done.path, module, drawn(*IMAGE))


def test_a_function_of_autograd_goes_by_torch_export_and_loses_the_names(tmp_path):
    module = build(OwnFunction)
    done = export(module, drawn(*IMAGE), tmp_path / "m.pt")
    assert done.way == "export"
    assert done.names == () and set(done.lost_names) == {"conv", "norm", "relu", "linear"}
    assert gives(done.path, module, drawn(3, 1, 16, 16), drawn(1, 1, 24, 20))
    assert "lost: conv, norm, relu, linear" in str(done)
    assert any("operations" in note for note in done.notes)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (UncompiledBranch, r"by torch\.jit\.trace: its output is off by"),
        (UncompiledBakedBatch, r"module's \(2, 3\).*If a file for batches of 1 will do"),
        (Random, "another output each time it runs"),
        (TwoInputs, "missing 1 required positional argument.*Wrap|wrap the module"),
        (Text, "no tensor in it"),
    ],
)
def test_refused_modules_leave_no_file(tmp_path, make, said):
    old = tmp_path / "m.pt"
    old.write_bytes(b"old")
    with pytest.raises(InputError, match=said):
        export(build(make), drawn(*IMAGE), old, card={"name": "new"})
    assert old.read_bytes() == b"old" and os.listdir(tmp_path) == ["m.pt"]


def test_nothing_is_printed_where_torch_export_fails(tmp_path, capfd):
    with pytest.raises(InputError):
        export(build(UncompiledBranch), drawn(*IMAGE), tmp_path / "m.pt")
    assert capfd.readouterr() == ("", "")


def test_a_second_input_of_ones_own_decides(tmp_path):
    module = build(UncompiledBakedBatch)
    done = export(module, drawn(*IMAGE), tmp_path / "m.pt", second=drawn(*IMAGE, seed=1))
    assert done.way == "trace" and gives(done.path, module, drawn(*IMAGE, seed=2))
    assert any("test_export.py:" in note and "fixed in the file" in note for note in done.notes)
    # Both are bright: the branch for dark images is not seen, and said to be fixed.
    bright = drawn(*IMAGE).abs()
    done = export(build(UncompiledBranch), bright, tmp_path / "m.pt", second=(2 * bright,))
    assert any("fixed in the file" in note for note in done.notes)


def test_notes(tmp_path):
    path = tmp_path / "m.pt"
    one = export(build(OneSample), drawn(*IMAGE), path)
    assert any("takes no batch of 2" in note for note in one.notes)
    size = export(build(BakedSize), drawn(*IMAGE), path)
    assert any("16x16 alone" in note for note in size.notes)
    flat = export(build(lambda: nn.Sequential(Base(), nn.Flatten(0))), drawn(*IMAGE), path)
    assert any("its first axis is not the batch" in note for note in flat.notes)
    assert export(build(Base), drawn(*IMAGE), path).notes == ()


def test_an_output_within_the_tolerance_is_told(tmp_path):
    class Off(Base):
        def forward(self, x, **unused):
            return self.scores(self.features(x)) * (1 + 1e-6 * torch.jit.is_tracing())

    done = export(build(Off), drawn(*IMAGE), tmp_path / "m.pt")
    assert 0 < done.difference < 1e-5 and "within" in str(done)
    # The graph of torch.export is made without tracing, and gives equal outputs.
    done = export(build(Off), drawn(*IMAGE), tmp_path / "m.pt", check=0)
    assert (done.way, done.difference) == ("export", 0)


def test_the_module_stays_as_it_is(tmp_path):
    module = build(Counting).train()
    module.norm.eval()
    module.conv.weight.requires_grad_(False)
    module(drawn(*IMAGE)).sum().backward()
    seen = []
    module.relu.register_forward_hook(lambda _m, _x, _y: seen.append(1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    torch.manual_seed(3)
    state, example = torch.get_rng_state(), drawn(*IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        warnings.simplefilter("error", FutureWarning)
        done = export(module, example, tmp_path / "m.pt")
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(example, drawn(*IMAGE))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    for parameter, gradient in zip(module.parameters(), gradients):
        same = parameter.grad is gradient is None or torch.equal(parameter.grad, gradient)
        assert same and parameter.requires_grad == (parameter is not module.conv.weight)
    assert len(module.relu._forward_hooks) == 1
    assert torch.backends.mha.get_fastpath_enabled()
    assert done.way == "script"
    assert any("evaluation mode" in note for note in done.notes)
    assert any("hooks change no output" in note for note in done.notes)


def test_hooks_that_change_the_output_are_in_the_file(tmp_path):
    module = build(Base)
    module.conv.register_forward_hook(lambda _m, _x, y: y + 1)
    done = export(module, drawn(*IMAGE), tmp_path / "m.pt")
    assert gives(done.path, module, drawn(2, 1, 16, 16))
    assert any("hooks change the output" in note for note in done.notes)


def test_weights_that_are_computed(tmp_path):
    module = build(Base)
    module.conv = nn.utils.parametrizations.weight_norm(module.conv)
    done = export(module, drawn(*IMAGE), tmp_path / "new.pt")
    assert done.difference == 0 and gives(done.path, module, drawn(2, 1, 16, 16))
    old = build(Base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        old.conv = nn.utils.weight_norm(old.conv)
    example = drawn(*IMAGE)
    expected = old(example).detach()
    done = export(old, example, tmp_path / "old.pt")
    assert torch.equal(loaded(done.path)(example), expected)


def test_wrappers_are_taken_off(tmp_path):
    done = export(nn.DataParallel(build(Base)), drawn(*IMAGE), tmp_path / "m.pt")
    assert set(done.names) == {"conv", "norm", "relu", "linear"}
    assert any("DataParallel" in note for note in done.notes)
    with pytest.raises(InputError, match="TorchScript already"):
        export(loaded(done.path), drawn(*IMAGE), tmp_path / "again.pt")


def test_paths(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not there"):
        export(build(Base), drawn(*IMAGE), tmp_path / "none" / "m.pt")
    monkeypatch.chdir(tmp_path)
    done = export(build(Base), (drawn(*IMAGE),))
    assert str(done).startswith("model.pt: by torch.jit.script") and os.listdir() == ["model.pt"]
    os.symlink("model.pt", "link.pt")
    export(build(Branch), drawn(*IMAGE), "link.pt")
    assert os.path.islink("link.pt") and gives("model.pt", build(Branch), drawn(*IMAGE) + 1)


CARD = {
    "name": 'brain "b"',
    "classes": ["background", "brain", "other"],
    "input": {"orientation": "LPS", "axes": "zyx", "spacing_mm": [1, 0.75], "nan": "zero"},
    "intensity": [
        {"clip_percentiles": [0.5, 99.5]},
        {"z_score": "nonzero"},
        {"affine": {"multiply": [0.5], "add": -1}},
    ],
}


def test_a_card_is_written_beside(tmp_path):
    tomllib = pytest.importorskip("tomllib", reason="TOML is read from Python 3.11 on")
    done = export(build(Base), drawn(*IMAGE), tmp_path / "m.pt", card=CARD)
    assert done.card == tmp_path / "m.toml"
    assert tomllib.loads(done.card.read_text()) == CARD
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    again = export(build(Base), drawn(*IMAGE), tmp_path / "n.pt", card=tmp_path / "card.json")
    assert again.card.read_text() == done.card.read_text()
    (tmp_path / "own.toml").write_text("# kept\n" + done.card.read_text())
    taken = export(build(Base), drawn(*IMAGE), tmp_path / "o.pt", card=tmp_path / "own.toml")
    assert taken.card.read_text().startswith("# kept\n")
    without = export(build(Base), drawn(*IMAGE), tmp_path / "o.pt")
    assert without.card is None and any("o.toml" in note for note in without.notes)
