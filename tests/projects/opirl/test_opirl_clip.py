"""The release's clip of the maze's learned reward: what the policy is paid, where, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from projects.opirl import algae
from projects.opirl.artefacts import forward
from projects.opirl.replay import Batch
from tests.projects.opirl import support
from tests.projects.opirl.support import MAZE, PENDULUM

SEEDS = (0, 1)
TWO_GOALS = "pointmaze_two_goals"
Make = Callable[..., Any]


def learner(make_arm: Make, env: str = MAZE, seeds: tuple[int, ...] = SEEDS, **release: Any) -> Any:
    return make_arm("opirl", env=env, seeds=seeds, cfg=support.config("opirl", env, release=release))


def transitions(arm: Any) -> Batch:
    facts = arm.setting.spec
    one = support.batch(len(arm.setting.seeds), arm.batch, facts.obs_dim + 1, facts.act_dim, absorbing=False)
    return Batch(*(getattr(one, key).float() for key in ("s", "a", "s2", "r", "m")))


def carried_over(arm: Any, batch: Batch) -> Tensor:
    """What the reward that the arm leaves for the transfer pays, evaluated by itself in float64."""
    paid = []
    for i, one in enumerate(arm.rewards()):
        x = torch.cat((batch.s[i], batch.a[i]), -1).double()
        paid.append(forward([layer.double() for layer in one.reward], x).squeeze(-1))
    return torch.stack(paid)


@pytest.mark.parametrize(
    ("env", "release", "clipped"),
    [
        (MAZE, {"mode": "release"}, True),
        (MAZE, {"clip_reward": True}, True),
        (TWO_GOALS, {"clip_reward": True}, True),
        (MAZE, {"mode": "paper"}, False),
        (MAZE, {"mode": "release", "clip_reward": False}, False),
        (PENDULUM, {"mode": "release"}, False),
    ],
)
def test_the_policy_is_paid_min_of_r_and_0_in_the_mazes_alone(
    make_arm: Make, env: str, release: dict[str, Any], clipped: bool
) -> None:
    """By hand from the reward that is carried over, which keeps its positive values."""
    arm = learner(make_arm, env, **release)
    batch = transitions(arm)
    learned = carried_over(arm, batch)
    assert (learned > 0).any() and (learned < 0).any()
    wanted = torch.minimum(learned, torch.zeros(())) if clipped else learned
    torch.testing.assert_close(arm.pay(batch).double(), wanted, rtol=1e-5, atol=1e-6)


def weights(agent: Any) -> list[Tensor]:
    return [net.flat.detach() for net in (agent.actor.net, agent.critic.net, agent.target.net)]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_where_the_reward_is_positive_the_clipped_policy_learns_as_from_none(make_arm: Make) -> None:
    """The discriminator learns as before: its loss knows no clip."""
    clipped, plain, unpaid = (learner(make_arm, clip_reward=on) for on in (True, False, False))
    batch, k = transitions(clipped), 40
    for arm in (clipped, plain):
        reward = arm.discriminator.reward
        reward.kept(reward.flat)[-1].fill_(50.0)
        arm.learn(k, batch, arm.streams.at(k))
    draws = unpaid.streams.at(k)
    covered = unpaid.expert.sample(draws["expert"])
    nothing = torch.zeros_like(batch.r)
    algae.update(unpaid.agent, batch, nothing, draws["eps"], unpaid.algae, covered, k)
    assert equal(weights(clipped.agent), weights(unpaid.agent))
    assert not equal(weights(clipped.agent), weights(plain.agent))
    assert torch.equal(clipped.discriminator.reward.flat, plain.discriminator.reward.flat)
    assert torch.equal(clipped.discriminator.value.flat, plain.discriminator.value.flat)
