"""The layers that are timed are those of the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from common.errors import BadInputError
from common.study.config import compose
from projects.fp16_cnn import networks
from projects.fp16_cnn.graph import import_model


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        x = torch.relu(self.third(x) + x)
        return self.last(x.mean((2, 3)))


def test_equal_layers_are_counted_and_others_kept_apart(tmp_path: Path) -> None:
    found = networks.cells(import_model(Small(), torch.zeros(1, 8, 6, 6)))
    assert [(cell.label, cell.count) for cell in found] == [
        ("8>8 6x6 k3 s1 relu", 2),
        ("8>8 6x6 k3 s1 add relu", 1),
        ("8>4 fc", 1),
    ]
    networks.save({"small": found}, tmp_path)
    assert networks.load(tmp_path, "small") == found


def test_one_part_of_a_network() -> None:
    found = networks.cells(import_model(Small(), torch.zeros(1, 8, 6, 6)), "dense")
    assert networks.labels(found) == ["8>4 fc"]


def test_unknown_networks_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="resnet50"):
        networks.torchvision_model("resnet5o")
    networks.save({"small": []}, tmp_path)
    with pytest.raises(BadInputError, match="small"):
        networks.load(tmp_path, "smal")


@pytest.mark.parametrize("net", ["mobilenet_v2", "resnet50"])
def test_the_grid_names_the_layers_of_the_network(net: str) -> None:
    cfg = compose("fp16_cnn", "laptop")
    (listed,) = (entry["layer"] for entry in cfg["grid"]["attribution"] if entry["net"] == [net])
    assert listed == networks.labels(networks.cells(networks.program_of(net), cfg["nets"][net]))
