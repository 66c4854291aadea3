"""Models that return several tensors: one network, and every way of handing its outputs back."""

from collections import OrderedDict
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import nn
from torch.nn import functional as F


class Heads(nn.Module):
    """A small segmentation network with three outputs: the full-size one after a softmax, a coarse one
    for deep supervision, and one score per class for the whole image."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.deep = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.up = nn.Conv2d(8, 6, 3, padding=1)
        self.main = nn.Conv2d(6, 3, 3, padding=1)
        self.coarse = nn.Conv2d(8, 3, 1)
        self.image = nn.Linear(8, 4)

    def parts(self, x) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        stem = F.relu(self.stem(x))
        deep = F.relu(self.deep(stem))
        up = F.interpolate(self.up(deep), size=stem.shape[2:], mode="bilinear", align_corners=False)
        return self.main(up + stem), self.coarse(deep), self.image(deep.mean(dim=(2, 3)))

    @torch.jit.unused
    def head(self, x, name, score):
        """What a head gives before ("logits") or after ("output") its softmax, where it has one."""
        output = self.parts(x)[("main", "coarse", "image").index(name)]
        return torch.softmax(output, 1) if name == "main" and score == "output" else output


class TupleOf(Heads):
    def forward(self, x) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        main, coarse, image = self.parts(x)
        return torch.softmax(main, 1), coarse, image


class ListOf(Heads):
    """Deep supervision in nnU-Net's manner: appended from coarse to fine, then turned round."""

    def forward(self, x) -> List[torch.Tensor]:
        main, coarse, image = self.parts(x)
        outputs = []
        outputs.append(image)
        outputs.append(coarse)
        outputs.append(torch.softmax(main, 1))
        return outputs[::-1]


class DictOf(Heads):
    """torchvision's manner."""

    def forward(self, x) -> Dict[str, torch.Tensor]:
        main, coarse, image = self.parts(x)
        outputs = OrderedDict()
        outputs["out"] = torch.softmax(main, 1)
        outputs["aux"] = coarse
        outputs["image"] = image
        return outputs


class Named(NamedTuple):
    out: torch.Tensor
    aux: torch.Tensor
    image: torch.Tensor


class NamedOf(Heads):
    def forward(self, x) -> Named:
        main, coarse, image = self.parts(x)
        return Named(torch.softmax(main, 1), coarse, image)


class Nested(Heads):
    """What comes first is no tensor, and what comes last is under a key."""

    def forward(
        self, x
    ) -> Tuple[Optional[torch.Tensor], List[List[torch.Tensor]], Dict[str, torch.Tensor]]:
        main, coarse, image = self.parts(x)
        return None, [[torch.softmax(main, 1)], [coarse]], {"image": image}


class Loop(Heads):
    """How long the list gets is only known when the model runs."""

    def forward(self, x) -> List[torch.Tensor]:
        main, coarse, image = self.parts(x)
        outputs = [torch.softmax(main, 1)]
        for _ in range(x.shape[0] // x.shape[0]):
            outputs.append(coarse)
        outputs.append(image)
        return outputs


class Branch(Heads):
    """Which output comes first is only known when the model runs."""

    def forward(self, x) -> List[torch.Tensor]:
        main, coarse, image = self.parts(x)
        main = torch.softmax(main, 1)
        if bool(x.sum() > 1e9):
            return [image, coarse, main]
        return [main, coarse, image]


# Class; how it is exported; the names of main, coarse and image, by which they can be chosen; whether the
# graph tells which value is which, so that the score is taken before the softmax.
MODELS = (
    (TupleOf, ("traced", "scripted"), ("0", "1", "2"), True),
    (ListOf, ("traced", "scripted"), ("0", "1", "2"), True),
    (DictOf, ("traced", "scripted"), ("out", "aux", "image"), True),
    (NamedOf, ("scripted",), ("out", "aux", "image"), True),
    (Nested, ("scripted",), ("1.0.0", "1.1.0", "2.image"), True),
    (Loop, ("scripted",), ("0", "1", "2"), False),
    (Branch, ("scripted",), ("0", "1", "2"), False),
)
LAYERS = ("stem", "deep")
