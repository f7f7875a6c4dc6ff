"""The layers that are timed are those of the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from common.errors import BadInputError
from common.study.config import compose
from projects.fp16_cnn import networks, tools, whole
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


def test_a_batch_is_named_at_the_end_of_a_networks_name() -> None:
    assert networks.split("resnet50_x8") == ("resnet50", 8)
    assert networks.split("shufflenet_v2_x0_5_x16") == ("shufflenet_v2_x0_5", 16)
    for name in torchvision.models.list_models(module=torchvision.models):
        assert networks.split(name) == (name, 1)


def test_layers_of_a_batch_are_those_of_one_image_with_more_to_do() -> None:
    one, four = (networks.timed_cells(f"mobilenet_v3_small{batch}") for batch in ("", "_x4"))
    assert networks.labels(one) == networks.labels(four)
    assert [cell.count for cell in one] == [cell.count for cell in four]
    assert [4 * cell.shape.flops for cell in one] == [cell.shape.flops for cell in four]
    assert [cell.shape.weights for cell in one] == [cell.shape.weights for cell in four]


def test_a_timed_network_answers_for_every_image_of_its_batch() -> None:
    torch.manual_seed(0)
    model, x = Small().eval(), torch.randn(3, 8, 6, 6)
    program = import_model(model, x[:1])
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
    found = whole.compiled(program, ["f32"], tune=False, batch=3)["f32"].run(x)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_efficientnet_lite_is_timms() -> None:
    model = networks.architecture("tf_efficientnet_lite0")
    assert not model.training
    assert tools.layers_of(model) == 82 - 2 * 16  # EfficientNet-B0's without squeeze and excitation
    with pytest.raises(BadInputError, match="tf_efficientnet_lite0"):
        networks.architecture("tf_efficientnet_lite")


LISTED = [("laptop", net) for net in ("mobilenet_v2", "resnet50")] + [
    ("workstation", net)
    for net in ("resnet18", "vgg11", "vgg16", "mobilenet_v3_large", "tf_efficientnet_lite0")
]


@pytest.mark.parametrize(("scale", "net"), LISTED)
def test_the_grid_names_the_layers_of_the_network(scale: str, net: str) -> None:
    cfg = compose("fp16_cnn", scale)
    (listed,) = (entry["layer"] for entry in cfg["grid"]["attribution"] if net in entry["net"])
    assert listed == networks.labels(networks.timed_cells(net, cfg["nets"][net]))


@pytest.mark.parametrize("scale", ["smoke", "laptop", "workstation"])
def test_what_the_grid_compares_is_what_the_configuration_measures(scale: str) -> None:
    cfg = compose("fp16_cnn", scale)
    grid = cfg["grid"]
    timed = [net for entry in grid["layers"] for net in entry["net"]]
    assert set(timed) <= set(cfg["nets"])
    assert [net for entry in grid["gains"] for net in entry["net"]] == timed
    assert sorted(net for entry in grid["attribution"] for net in entry["net"]) == sorted(timed)
    assert all(entry["tool"] == cfg["peers"]["tools"] for entry in grid["compare"])
