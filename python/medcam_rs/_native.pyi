"""The compiled half; `medcam_rs` checks what it hands on."""

from pathlib import Path
from typing import Any

VERSION: str

_Infos = list[tuple[float, float, bool]]

def cuda_devices() -> list[str]: ...
def cam(
    activation: Any,
    gradient: Any,
    out: Any,
    method_name: str,
    denominator_name: str,
    normalized: bool,
    stream: int,
    summary: bool,
) -> _Infos | None: ...
def guided_cam(
    activation: Any,
    gradient: Any,
    guided: Any,
    out: Any,
    method_name: str,
    denominator_name: str,
    normalized: bool,
    stream: int,
    summary: bool,
) -> _Infos | None: ...
def summarized_cam(
    activation: Any,
    gradient: Any,
    guided: Any | None,
    out: Any,
    summaries: Any,
    method_name: str,
    denominator_name: str,
    stream: int,
) -> Reader: ...
def channel_weights(gradient: Any, out: Any, stream: int) -> None: ...
def alpha_weights(
    activation: Any, gradient: Any, out: Any, denominator_name: str, stream: int
) -> None: ...
def sum(weights: Any | None, activation: Any, out: Any, rectified: bool, stream: int) -> None: ...
def elementwise(activation: Any, gradient: Any, out: Any, method_name: str, stream: int) -> None: ...
def resample(map: Any, out: Any, interpolation: str, normalized: bool, stream: int) -> None: ...
def normalize(map: Any, stream: int) -> None: ...
def guided_product(map: Any, guided: Any, out: Any, normalized: bool, stream: int) -> None: ...
def guided_activation(input: Any, gradient: Any, out: Any, stream: int) -> None: ...
def score(map: Any, mask: Any, metrics: list[str], threshold: str) -> list[list[float]]: ...
def toml_of(json: str) -> str: ...
def check_card(text: str, axes: int, channels: int) -> None: ...
def prepare_folder(folder: str) -> None: ...
def save_maps(
    folder: str, layer: str, target: str | None, values: Any, name: str, affine: Any
) -> list[Path]: ...
def save_overlays(
    folder: str,
    layer: str,
    target: str | None,
    values: Any,
    name: str,
    images: Any,
    classes: list[int | None],
    signed: bool,
    method: str,
    affine: Any,
) -> list[Path]: ...
def components(mask: Any) -> bytearray: ...

class Reader:
    def __init__(self) -> None: ...
    def read(self, words: list[int]) -> tuple[_Infos, list[bool]]: ...

class Archive:
    def __init__(self, path: str) -> None: ...
    def add(self, name: str, layer: str, target: str, values: Any) -> None: ...
    def finish(self) -> Path | None: ...

class Evaluator:
    def __init__(
        self, metrics: list[tuple[str, Any]], threshold: str, masks: str
    ) -> None: ...
    def add(
        self,
        name: str,
        layer: str,
        target: str,
        values: Any,
        mask: Any,
        classes: list[int | None],
    ) -> tuple[list[tuple[int, str, list[float]]], list[tuple[str, str, int | None]]]: ...
    def __len__(self) -> int: ...
    def truncate(self, count: int) -> None: ...
    def dump(self, folder: str, layer_order: list[str]) -> list[Path]: ...
