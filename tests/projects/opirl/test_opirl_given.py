"""Rewards that are given: true, random, learned and frozen, permuted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from projects.opirl.arm import Setting
from projects.opirl.artefacts import Reward, forward
from projects.opirl.given import FrozenReward
from projects.opirl.permuted import ANCHORS, PermutedReward, _picks
from projects.opirl.replay import Batch
from tests.projects.opirl import support
from tests.projects.opirl.support import MAZE, PENDULUM, generators

Make = Callable[..., Any]


def learned(where: Setting, member: int, hidden: int = 16, state_only: bool = False) -> Reward:
    """A reward of no merit: random weights, other ones for each member."""
    d, a = where.spec.obs_dim + 1, where.spec.act_dim
    draw = torch.Generator().manual_seed(where.seeds[member])
    sizes = [d if state_only else d + a, hidden, hidden, 1]
    layers = []
    for i, o in pairwise(sizes):
        layers += [torch.randn(i, o, generator=draw) / i**0.5, torch.randn(o, generator=draw)]
    return Reward(where.env, "opirl", layers, [], state_only, 2, where.shift[member], where.scale[member])


@pytest.fixture
def make_given(tmp_path: Path) -> Iterator[Make]:
    made: list[Any] = []

    def make_one(kind: type, seeds: tuple[int, ...] = (0, 1), env: str = MAZE, **options: Any) -> Any:
        where = support.setting(tmp_path / str(len(made)), "opirl", env, seeds)
        rewards = [learned(where, i, **options) for i in range(len(seeds))]
        made.append(kind(where, rewards, 2) if kind is FrozenReward else kind(where, rewards))
        return made[-1]

    yield make_one
    for one in made:
        for journal in one.journals().values():
            journal.close()


def transitions(members: int, size: int, obs_dim: int, act_dim: int) -> Batch:
    one = support.batch(members, size, obs_dim + 1, act_dim)
    return Batch(*(getattr(one, key).float() for key in ("s", "a", "s2", "r", "m")))


def test_the_true_reward_is_paid_in_the_config_s_units(make_arm: Make) -> None:
    arm = make_arm("sac", cfg=support.config("sac", sac={"reward_scale": 0.25}))
    batch = transitions(2, 8, 6, 2)
    assert torch.equal(arm.pay(batch), 0.25 * batch.r) and arm.collector.absorbing == 0


def test_a_random_reward_stays_as_it_was_drawn(make_arm: Make) -> None:
    arm = make_arm("random", env=PENDULUM)
    batch = transitions(2, 8, 9, 1)
    before = arm.pay(batch).clone()
    for k in range(30):
        arm.step(k)
    assert torch.equal(arm.pay(batch), before) and before.std() > 0.1
    assert arm.collector.absorbing == arm.setting.cfg["absorbing"]["per_episode"] > 0


@pytest.mark.parametrize("state_only", [False, True])
def test_a_frozen_reward_pays_what_was_learned(make_given: Make, state_only: bool) -> None:
    arm = make_given(FrozenReward, state_only=state_only)
    batch = transitions(2, 8, 6, 2)
    paid = arm.pay(batch)
    for i in range(2):
        x = batch.s[i] if state_only else torch.cat((batch.s[i], batch.a[i]), -1)
        wanted = forward(learned(arm.setting, i, state_only=state_only).reward, x).squeeze(-1)
        torch.testing.assert_close(paid[i], wanted)
    for k in range(30):
        arm.step(k)
    assert torch.equal(arm.pay(batch), paid)


@pytest.mark.parametrize("kind", [FrozenReward, PermutedReward])
@pytest.mark.parametrize("env", [MAZE, PENDULUM])
def test_a_given_reward_s_members_are_as_alone(make_given: Make, kind: type, env: str) -> None:
    """At the laptop's size: one column of a product rounds otherwise for one member."""
    together = make_given(kind, (0, 1, 2), env, hidden=64)
    facts = together.setting.spec
    batch = transitions(3, 64, facts.obs_dim, facts.act_dim)
    paid = together.pay(batch)
    for i in range(3):
        alone = make_given(kind, (i,), env, hidden=64)
        part = Batch(*(getattr(batch, key)[i : i + 1].contiguous() for key in ("s", "a", "s2", "r", "m")))
        assert torch.equal(alone.pay(part)[0], paid[i]), i


# --- the permuted reward ---


def at_anchors(arm: Any) -> tuple[Tensor, Tensor]:
    """What r' and r pay at the anchors, with one action everywhere."""
    n = len(arm.setting.seeds)
    a = torch.full((n, ANCHORS, arm.setting.spec.act_dim), 0.3)
    nothing = torch.zeros(n, ANCHORS)
    with torch.no_grad():
        return arm.pay(Batch(arm.anchors, a, arm.anchors, nothing, nothing)), arm.reward(arm.anchors, a)


def test_a_permuted_reward_takes_the_reward_s_values_at_other_states(make_given: Make) -> None:
    paid, plain = at_anchors(make_given(PermutedReward))
    torch.testing.assert_close(paid.sort().values, plain.sort().values, rtol=1e-5, atol=1e-6)
    assert ((paid - plain).abs() > 1e-4).float().mean() > 0.9
    rank = torch.corrcoef(torch.stack((paid[0], plain[0])))[0, 1]
    assert rank.abs() < 0.25


def test_a_permuted_reward_is_that_of_the_nearest_anchor_s_image(make_given: Make) -> None:
    arm = make_given(PermutedReward)
    batch = transitions(2, 16, 6, 2)
    paid = arm.pay(batch)
    for i in range(2):
        for j in range(16):
            nearest = (arm.anchors[i] - batch.s[i, j]).double().square().sum(-1).argmin()
            x = torch.cat((arm.images[i, nearest], batch.a[i, j]))
            torch.testing.assert_close(paid[i, j], forward(learned(arm.setting, i).reward, x).squeeze())


def test_images_are_a_permutation_of_the_anchors(make_given: Make) -> None:
    arm = make_given(PermutedReward)
    for anchors, images in zip(arm.anchors, arm.images, strict=True):
        assert sorted(anchors.tolist()) == sorted(images.tolist())
        assert len(anchors.unique(dim=0)) == ANCHORS
    assert arm.counters[0].reward_collection == 4 * 100 and arm.counters[0].training == 0


@pytest.mark.parametrize("count", [ANCHORS // 3, ANCHORS, 3 * ANCHORS])
def test_no_state_is_an_anchor_twice_while_there_are_enough(count: int) -> None:
    picks = _picks(count, generators(0)[0])
    times = torch.bincount(picks, minlength=count)
    assert len(picks) == ANCHORS and times.max() - times.min() <= 1
