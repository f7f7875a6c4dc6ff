"""Weights from a file: what fits is loaded, what does not is explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from common.errors import BadInputError
from common.training.weights import load_weights


def net(width: int, head: bool = True) -> nn.Module:
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, nn.Conv2d(width, 5, 1)) if head else nn.Sequential(*layers)


@pytest.mark.parametrize("key", [None, "state_dict"])
def test_weights_are_loaded(tmp_path: Path, key: str | None) -> None:
    trained, fresh = net(4), net(4)
    state = trained.state_dict()
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "w.pt")
    load_weights(fresh, tmp_path / "w.pt")
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    torch.save(net(8).state_dict(), tmp_path / "wide.pt")
    torch.save(net(4, head=False).state_dict(), tmp_path / "headless.pt")
    model = net(4)
    with pytest.raises(
        BadInputError, match=r"another architecture.*0\.weight is \[8, 3, 3, 3\].*\[4, 3, 3, 3\]"
    ):
        load_weights(model, tmp_path / "wide.pt")
    with pytest.raises(BadInputError, match=r"lacks 2\.weight, 2\.bias"):
        load_weights(model, tmp_path / "headless.pt")
    with pytest.raises(BadInputError, match=r"no place for 2\.weight, 2\.bias"):
        load_weights(net(4, head=False), _saved(model, tmp_path))


def _saved(model: nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "model.pt")
    return folder / "model.pt"


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no weights at"):
        load_weights(net(4), tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("not weights")
    with pytest.raises(BadInputError, match="no file of weights"):
        load_weights(net(4), tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BadInputError, match="no state dict"):
        load_weights(net(4), tmp_path / "list.pt")
    torch.save(net(4), tmp_path / "module.pt")
    with pytest.raises(BadInputError, match="no file of weights"):
        load_weights(net(4), tmp_path / "module.pt")
