"""The different layers of a network, each once with the number of times that it occurs, and its sums of two streams."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import unknown
from common.files import read_json, write_json
from projects.fp16_cnn.shape import LayerShape

if TYPE_CHECKING:
    from torch import nn

    from projects.fp16_cnn.program import Program

FILE = "networks.json"
SIDE = 224
PARTS = {"all": ("conv", "depthwise", "dense"), "dense": ("dense",)}
LITE = "tf_efficientnet_lite"  # of timm, as torchvision has none
BATCHED = re.compile(r"(.+)_x([1-9]\d*)")


@dataclass(frozen=True)
class Cell:
    """A layer as it is timed.

    Attributes:
        activation: fused.
        residual: a second input is added.
        count: layers of the network that are alike.
    """

    shape: LayerShape
    activation: str
    residual: bool
    count: int

    @property
    def label(self) -> str:
        """As tables name it: 64>256 56x56 k1 s1 add relu."""
        words = [str(self.shape), "add" if self.residual else "", self.activation]
        return " ".join(word for word in words if word not in ("", "none"))


def split(name: str) -> tuple[str, int]:
    """Architecture and batch of a timed network: resnet50_x8 is ResNet-50 on eight images at once, resnet50 on one."""
    found = BATCHED.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 1)


def library(name: str) -> str:
    """The package that has an architecture."""
    return "timm" if name.startswith(LITE) else "torchvision"


def architecture(name: str, seed: int = 0) -> nn.Module:
    """A torchvision architecture, or an EfficientNet-Lite of timm, random and in evaluation mode.

    Raises:
        BadInputError: there is no such network.
    """
    if library(name) == "torchvision":
        return torchvision_model(name, seed)
    import timm
    import torch

    names = timm.list_models(f"{LITE}*")
    if name not in names:
        raise unknown("network", name, names)
    torch.manual_seed(seed)
    return timm.create_model(name).eval()


def torchvision_model(name: str, seed: int = 0) -> nn.Module:
    """A torchvision architecture with its random initialisation, in evaluation mode.

    Raises:
        BadInputError: torchvision has no such classification model.
    """
    import torch
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise unknown("network", name, names)
    torch.manual_seed(seed)
    return torchvision.models.get_model(name, weights=None).eval()


def program_of(name: str, batch: int = 1) -> Program:
    """An architecture as a program for images of 224 x 224.

    Raises:
        BadInputError: there is no such model, or it cannot be imported.
    """
    import torch

    from projects.fp16_cnn.graph import import_model

    return import_model(architecture(name), torch.zeros(batch, 3, SIDE, SIDE))


def cells(program: Program, part: str = "all") -> list[Cell]:
    """The different layers of a program, in the order in which they first occur.

    Args:
        part: "all", or "dense" for the fully connected layers alone.
    """
    found = Counter(
        (layer.shape, layer.activation, layer.residual)
        for layer in program.layers
        if layer.shape.kind in PARTS[part]
    )
    return [
        Cell(shape, activation, residual, count) for (shape, activation, residual), count in found.items()
    ]


def timed_cells(name: str, part: str = "all") -> list[Cell]:
    """The different layers of a timed network, on as many images as its name says.

    Raises:
        BadInputError: there is no such network, or it cannot be imported.
    """
    network, batch = split(name)
    found = cells(program_of(network), part)
    return [replace(cell, shape=replace(cell.shape, batch=batch)) for cell in found]


def save(networks: Mapping[str, Sequence[Cell]], folder: Path) -> None:
    """Write the cells of several networks to `folder`, so that timing them needs no torch."""
    write_json(folder / FILE, {name: [asdict(cell) for cell in found] for name, found in networks.items()})


def load(folder: Path, name: str) -> list[Cell]:
    """The cells of one network.

    Raises:
        BadInputError: the folder has no such network.
    """
    held: dict[str, list[dict[str, Any]]] = read_json(folder / FILE)
    if name not in held:
        raise unknown("network", name, held)
    return [_cell(entry) for entry in held[name]]


def _cell(entry: Mapping[str, Any]) -> Cell:
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in entry["shape"].items()
    }
    return Cell(LayerShape(**plain), entry["activation"], entry["residual"], entry["count"])


def labels(found: Iterable[Cell]) -> list[str]:
    """What the axis `layer` is called."""
    return [cell.label for cell in found]
