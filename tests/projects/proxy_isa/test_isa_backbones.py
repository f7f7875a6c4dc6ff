"""BN-Inception: the published network's layers and numbers, and its weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import BadInputError
from projects.proxy_isa.bn_inception import BLOCKS, BNInception
from projects.proxy_isa.embedder import build

NET = {"kind": "bn_inception", "dim": 8, "pool": "avg", "weights": None}


def test_it_has_the_published_size() -> None:
    """Of the whole network, 1,000 classes of ImageNet included."""
    classes = 1024 * 1000 + 1000
    assert sum(parameter.numel() for parameter in BNInception().parameters()) + classes == 11_295_240


@pytest.mark.parametrize(("side", "expected"), [(224, 7), (64, 2)])
def test_each_block_has_the_published_channels(side: int, expected: int) -> None:
    seen: dict[str, int] = {}
    net = BNInception().eval()
    for name, layer in net.named_modules():
        if name.endswith("_3x3_reduce") and "double" not in name:
            layer.register_forward_pre_hook(
                lambda _, given, name=name: seen.update({name.split("_")[1]: given[0].shape[1]})
            )
    with torch.no_grad():
        maps = net(torch.zeros(1, 3, side, side))
    assert maps.shape == (1, 1024, expected, expected)
    channels = dict(zip(BLOCKS, (192, 256, 320, 576, 576, 576, 608, 608, 1056, 1024), strict=True))
    assert seen.pop("3x3") == 64  # of the second convolution
    assert seen == channels


def test_its_first_layer_sees_blue_green_red_less_the_mean_colour() -> None:
    net, seen = BNInception(), list[Tensor]()
    net.get_submodule("conv1_7x7_s2").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    red, green, blue = 200.0, 100.0, 50.0
    pixel = torch.tensor([red, green, blue]) / 255
    normal = (pixel - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        net(normal[None, :, None, None].expand(2, 3, 32, 32))
    expected = torch.tensor([blue - 104, green - 117, red - 128])
    torch.testing.assert_close(seen[0], expected[None, :, None, None].expand(2, 3, 32, 32), atol=1e-4, rtol=0)


def test_a_published_file_is_loaded_whatever_its_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older files have no counters of batches, and rows in place of batch norm's vectors; all have the classes."""
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    net = BNInception()
    state = {
        name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    state = {name: value[None] if "_bn." in name else value for name, value in state.items()}
    classes = {"last_linear.weight": torch.zeros(1000, 1024), "last_linear.bias": torch.zeros(1000)}
    torch.save(state | classes, tmp_path / "w.pth")
    found: Any = build(NET | {"weights": "w.pth"}, (3, 224, 224)).features
    for (name, ours), theirs in zip(found.backbone.named_parameters(), net.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_absent_and_foreign_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    with pytest.raises(BadInputError, match=rf"no file {tmp_path}/w\.pth .*bn_inception-239d2248\.pth"):
        build(NET | {"weights": "w.pth"}, (3, 224, 224))
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(BadInputError, match=r"w\.pth belongs to another architecture than BNInception"):
        build(NET | {"weights": "w.pth"}, (3, 224, 224))
    for content in (b"", b"<html>404</html>"):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(BadInputError, match=r"w\.pth is no file of weights"):
            build(NET | {"weights": "w.pth"}, (3, 224, 224))
