"""What `export` asks of PyTorch and of TorchScript files."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from ._compare import Mismatch
from .errors import InputError


@contextmanager
def still(torch: Any) -> Iterator[None]:
    """No gradients, no autocast, random numbers as before, and no fast path of attention, which has
    no derivative; without PyTorch's warning that TorchScript is deprecated."""
    attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            # As the program runs a file; passes that pay only after many runs take long.
            torch.jit.optimized_execution(False),
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
        ):
            # PyTorch 2.15 has another category than 2.11.
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", r"`torch\.jit\.", category)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(attention)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what `torch.export` prints and logs of a module that it cannot export."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    finally:
        logging.disable(before)


def load(torch: Any, data: bytes) -> Any:
    return torch.jit.load(io.BytesIO(data), map_location="cpu").eval()


def takes_one_tensor(torch: Any, loaded: Any) -> None:
    """As the program asks: a tensor first, and a default for each other input."""
    arguments = loaded.forward.schema.arguments[1:]
    if not torch._C.TensorType.get().isSubtypeOf(arguments[0].type):
        raise InputError(f"forward takes {arguments[0].type} as its input, not a tensor")
    needed = [argument.name for argument in arguments if not argument.has_default_value()]
    if needed[1:]:
        raise InputError(f"forward takes {len(needed)} inputs ({', '.join(needed)})")


def called(module: Any, name: str = "", method: str = "forward") -> Iterator[str]:
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
        full = ".".join([name, *path]).lstrip(".")
        # Tracing calls the second run of a module "forward1".
        if path and call.s("name").rstrip("0123456789") == "forward":
            yield full
        yield from called(callee, full, call.s("name"))


def tracer_notes(torch: Any, caught: list[warnings.WarningMessage]) -> list[str]:
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
        f"{listed(list(places))}; the second input did not show a difference."
    ]


def reason(error: BaseException) -> str:
    """The first line of a message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The interpreter of TorchScript shows the place first, and says what is wrong last.
    failed = bool(lines) and lines[0].startswith("The following operation failed")
    text = lines[-1 if failed else 0] if lines else ""
    text = text if len(text) <= 200 else text[:197] + "..."
    kind = "" if isinstance(error, (Mismatch, InputError, RuntimeError)) else type(error).__name__
    return ": ".join(part for part in (kind, text.rstrip(".:")) if part) or type(error).__name__


def listed(names: Sequence[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
