"""The numbers that claims are judged by, on curves that a reader can check in the head."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from common.errors import BadInputError
from common.study.model import JobRef, Member
from projects.opirl import evaluate, imitate, transfer
from projects.opirl.envs import spec
from projects.opirl.module import Training
from projects.opirl.rollout import Counters
from projects.opirl.training import first_reaching, setting_of
from tests.projects.opirl import support

EXPERT = {"expert_return": 110.0, "random_return": 10.0}  # 80 % of the way from random to expert: 90


def member(out: Path, cfg: dict[str, Any] | None = None, **axes: Any) -> Member:
    inputs = {"expert": [JobRef({"seed": 0}, out, EXPERT)]}
    return Member(cfg or {}, inputs, out, {"env": "hopper", "method": "opirl", "seed": 0, **axes})


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([10.0, 50.0, 70.0], 999.0),  # never
        ([95.0, 0.0, 0.0], 0.0),  # before any training
        ([10.0, 50.0, 130.0], 1500.0),  # 50 -> 130 passes 90 halfway between 1000 and 2000
        ([10.0, 90.0, 20.0], 1000.0),  # reached once is reached
    ],
)
def test_the_interactions_to_the_goal(returns: list[float], expected: float) -> None:
    steps = np.array([0.0, 1000.0, 2000.0])
    assert first_reaching(steps, np.array(returns), 90.0, never=999.0) == pytest.approx(expected)


def curve(*returns: float) -> Training:
    steps = 1000.0 * np.arange(len(returns))
    arm = SimpleNamespace(counters=[Counters(), Counters(3000, 40, 5)])
    # the member asked for stands second
    return cast(
        Training,
        SimpleNamespace(arm=arm, returns=lambda: (steps, np.stack([0 * steps, np.array(returns)], 1))),
    )


def test_a_learning_curve_is_measured_from_random_to_expert(tmp_path: Path) -> None:
    found = imitate.measure(curve(10.0, 50.0, 130.0, 110.0, 120.0), 1, member(tmp_path), cap=4000.0)
    assert found == {
        "interactions_to_80": pytest.approx(1500.0),
        "final_return": pytest.approx(120.0),  # the last three
        "normalised": pytest.approx(1.1),
        "area": pytest.approx((84.0 - 10.0) / 100.0),
        "interactions_training": 3000,
        "interactions_evaluation": 40,
        "interactions_reward_collection": 5,
    }


def test_a_run_that_never_arrives_takes_twice_its_cap(tmp_path: Path) -> None:
    found = imitate.measure(curve(10.0, 20.0, 89.0), 1, member(tmp_path), cap=4000.0)
    assert found["interactions_to_80"] == 8000.0


def test_unseen_episodes_are_measured_from_random_to_expert(tmp_path: Path) -> None:
    found = evaluate.measure(member(tmp_path), np.array([40.0, 80.0]))
    assert found == {"return": 60.0, "return_std": 20.0, "normalised": pytest.approx(0.5)}


def test_a_transfer_is_measured_from_random_there_to_the_expert_at_home(tmp_path: Path) -> None:
    one, counts = member(tmp_path, target="hopper"), Counters(30_000, 100)
    saved: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "save_policy", lambda *args: saved.append(args))
        found = transfer.measure(one, cast(Any, "policy"), counts, final=85.0, low=60.0)
    assert saved == [("policy", tmp_path)]
    assert found == {
        "final_return": 85.0,
        "random_return": 60.0,
        "normalised": pytest.approx(0.5),
        **counts.metrics(),
    }


@pytest.mark.parametrize("floor", [0.1, None])
def test_the_normaliser_of_what_hardly_moves_has_a_floor(tmp_path: Path, floor: float | None) -> None:
    held = support.held("hopper", 0)
    held.scale[0] = 1e6  # an observation in which the demonstrations stand still
    cfg = support.config(env="hopper", normaliser={"floor": floor})
    setting = setting_of([member(tmp_path, cfg)], "hopper", 10, [held])
    assert setting.shift.shape == setting.scale.shape == (1, spec("hopper").obs_dim)
    if floor is None:
        assert torch.equal(setting.scale, torch.ones_like(setting.scale)) and not setting.shift.any()
    else:
        assert float(setting.scale.max()) == pytest.approx(10.0)
        assert torch.equal(setting.shift[0], torch.from_numpy(held.shift))


def test_an_unknown_kind_of_transfer_is_named(tmp_path: Path) -> None:
    cfg = support.config(env="custom_ant", stage="transfer", transfer={"kind": "rewards"})
    with pytest.raises(BadInputError, match="Did you mean 'reward'"):
        transfer.run([member(tmp_path, cfg, env="custom_ant", target="big_ant")])
