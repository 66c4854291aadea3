"""The maps of a target once their readback is fetched: whether they may be used, and what they warn of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from . import _warnings
from ._maps import AttentionMap, Finished, Made, Warned, judge, refuse_tiny
from ._readback import Slot
from ._targets import Named, Score


@dataclass(frozen=True)
class MadeTarget:
    """The maps of one target, which a device may still be making."""

    named: Named
    score: Score
    layers: Sequence[tuple[str, Made | Warned]]
    """By the layer's name, in order; what to warn of where it has no map."""
    signed: bool
    of_input: bool
    """Whether the maps are the input's, and no layer's."""
    tiny: Sequence[Slot] = ()
    """Of the guided gradient."""
    fused: Made | None = None
    """The maps of all layers as one."""

    def settled(self, warnings: list[Warned]) -> list[AttentionMap]:
        """The maps in the order of the layers; adds what they warn of."""
        self.score.check()
        warnings += _warnings.empty(self.named, self.score.empty())
        refuse_tiny(self.tiny)
        classes = self.score.known_classes()
        # Layers that return one tensor share their maps.
        finished: dict[int, Finished] = {}
        maps = []
        for label, made in self.layers:
            if isinstance(made, Warned):
                warnings.append(made)
                continue
            if id(made) not in finished:
                finished[id(made)] = self._finished(label, made)
            maps.append(finished[id(made)].named(label, self.named.label, classes, self.signed))
        if self.fused is not None:
            ranges = [(info.minimum, info.maximum) for info in self.fused.finished().infos]
            fused = replace(
                maps[0],
                layer="fused",
                values=self.fused.values.unsqueeze(1),
                ranges=ranges,
                weights_cancel=[all(of) for of in zip(*(one.weights_cancel for one in maps))],
                unstable_weights=[],
                zero_gradient=[],
            )
            warnings += [warned for one in maps for warned in judge(one, fused)]
            maps = [fused]
        warnings += [warned for one in maps for warned in judge(one)]
        return maps

    def _finished(self, label: str, made: Made) -> Finished:
        try:
            return made.finished()
        except InputError as error:
            if self.of_input:
                raise
            raise InputError(f"layer '{label}': {error}") from error
