"""A loss that is not finite stops a training within its step, and the state before it is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from common.errors import NonFiniteError
from common.training import checkpoint
from common.training.keeper import BEFORE_NON_FINITE
from projects.opirl.adam import Adam, descend
from projects.opirl.replay import Batch, Replay
from tests.projects.opirl import support
from tests.projects.opirl.stages import Stages
from tests.projects.opirl.support import MAZE


@pytest.mark.parametrize(
    ("method", "step", "first"),
    [
        ("opirl", 26, "the discriminator"),
        ("dac", 26, "the discriminator"),
        ("sac", 26, "the critics"),
        ("airl", 1, "the discriminator"),
        ("bc", 26, "the policy"),
    ],
)
def test_the_state_before_is_kept(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, method: str, step: int, first: str
) -> None:
    real = Replay.sample

    def broken(self: Replay, *args: Any) -> Batch:
        batch = real(self, *args)
        states = batch.s.clone()
        states[1] = torch.nan  # the second member's
        return replace(batch, s=states)

    def at_step(k: int) -> None:
        if k == step:
            monkeypatch.setattr(Replay, "sample", broken)

    stages.given_experts(MAZE, (0, 1))
    stages.at_step = at_step
    cfg = support.config(
        method, MAZE, imitate={"steps": 48 if method != "airl" else 512}, evaluation={"every": 24, "episodes": 1},
        collect={"start": 8, "random_steps": 16}, demos={"count": 2},
    )  # fmt: skip
    members = stages.members("imitate", cfg, (0, 1), method)
    with pytest.raises(NonFiniteError, match=f"step {step}: the loss of {first} is nan .members .1. of 2."):
        stages.run("imitate", members)
    (kept,) = members[0].out.rglob(BEFORE_NON_FINITE)
    weights = checkpoint.read(kept)["state_dict"]
    assert weights and all(bool(value.isfinite().all()) for value in weights.values())


def test_a_refused_step_changes_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    optimiser = Adam([weight], 0.1)
    descend(optimiser, (weight * torch.arange(4.0)).square(), "a test")
    before, moments = weight.detach().clone(), optimiser.state[weight]["exp_avg"].clone()
    with pytest.raises(NonFiniteError, match=r"the loss of a test is inf \(members \[2\] of 4\)"):
        descend(optimiser, weight * torch.tensor([1.0, 1.0, torch.inf, 1.0]), "a test")
    assert torch.equal(weight, before) and torch.equal(optimiser.state[weight]["exp_avg"], moments)
