"""The files that a module can be made into, each held against the module."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._compare import Gap, Mismatch, difference, leaves
from ._torchscript import called, listed, load, quiet, reason, takes_one_tensor, tracer_notes
from .errors import DtypeError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

WAYS = {
    "script": "by torch.jit.script",
    "trace": "by torch.jit.trace",
    "export": "by torch.export, then torch.jit.trace",
}


@dataclass(frozen=True)
class Reference:
    """What the module gives for an input."""

    input: Tensor
    outputs: list[tuple[str, Any]]


@dataclass(frozen=True)
class Candidate:
    """A file that gives the module's output."""

    way: str
    data: bytes
    names: tuple[str, ...]
    lost: tuple[str, ...]
    renamed: dict[str, str]
    difference: float
    notes: list[str]


@dataclass
class Source:
    """The module that is exported, as its copies run on the CPU in evaluation mode."""

    torch: Any
    module: nn.Module
    check: float
    notes: list[str] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    # The names of each module that runs, the first one first, in the order of running.
    ran: list[list[str]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    # Whether a file was refused that gives the output for one size of batch.
    bound_to_batch: bool = False

    @classmethod
    def of(
        cls, torch: Any, module: nn.Module, first: Tensor, second: Tensor | None, check: float
    ) -> Source:
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
        if not isinstance(self.module, torch.nn.Module):
            kind = type(self.module).__name__
            raise DtypeError(f"module: a {kind}; it takes a torch.nn.Module")
        for name, part in self.module.named_modules():
            # By its name: this does not import what only injected modules need.
            if type(vars(part).get("forward")).__name__ == "Injection":
                whose = f"its submodule '{name}'" if name else "it"
                raise InputError(f"module: {whose} is injected; call its eject() first")
        for name, parameter in self.module.named_parameters():
            if torch.nn.parameter.is_lazy(parameter):
                raise InputError(
                    f"module: parameter '{name}' has no shape yet (a lazy module): run the module once "
                    "before"
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
            raise InputError(f"module: it cannot be copied: {reason(error)}") from error
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
                f"{reason(error)}{hint if missing else ''}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        if not any(isinstance(value, self.torch.Tensor) for _, value in outputs):
            raise InputError(
                f"module: its output has no tensor in it (tuples, lists and dicts were looked "
                f"through): {listed([type(value).__name__ for _, value in outputs])}"
            )
        self.ran = [names[part] for part in seen]
        self.references.append(Reference(x, outputs))

    def run_second(self, given: Tensor | None) -> None:
        example = self.references[0].input
        drawn = given is None
        x = _drawn(self.torch, example) if given is None else given
        try:
            outputs = self.outputs(self.copy(), x)
        except Exception as error:
            if not drawn:
                raise InputError(
                    f"second: the module does not run on it, {tuple(x.shape)}: {reason(error)}"
                ) from error
            self.notes.append(
                f"the module takes no batch of {len(x)} ({reason(error)}); the file was checked "
                f"with batches of {len(example)}."
            )
            x = _drawn(self.torch, example, len(example))
            try:
                outputs = self.outputs(self.copy(), x)
            except Exception as error:
                raise InputError(
                    f"second: the module does not run on values drawn like the example's: "
                    f"{reason(error)}; give an input that it takes"
                ) from error
        self.references.append(Reference(x, outputs))
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
            same = all(
                difference(r.outputs, self.outputs(self.copy(hooks=False), r.input)).greatest == 0
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
            names = listed([name for name, _ in tensors])
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

    def best(self) -> Candidate:
        """The file that loses least; `torch.export`, which loses all names, only if it must be."""
        found: list[Candidate] = []
        for way, compile_ in (("script", self.script), ("trace", self.trace), ("export", self.export)):
            if way == "export" and found:
                break
            candidate = self.candidate(way, compile_)
            if candidate is not None:
                found.append(candidate)
                if not candidate.lost and candidate.difference == 0:
                    break
        if not found:
            reasons = "; ".join(f"{WAYS[way]}: {why}" for way, why in self.refusals.items())
            raise InputError(f"module: no file gives its output. {reasons}{self.advice()}")
        best = min(found, key=lambda candidate: (len(candidate.lost), candidate.difference))
        for other in found:
            if other is best:
                continue
            why = f"the output would be off by {other.difference:.2g}"
            if other.lost:
                why = f"{len(other.lost)} names would be lost, as {other.lost[0]}"
            self.refusals[other.way] = why
        self.notes += [f"not {WAYS[way]}: {why}." for way, why in self.refusals.items()]
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

    def candidate(self, way: str, compile_: Callable[[], Any]) -> Candidate | None:
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
            loaded = load(torch, data)
            takes_one_tensor(torch, loaded)
            in_file = set(called(loaded._c))
            worst = 0.0
            notes = []
            for reference in self.references:
                gap = self.gap(data, reference)
                worst = max(worst, gap.greatest)
                if gap.names and not notes:
                    notes.append(f"the file calls its outputs {listed(gap.names)}.")
        except Exception as error:  # a compiler may raise anything, and so may the module's code
            self.refusals[way] = reason(error)
            return None
        if way != "script":
            notes += tracer_notes(torch, caught)
        if way == "export":
            notes.append(
                "the layers are operations of a graph, as conv2d.1; `medcam layers` lists them."
            )
        known = [[name for name in names if name in in_file] for names in self.ran]
        pairs = list(zip(self.ran, known))
        return Candidate(
            way=way,
            data=data,
            names=tuple(kept[0] for _, kept in pairs if kept),
            lost=tuple(names[0] for names, kept in pairs if not kept),
            renamed={names[0]: kept[0] for names, kept in pairs if kept and kept[0] != names[0]},
            difference=worst,
            notes=notes,
        )

    def gap(self, data: bytes, reference: Reference) -> Gap:
        """How far the file is off, if it is no farther than `check`."""
        try:
            gap = difference(
                reference.outputs, self.outputs(load(self.torch, data), reference.input)
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
        with quiet():
            program = torch.export.export(self.copy(), (x,), dynamic_shapes=(shapes,), strict=False)
        module = program.module()
        for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.sym_size.int):
            # Tracing follows the sizes that tensors tell, and takes those of an operator as constants.
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.call_method("size", node.args))
            module.graph.erase_node(node)
        module.recompile()
        return torch.jit.trace(module, x, strict=False, check_trace=False)

    def size_notes(self, best: Candidate) -> list[str]:
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
            fits = difference(expected, self.outputs(load(self.torch, best.data), x)).relative
        except Exception:
            fits = float("inf")
        if fits <= self.check:
            return []
        size = "x".join(str(extent) for extent in example.shape[2:])
        return [f"the file holds for inputs of {size} alone; for another size export another."]


def _drawn(torch: Any, example: Tensor, batch: int | None = None) -> Tensor:
    """Normal deviates with the example's spread and its mean negated, so that tests of the sign of
    a sum go the other way."""
    shape = (batch or (1 if len(example) == 2 else 2), *example.shape[1:])
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = example.double().mean()
    spread = (example.double() - mean).square().mean().sqrt()
    return (drawn * (spread if spread > 0 else 1) - drawn.mean() - mean).to(example.dtype)
