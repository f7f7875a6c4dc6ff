"""Policies and rewards on disk: what goes in comes out, and what is wrong with a file is said."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.opirl_eager import perceptron
from common.errors import BadInputError
from projects.opirl.artefacts import (
    POLICY,
    REWARD,
    Policy,
    Reward,
    forward,
    load_policy,
    load_reward,
    save_policy,
    save_reward,
)
from tests.projects.opirl.support import fill, generators


def layers(*sizes: int, seed: int = 0) -> list[Tensor]:
    draw = generators(seed)[0]
    parts = []
    for i, o in pairwise(sizes):
        parts += [torch.randn(i, o, generator=draw), torch.randn(o, generator=draw)]
    return parts


def policy() -> Policy:
    return Policy("pointmaze_left", 2, layers(7, 5, 4), torch.arange(6.0), torch.ones(6))


def reward(**changes: Any) -> Reward:
    chosen = {
        "reward": layers(9, 5, 1),
        "value": layers(7, 4, 1, seed=1),
        "state_only": False,
        "absorbing": 3,
    }
    return Reward("pointmaze_left", "opirl", **chosen | changes, shift=torch.arange(6.0), scale=torch.ones(6))


def same(one: Any, other: Any) -> None:
    for key, value in vars(one).items():
        theirs = getattr(other, key)
        if isinstance(value, Tensor):
            assert torch.equal(value, theirs)
        elif isinstance(value, list):
            assert len(value) == len(theirs) and all(map(torch.equal, value, theirs))
        else:
            assert value == theirs


def test_a_policy_comes_back(tmp_path: Path) -> None:
    save_policy(policy(), tmp_path)
    same(policy(), load_policy(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [POLICY]


@pytest.mark.parametrize("changes", [{}, {"value": []}, {"state_only": True, "absorbing": 0}])
def test_a_reward_comes_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_reward(reward(**changes), tmp_path)
    same(reward(**changes), load_reward(tmp_path))


def test_same_reward_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_reward(reward(), tmp_path / name)
    assert (tmp_path / "a" / REWARD).read_bytes() == (tmp_path / "b" / REWARD).read_bytes()


@pytest.mark.parametrize("outputs", [1, 3])
def test_forward_equals_plain_modules_alone_and_stacked(outputs: int) -> None:
    members = [layers(4, 8, 6, outputs, seed=seed) for seed in range(3)]
    x = torch.randn(3, 5, 4, generator=generators(9)[0])
    stacked = forward([torch.stack(part) for part in zip(*members, strict=True)], x)
    for i, parts in enumerate(members):
        net: nn.Module = perceptron(4, (8, 6), outputs)
        fill(net, parts)
        torch.testing.assert_close(stacked[i], net(x[i]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(forward(parts, x[i]), net(x[i]), rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finite"):
        save_reward(reward(reward=[torch.full((9, 1), torch.nan), torch.zeros(1)]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="run the stage"):
        load_policy(tmp_path)
    with pytest.raises(BadInputError, match="run the stage"):
        load_reward(tmp_path)


def test_a_policy_is_no_reward(tmp_path: Path) -> None:
    save_policy(policy(), tmp_path)
    (tmp_path / POLICY).rename(tmp_path / REWARD)
    with pytest.raises(BadInputError, match="no reward"):
        load_reward(tmp_path)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    with np.load(folder / REWARD) as file:
        arrays = {key: file[key] for key in file.files}
    change(arrays)
    with (folder / REWARD).open("wb") as file:
        np.savez(file, **arrays)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.update(schema=np.int64(3)),
        lambda x: x.pop("schema"),
        lambda x: x.pop("method"),
        lambda x: x.pop("norm.1"),
        lambda x: x.pop("reward.3"),
        lambda x: x.pop("reward.0"),
        lambda x: x.update({"reward.2": np.zeros((4, 1), np.float32)}),
        lambda x: x.update({"norm.1": np.ones(5, np.float32)}),
        lambda x: x.update(more=np.ones(5, np.float32)),
        lambda x: x.update(env=np.array([{}], dtype=object)),
    ],
)
def test_another_schema_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    save_reward(reward(), tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(BadInputError, match=REWARD):
        load_reward(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path: Path, keep: float) -> None:
    save_reward(reward(), tmp_path)
    raw = (tmp_path / REWARD).read_bytes()
    (tmp_path / REWARD).write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(BadInputError, match=REWARD):
        load_reward(tmp_path)


def test_a_flipped_bit_is_refused_or_harmless(tmp_path: Path) -> None:
    """Wherever it is: never another reward, never another error."""
    save_reward(reward(), tmp_path)
    raw = (tmp_path / REWARD).read_bytes()
    refused = 0
    for at in range(0, len(raw), 7):
        (tmp_path / REWARD).write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        try:
            same(reward(), load_reward(tmp_path))
        except BadInputError:
            refused += 1
    assert refused > len(raw) // 7 / 2
