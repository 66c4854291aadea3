"""What holds for all five libraries: undoing, versions, flags, applying twice."""

import importlib
import importlib.metadata
import inspect
import sys
import warnings

import pytest

import medcam_rs
from medcam_rs import DeviceError, InputError
from medcam_rs.accelerate import AlreadyAccelerated, UnknownVersion

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
from comparisons import IMPORTED, needed  # noqa: E402

MODULES = {
    "m3dcam": ("medcam.medcam", "medcam.medcam_inject"),
    "pytorch_grad_cam": ("pytorch_grad_cam",),
    "monai": ("monai.visualize", "monai.visualize.gradient_based"),
    "torchcam": ("torchcam.methods",),
    "captum": ("captum.attr",),
}
libraries = pytest.mark.parametrize(
    "library", [pytest.param(name, marks=needed(name)) for name in IMPORTED]
)


def snapshot(library):
    """Every attribute of every module and class of the library, the objects themselves."""
    for name in MODULES[library]:
        importlib.import_module(name)
    package = IMPORTED[library]
    held = {}
    for name, module in sorted(sys.modules.items()):
        if name != package and not name.startswith(package + "."):
            continue
        held[name] = dict(vars(module))
        for attribute, value in list(vars(module).items()):
            if inspect.isclass(value) and value.__module__.startswith(package):
                held[f"{name}.{attribute}"] = dict(vars(value))
    return held


def differences(before, after):
    assert before.keys() == after.keys()
    return {
        (owner, name)
        for owner in before
        for name in before[owner].keys() | after[owner].keys()
        if before[owner].get(name, None) is not after[owner].get(name, None)
        or (name in before[owner]) != (name in after[owner])
    }


def patched(library):
    return importlib.import_module(f"medcam_rs.accelerate._{library}").patches(frozenset())


@libraries
def test_undo_gives_every_attribute_its_own_object_back(library):
    before = snapshot(library)
    acceleration = medcam_rs.accelerate(library)
    replaced = {name for _, name in differences(before, snapshot(library))}
    acceleration.undo()
    assert not differences(before, snapshot(library))
    assert replaced == {name for _, name, _ in patched(library)}


@libraries
def test_undo_leaves_what_was_replaced_since(library):
    before = snapshot(library)
    acceleration = medcam_rs.accelerate(library)
    owner, name, original, _ = acceleration._originals[0]
    mine = lambda *_, **__: None  # noqa: E731
    setattr(owner, name, mine)
    with pytest.warns(RuntimeWarning, match=f"{name} was replaced"):
        acceleration.undo()
    assert vars(owner)[name] is mine
    setattr(owner, name, original)
    assert not differences(before, snapshot(library))


@libraries
def test_an_exception_within_the_block_undoes(library):
    before = snapshot(library)
    with pytest.raises(KeyError), medcam_rs.accelerate(library):
        assert differences(before, snapshot(library))
        raise KeyError
    assert not differences(before, snapshot(library))


@libraries
def test_undoing_twice_does_not_undo_a_later_acceleration(library):
    first = medcam_rs.accelerate(library)
    first.undo()
    with medcam_rs.accelerate(library):
        during = snapshot(library)
        first.undo()
        assert not differences(during, snapshot(library))


@libraries
def test_a_second_acceleration_is_refused_and_leaves_the_first(library):
    before = snapshot(library)
    with medcam_rs.accelerate(library):
        during = snapshot(library)
        with pytest.raises(AlreadyAccelerated, match=library):
            medcam_rs.accelerate(library)
        assert not differences(during, snapshot(library))
    assert not differences(before, snapshot(library))


@libraries
def test_an_unknown_version_is_refused_by_name(library, monkeypatch):
    before = snapshot(library)
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "99.1")
    with pytest.raises(UnknownVersion, match=r"99\.1 is installed") as refused:
        medcam_rs.accelerate(library)
    assert isinstance(refused.value, medcam_rs.MedcamError)
    known = importlib.import_module(f"medcam_rs.accelerate._{library}").VERSIONS
    assert all(version in str(refused.value) for version in known)
    assert not differences(before, snapshot(library))


@libraries
def test_the_installed_version_is_a_known_one(library):
    with medcam_rs.accelerate(library) as acceleration:
        module = importlib.import_module(f"medcam_rs.accelerate._{library}")
        assert acceleration.version == importlib.metadata.version(module.PACKAGE)
        assert library in repr(acceleration) and "in force" in repr(acceleration)


@libraries
def test_a_library_that_is_not_installed_is_an_import_error(library, monkeypatch):
    def absent(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(ImportError, match="which is not installed"):
        medcam_rs.accelerate(library)


@libraries
def test_unknown_fixes_and_flags_are_refused(library):
    before = snapshot(library)
    for flags, named in (
        ({"fix": ("everything",)}, "everything"),
        ({"fix": "everything"}, "everything"),
        ({"interpolation": "sinc"}, "interpolation='sinc'"),
        ({"speed": "fast"}, "speed='fast'"),
    ):
        with pytest.raises(medcam_rs.InputError, match=named):
            medcam_rs.accelerate(library, **flags)
    assert not differences(before, snapshot(library))


@libraries
def test_patches_that_fail_halfway_leave_nothing(library, monkeypatch):
    before = snapshot(library)
    module = importlib.import_module(f"medcam_rs.accelerate._{library}")
    real = module.patches

    def failing(fixes):
        yield from real(fixes)[:1]
        assert differences(before, snapshot(library))
        raise AttributeError("an internal has gone")

    monkeypatch.setattr(module, "patches", failing)
    with pytest.raises(AttributeError, match="an internal has gone"):
        medcam_rs.accelerate(library)
    assert not differences(before, snapshot(library))
    monkeypatch.undo()
    with medcam_rs.accelerate(library):
        pass


def test_a_device_that_fails_is_told_and_the_library_goes_on(monkeypatch):
    pytest.importorskip("captum")
    from captum.attr import LayerAttribution

    layer = torch.arange(4.0).view(1, 1, 2, 2)
    expected = LayerAttribution.interpolate(layer, (4, 4), "bilinear")
    for kind, warned in ((DeviceError, True), (InputError, False)):

        def fails(*_, kind=kind, **__):
            raise kind("no memory of the device is left")

        with medcam_rs.accelerate("captum"), warnings.catch_warnings(record=True) as caught:
            monkeypatch.setattr(medcam_rs, "resample", fails)
            found = LayerAttribution.interpolate(layer, (4, 4), "bilinear")
        assert found.equal(expected)
        assert [w.category for w in caught] == [RuntimeWarning] * warned, caught
        assert all("no memory of the device" in str(w.message) for w in caught)


@libraries
def test_what_was_absent_is_absent_again(library, monkeypatch):
    class Owner:
        pass

    module = importlib.import_module(f"medcam_rs.accelerate._{library}")
    monkeypatch.setattr(module, "patches", lambda fixes: [(Owner, "added", 1)])
    with medcam_rs.accelerate(library):
        assert Owner.added == 1
    assert "added" not in vars(Owner)


def test_an_unknown_library_is_refused_by_name():
    with pytest.raises(medcam_rs.InputError, match="gradcam_torch.*m3dcam"):
        medcam_rs.accelerate("gradcam_torch")
