"""A module of PyTorch as the TorchScript file that the `medcam` program takes."""

from __future__ import annotations

import copy
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._card import card_text
from ._compare import Gap, Mismatch, difference, leaves
from .errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_WAYS = {
    "script": "by torch.jit.script",
    "trace": "by torch.jit.trace",
    "export": "by torch.export, then torch.jit.trace",
}


@dataclass(frozen=True)
class Exported:
    """What `export` wrote, and what was lost on the way; `print` it."""

    path: Path
    #: "script", "trace", or "export" (`torch.export`, then a trace).
    way: str
    #: The layers that the file runs under a name of `named_modules()`.
    names: tuple[str, ...]
    #: Layers that ran in the module, and that the file does not know by any name.
    lost_names: tuple[str, ...]
    #: Layers with more than one name in the module that the file knows by another than the first.
    renamed: Mapping[str, str]
    #: Greatest |output of the file - output of the module|, over all outputs of both inputs.
    difference: float
    #: What else is to be known, a sentence each.
    notes: tuple[str, ...]
    #: The model card that was written beside the file.
    card: Path | None = None

    def __str__(self) -> str:
        total = len(self.names) + len(self.lost_names)
        same = "equal" if self.difference == 0 else f"within {self.difference:.2g} of"
        lines = [
            f"{self.path}: {_WAYS[self.way]}",
            f"  output: {same} {'to ' if self.difference == 0 else ''}the module's, on two inputs",
            f"  layers: {len(self.names)} of {total} have their names",
        ]
        if self.lost_names:
            lines.append(f"  lost: {_listed(self.lost_names)}")
        pairs = [f"{old} is {new}" for old, new in self._outermost()]
        if pairs:
            lines.append(f"  under another name: {_listed(pairs)}")
        if self.card:
            lines.append(f"  card: {self.card}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def _outermost(self) -> list[tuple[str, str]]:
        """Of the layers under another name those whose name does not follow from their parent's."""

        def follows(old: str, new: str) -> bool:
            while "." in old and old.rpartition(".")[2] == new.rpartition(".")[2]:
                old, new = old.rpartition(".")[0], new.rpartition(".")[0]
                if self.renamed.get(old) == new:
                    return True
            return False

        return [pair for pair in self.renamed.items() if not follows(*pair)]


def export(
    module: nn.Module,
    example: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str] = "model.pt",
    *,
    card: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    second: Tensor | Sequence[Tensor] | None = None,
    check: float = 1e-5,
) -> Exported:
    """Writes a module as the TorchScript file that `medcam map MODEL.pt ...` takes.

    Tried are `torch.jit.script`, `torch.jit.trace` and `torch.export` with a trace of its graph. Each
    file is loaded again and must give the module's own output, in evaluation mode on the CPU, on
    `example` and on `second`. Taken is the one that loses the fewest names of layers; of those the
    one whose output is nearest; of those the first.

    - `example`: an input as the program gives it, (B, C, H, W) or (B, C, D, H, W), alone or in a
      tuple of one. Its values should be those of an image.
    - `second`: another one, that takes the other branches of the network if it has any. By default
      normal deviates with the spread of the example and its mean negated, two samples of them (one
      where the example has two), if the module takes that many.
    - `card`: what the model expects of its input (docs/model-card.md), as a dict or the path of a TOML
      or JSON file; written beside the model, where the program looks for it.
    - `check`: the greatest difference of an output that is let pass, as a part of the greatest
      magnitude in the module's; 0 asks for equal outputs.

    The module stays as it is. Files are replaced only once all is well, and whole. Warns of nothing:
    what is to be known is in the result.

    Raises `InputError` where no way gives such a file, with the reason for each; where the module
    takes more than one tensor or returns none; and where the card is none.
    """
    import torch

    first = _one_tensor(example, "example")
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"path: the folder {path.parent} is not there; make it first")
    if card is not None and path.suffix == ".toml":
        raise InputError(f"path: {path.name} is where the card goes; call the model MODEL.pt")
    text = None if card is None else card_text(card, first.shape)
    given = None if second is None else _one_tensor(second, "second")
    if not check >= 0:
        raise InputError(f"check: expected a number from 0 on, got {check!r}")
    with _still(torch):
        source = _Source.of(torch, module, first, given, check)
        best = source.best()
        notes = [*source.notes, *best.notes, *source.size_notes(best)]
    written = path.with_suffix(".toml")
    if text is None:
        if written.is_file():
            notes.append(f"the program will read {written}, which was there before, as its card.")
        _write({path: best.data})
    else:
        _write({path: best.data, written: text.encode()})
    return Exported(
        path=path,
        way=best.way,
        names=best.names,
        lost_names=best.lost,
        renamed=best.renamed,
        difference=best.difference,
        notes=tuple(notes),
        card=written if text is not None else None,
    )


@dataclass(frozen=True)
class _Reference:
    """What the module gives for an input."""

    input: Tensor
    outputs: list[tuple[str, Any]]


@dataclass(frozen=True)
class _Candidate:
    """A file that gives the module's output."""

    way: str
    data: bytes
    names: tuple[str, ...]
    lost: tuple[str, ...]
    renamed: dict[str, str]
    difference: float
    notes: list[str]


@dataclass
class _Source:
    """The module that is exported, as its copies run on the CPU in evaluation mode."""

    torch: Any
    module: nn.Module
    check: float
    notes: list[str] = field(default_factory=list)
    references: list[_Reference] = field(default_factory=list)
    # The names of each module that runs, the first one first, in the order of running.
    ran: list[list[str]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    # Whether a file was refused that gives the output for one size of batch.
    bound_to_batch: bool = False

    @classmethod
    def of(
        cls, torch: Any, module: nn.Module, first: Tensor, second: Tensor | None, check: float
    ) -> _Source:
        source = cls(torch, module, check)
        source.unwrap()
        if module.training or any(part.training for part in module.modules()):
            source.notes.append(
                "the module was in training mode, wholly or in part; the file is in evaluation mode."
            )
        source.run_first(first)
        source.run_second(second)
        source.leave_hooks_out()
        source.look_at_outputs()
        return source

    def unwrap(self) -> None:
        torch, wrapper = self.torch, None
        parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
        while True:
            if isinstance(self.module, parallel):
                wrapper, self.module = self.module, self.module.module
            elif hasattr(self.module, "_orig_mod"):
                wrapper, self.module = self.module, self.module._orig_mod
            else:
                break
            self.notes.append(
                f"what {type(wrapper).__name__} wraps was exported; names are those inside it."
            )
        if isinstance(self.module, torch.jit.ScriptModule):
            raise InputError(
                "module: it is TorchScript already; `module.eval().save(path)` writes it"
            )

    def copy(self, hooks: bool = True) -> nn.Module:
        """A copy on the CPU in evaluation mode, with the state that the module was given in."""
        torch = self.torch
        # Tensors that a hook computes, as weight_norm's, are no leaves, and deepcopy refuses those.
        computed = {
            id(value): value.detach().clone()
            for part in self.module.modules()
            for value in vars(part).values()
            if isinstance(value, torch.Tensor) and not value.is_leaf
        }
        try:
            made = copy.deepcopy(self.module, computed).cpu().eval()
        except Exception as error:
            raise InputError(f"module: it cannot be copied: {_reason(error)}") from error
        if not hooks:
            for part in made.modules():
                part._forward_hooks.clear()
                part._forward_pre_hooks.clear()
        return made

    def outputs(self, module: Any, x: Tensor) -> list[tuple[str, Any]]:
        return leaves(module(x.clone()))

    def run_first(self, x: Tensor) -> None:
        """Runs the example; notes which modules run."""
        module = self.copy()
        names: dict[Any, list[str]] = {}
        for name, part in module.named_modules(remove_duplicate=False):
            names.setdefault(part, []).append(name)
        seen: dict[Any, None] = {}
        handles = [
            part.register_forward_hook(lambda part, _x, _y: seen.setdefault(part))
            for part in names
            if part is not module
        ]
        try:
            outputs = self.outputs(module, x)
        except Exception as error:
            missing = isinstance(error, TypeError) and "missing" in str(error)
            hint = (
                ". The program gives one tensor: wrap the module in one that sets the others, and "
                "export that"
            )
            raise InputError(
                f"module: it does not run on the example, {tuple(x.shape)}, on the CPU: "
                f"{_reason(error)}{hint if missing else ''}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        if not any(isinstance(value, self.torch.Tensor) for _, value in outputs):
            raise InputError(
                f"module: its output has no tensor in it (tuples, lists and dicts were looked "
                f"through): {_listed([type(value).__name__ for _, value in outputs])}"
            )
        self.ran = [names[part] for part in seen]
        self.references.append(_Reference(x, outputs))

    def run_second(self, given: Tensor | None) -> None:
        example = self.references[0].input
        drawn = given is None
        x = _drawn(self.torch, example) if given is None else given
        try:
            outputs = self.outputs(self.copy(), x)
        except Exception as error:
            if not drawn:
                raise InputError(
                    f"second: the module does not run on it, {tuple(x.shape)}: {_reason(error)}"
                ) from error
            self.notes.append(
                f"the module takes no batch of {len(x)} ({_reason(error)}); the file was checked "
                f"with batches of {len(example)}."
            )
            x = _drawn(self.torch, example, len(example))
            try:
                outputs = self.outputs(self.copy(), x)
            except Exception as error:
                raise InputError(
                    f"second: the module does not run on values drawn like the example's: "
                    f"{_reason(error)}; give an input that it takes"
                ) from error
        self.references.append(_Reference(x, outputs))
        tensors = [value for _, value in outputs if isinstance(value, self.torch.Tensor)]
        if not all(self.torch.isfinite(value).all() for value in tensors):
            hint = ", whose values were drawn; give `second`" if drawn else ""
            self.notes.append(f"the module's output is not finite on the second input{hint}.")

    def leave_hooks_out(self) -> None:
        """Goes on without forward hooks where they change nothing, as those that only look on."""
        parts = list(self.module.modules())
        if not any(part._forward_hooks or part._forward_pre_hooks for part in parts):
            return
        try:
            module = self.copy(hooks=False)
            same = all(
                difference(r.outputs, self.outputs(module, r.input)).greatest == 0
                for r in self.references
            )
        except Exception:  # without its hooks the module need not run at all
            same = False
        if same:
            self.module = self.copy(hooks=False)
            self.notes.append("the forward hooks change no output and were left out.")
        else:
            self.notes.append("the forward hooks change the output; what they do is in the file.")

    def look_at_outputs(self) -> None:
        torch = self.torch
        tensors = [(n, v) for n, v in self.references[0].outputs if isinstance(v, torch.Tensor)]
        if len(tensors) > 1:
            names = _listed([name for name, _ in tensors])
            self.notes.append(
                f"the module returns {len(tensors)} tensors ({names}); the program explains the "
                "first, or another with --explain-output."
            )
        for reference in self.references:
            output = next(v for _, v in reference.outputs if isinstance(v, torch.Tensor))
            batch = len(reference.input)
            if output.dim() == 0 or len(output) != batch:
                self.notes.append(
                    f"the output is {tuple(output.shape)} for a batch of {batch}: its first axis is "
                    "not the batch, which the program refuses, or reads as the scores of one sample."
                )
                break

    def best(self) -> _Candidate:
        """The file that loses least; `torch.export`, which loses all names, only if it must be."""
        found: list[_Candidate] = []
        for way, compile_ in (("script", self.script), ("trace", self.trace), ("export", self.export)):
            if way == "export" and found:
                break
            candidate = self.candidate(way, compile_)
            if candidate is not None:
                found.append(candidate)
                if not candidate.lost and candidate.difference == 0:
                    break
        if not found:
            reasons = "; ".join(f"{_WAYS[way]}: {why}" for way, why in self.refusals.items())
            raise InputError(f"module: no file gives its output. {reasons}{self.advice()}")
        best = min(found, key=lambda candidate: (len(candidate.lost), candidate.difference))
        for other in found:
            if other is best:
                continue
            why = f"the output would be off by {other.difference:.2g}"
            if other.lost:
                why = f"{len(other.lost)} names would be lost, as {other.lost[0]}"
            self.refusals[other.way] = why
        self.notes += [f"not {_WAYS[way]}: {why}." for way, why in self.refusals.items()]
        return best

    def advice(self) -> str:
        first = self.references[0]
        again = self.outputs(self.copy(), first.input)
        if difference(first.outputs, again).greatest > 0:
            return (
                ". The module gives another output each time it runs in evaluation mode, as with "
                "F.dropout(x) without training=self.training, so that no file can be checked"
            )
        if self.bound_to_batch:
            batch = len(first.input)
            return (
                f". If a file for batches of {batch} will do, give another input of {batch} as `second`"
            )
        return ""

    def candidate(self, way: str, compile_: Callable[[], Any]) -> _Candidate | None:
        """The file made in one way, if it gives the module's output; else the reason is kept."""
        torch = self.torch
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                compiled = compile_()
            buffer = io.BytesIO()
            torch.jit.save(compiled, buffer)
            data = buffer.getvalue()
            del compiled, buffer
            loaded = _load(torch, data)
            _takes_one_tensor(torch, loaded)
            called = set(_called(loaded._c))
            worst = 0.0
            notes = []
            for reference in self.references:
                gap = self.gap(data, reference)
                worst = max(worst, gap.greatest)
                if gap.names and not notes:
                    notes.append(f"the file calls its outputs {_listed(gap.names)}.")
        except Exception as error:  # a compiler may raise anything, and so may the module's code
            self.refusals[way] = _reason(error)
            return None
        if way != "script":
            notes += _tracer_notes(torch, caught)
        known = [[name for name in names if name in called] for names in self.ran]
        pairs = list(zip(self.ran, known))
        return _Candidate(
            way=way,
            data=data,
            names=tuple(kept[0] for _, kept in pairs if kept),
            lost=tuple(names[0] for names, kept in pairs if not kept),
            renamed={names[0]: kept[0] for names, kept in pairs if kept and kept[0] != names[0]},
            difference=worst,
            notes=notes,
        )

    def gap(self, data: bytes, reference: _Reference) -> Gap:
        """How far the file is off, if it is no farther than `check`."""
        try:
            gap = difference(
                reference.outputs, self.outputs(_load(self.torch, data), reference.input)
            )
        except Exception:
            self.bound_to_batch |= len(reference.input) != len(self.references[0].input)
            raise
        if gap.relative > self.check:
            raise Mismatch(
                f"its output is off by {gap.greatest:.2g} for an input of "
                f"{tuple(reference.input.shape)}, {gap.relative:.2g} of the greatest value"
            )
        return gap

    def script(self) -> Any:
        return self.torch.jit.script(self.copy())

    def trace(self) -> Any:
        # Not strict: lists and dicts come back. Not checked: that is done here, on another input.
        example = self.references[0].input.clone()
        return self.torch.jit.trace(self.copy(), example, strict=False, check_trace=False)

    def export(self) -> Any:
        torch = self.torch
        # An extent of 1 would be taken for one that always is: the larger batch.
        x = max((reference.input for reference in self.references), key=len).clone()
        shapes = {axis: torch.export.Dim.AUTO for axis in range(x.dim()) if x.shape[axis] > 1}
        with _quiet():
            program = torch.export.export(self.copy(), (x,), dynamic_shapes=(shapes,), strict=False)
        module = program.module()
        for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.sym_size.int):
            # Tracing follows the sizes that tensors tell, and takes those of an operator as constants.
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.call_method("size", node.args))
            module.graph.erase_node(node)
        module.recompile()
        return torch.jit.trace(module, x, strict=False, check_trace=False)

    def size_notes(self, best: _Candidate) -> list[str]:
        """Whether a trace takes another size than the example's, where the module does."""
        if best.way == "script":
            return []
        example = self.references[0].input
        axis = max(range(2, example.dim()), key=lambda axis: example.shape[axis])
        x = example.narrow(axis, 0, max(1, example.shape[axis] // 2))
        try:
            expected = self.outputs(self.copy(), x)
        except Exception:  # the module itself does not take this size
            return []
        try:
            fits = difference(expected, self.outputs(_load(self.torch, best.data), x)).relative
        except Exception:
            fits = float("inf")
        if fits <= self.check:
            return []
        size = "x".join(str(extent) for extent in example.shape[2:])
        return [f"the file holds for inputs of {size} alone; for another size export another."]


def _one_tensor(example: Any, name: str) -> Tensor:
    """The one input of a network of images, on the CPU."""
    import torch

    if isinstance(example, (tuple, list)):
        if len(example) != 1:
            raise InputError(
                f"{name}: {len(example)} inputs, and the program gives one tensor. Wrap the module in "
                "one that sets the others, and export that"
            )
        example = example[0]
    if not isinstance(example, torch.Tensor):
        raise InputError(f"{name}: expected a tensor, got {type(example).__name__}")
    if not example.is_floating_point():
        raise InputError(f"{name}: {example.dtype}, and the program gives floating-point images")
    if example.dim() not in (4, 5) or example.numel() == 0:
        raise InputError(
            f"{name}: expected (B, C, H, W) or (B, C, D, H, W), got {tuple(example.shape)}"
        )
    return example.detach().cpu()


def _drawn(torch: Any, example: Tensor, batch: int | None = None) -> Tensor:
    """Normal deviates with the example's spread and its mean negated, so that tests of the sign of
    a sum go the other way."""
    shape = (batch or (1 if len(example) == 2 else 2), *example.shape[1:])
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = example.double().mean()
    spread = (example.double() - mean).square().mean().sqrt()
    return (drawn * (spread if spread > 0 else 1) - drawn.mean() - mean).to(example.dtype)


@contextmanager
def _still(torch: Any) -> Iterator[None]:
    """No gradients, no autocast, random numbers as before, and no fast path of attention, which has
    no derivative; without PyTorch's warning that TorchScript is deprecated."""
    attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(attention)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what `torch.export` prints and logs of a module that it cannot export."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    finally:
        logging.disable(before)


def _load(torch: Any, data: bytes) -> Any:
    return torch.jit.load(io.BytesIO(data), map_location="cpu").eval()


def _takes_one_tensor(torch: Any, loaded: Any) -> None:
    """As the program asks: a tensor first, and a default for each other input."""
    arguments = loaded.forward.schema.arguments[1:]
    if not torch._C.TensorType.get().isSubtypeOf(arguments[0].type):
        raise InputError(f"forward takes {arguments[0].type} as its input, not a tensor")
    needed = [argument.name for argument in arguments if not argument.has_default_value()]
    if needed[1:]:
        raise InputError(f"forward takes {len(needed)} inputs ({', '.join(needed)})")


def _called(module: Any, name: str = "", method: str = "forward") -> Iterator[str]:
    """The names under which the file's forward calls modules: those that the program gives layers."""
    for call in module._get_method(method).graph.findAllNodes("prim::CallMethod"):
        path: list[str] = []
        owner = call.inputsAt(0).node()
        while owner.kind() == "prim::GetAttr":
            path.insert(0, owner.s("name"))
            owner = owner.inputsAt(0).node()
        callee = module
        for attribute in path:
            callee = callee.getattr(attribute)
        called = ".".join([name, *path]).lstrip(".")
        # Tracing calls the second run of a module "forward1".
        if path and call.s("name").rstrip("0123456789") == "forward":
            yield called
        yield from _called(callee, called, call.s("name"))


def _tracer_notes(torch: Any, caught: list[warnings.WarningMessage]) -> list[str]:
    """Where Python computed with sizes or values while tracing, but for PyTorch's own checks of them."""
    own = str(Path(torch.__file__).parent)
    found = [w for w in caught if issubclass(w.category, torch.jit.TracerWarning)]
    places = dict.fromkeys(
        f"{Path(w.filename).name}:{w.lineno}" for w in found if not w.filename.startswith(own)
    )
    if not places:
        return []
    return [
        "what Python computed from sizes or values while tracing is fixed in the file, at "
        f"{_listed(list(places))}; the second input did not show a difference."
    ]


def _reason(error: BaseException) -> str:
    """The first line of a message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The interpreter of TorchScript shows the place first, and says what is wrong last.
    failed = bool(lines) and lines[0].startswith("The following operation failed")
    text = lines[-1 if failed else 0] if lines else ""
    text = text if len(text) <= 200 else text[:197] + "..."
    kind = "" if isinstance(error, (Mismatch, InputError, RuntimeError)) else type(error).__name__
    return ": ".join(part for part in (kind, text.rstrip(".:")) if part) or type(error).__name__


def _listed(names: Sequence[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _write(files: Mapping[Path, bytes]) -> None:
    """All files are there, whole, before the first takes its place."""
    files = {path.resolve(): data for path, data in files.items()}  # a link stays one
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, data in files.items():
            temporary[path].write_bytes(data)
        for path, written in temporary.items():
            os.replace(written, path)
    except OSError as error:
        raise InputError(f"path: cannot write {path}: {error}") from error
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)
