"""Every arm: members of one stacked program are, bit for bit, what they are alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from common.errors import BadInputError
from projects.opirl.played import stacked
from projects.opirl.study import METHODS
from tests.projects.opirl import support
from tests.projects.opirl.support import MAZE, PENDULUM, normal

Make = Callable[..., Any]
STEPS = 60
ITERATIONS = 3  # of an arm whose step is a whole rollout


def train(arm: Any, steps: int = 0) -> list[list[float]]:
    """Train; the losses of every step, one row a member."""
    count = steps or (STEPS if arm.stride <= 1 else ITERATIONS)
    losses = [arm.step(k) for k in range(count)]
    return torch.stack([loss for loss in losses if loss is not None]).T.tolist()


def artefacts(arm: Any, member: int) -> list[torch.Tensor]:
    """All arrays of a member's policy and, where one is learned, reward."""
    found: list[torch.Tensor] = []
    for one in (arm.policies()[member], *arm.rewards()[member : member + 1]):
        for field in dataclasses.fields(one):
            value = getattr(one, field.name)
            found += [value] if isinstance(value, torch.Tensor) else value if isinstance(value, list) else []
    return found


def assert_same(together: Any, member: int, alone: Any) -> None:
    """Parameters, buffers, temperature, replay rows and counters of a member and of the arm that is it alone."""
    for name, net in together.named_modules():
        if hasattr(net, "member"):
            index = range(member, net.members, len(together.setting.seeds))
            mine = [part for i in index for part in net.member(i)]
            single = alone.get_submodule(name)
            theirs = [part for i in range(single.members) for part in single.member(i)]
            assert all(map(torch.equal, mine, theirs)), name
    if hasattr(together, "agent"):
        assert torch.equal(together.agent.alpha[member], alone.agent.alpha[0])
    if hasattr(together, "collector"):
        ours, other = together.collector.replay, alone.collector.replay
        size = other.sizes[0]
        assert ours.sizes[member] == size and torch.equal(ours.rows[member, :size], other.rows[0, :size])
    assert all(map(torch.equal, artefacts(together, member), artefacts(alone, 0)))
    assert together.counters[member] == alone.counters[0]


def compare(
    make_arm: Make,
    method: str,
    cfg: Mapping[str, Any],
    steps: int,
    seeds: tuple[int, ...],
    some: tuple[int, ...],
) -> None:
    env = str(cfg["axes"]["env"])
    together = make_arm(method, env=env, seeds=seeds, cfg=cfg)
    losses = train(together, steps)
    obs = normal(len(seeds), 3, together.setting.spec.obs_dim, dtype=torch.float32)
    actions, played = together.act(obs), stacked(together.policies())(obs)
    for member in some:
        alone = make_arm(method, env=env, seeds=seeds[member : member + 1], cfg=cfg)
        own = obs[member : member + 1]
        assert train(alone, steps) == losses[member : member + 1]
        assert_same(together, member, alone)
        assert torch.equal(alone.act(own)[0], actions[member])
        assert (stacked(alone.policies())(own)[0] == played[member]).all()


@pytest.mark.parametrize("env", [MAZE, PENDULUM])
@pytest.mark.parametrize("method", METHODS)
def test_alone_equals_stacked_bit_for_bit(make_arm: Make, method: str, env: str) -> None:
    cfg = support.config(method, env, collect={"start": 10, "random_steps": 30})
    compare(make_arm, method, cfg, 0, (3, 5, 8), (0, 2))


@pytest.mark.parametrize("env", [MAZE, PENDULUM])
@pytest.mark.parametrize("method", ["opirl", "sac", "dac"])
def test_eight_members_of_the_laptop_s_size(make_arm: Make, method: str, env: str) -> None:
    cfg = support.config(
        method,
        env,
        agent={"hidden": [64, 64]},
        collect={"batch": 64, "start": 4, "random_steps": 8},
        discriminator={"hidden_reward": [64, 64], "hidden_value": [64, 64]},
    )
    compare(make_arm, method, cfg, 24, tuple(range(8)), (0, 7))


def test_two_members_share_nothing(make_arm: Make) -> None:
    """Same seed twice would be the same learner; other seeds are other learners."""
    arm = make_arm("opirl", seeds=(0, 1))
    train(arm)
    for name, net in arm.named_modules():
        if hasattr(net, "member"):
            assert not torch.equal(net.member(0)[0], net.member(1)[0]), name


@pytest.mark.parametrize(
    ("method", "section", "change"),
    [
        ("opirl", "collect", {"batch": 48}),
        ("sac", "collect", {"batch": 16}),
        ("bc", "bc", {"batch": 20}),
        ("airl", "airl", {"batch": 20}),
        ("airl", "airl", {"ppo": {"hidden": [16, 16], "lr": 1e-3, "copies": 2, "length": 20}}),
    ],
)
def test_batches_with_a_remainder_are_refused(
    make_arm: Make, method: str, section: str, change: dict[str, Any]
) -> None:
    """Their members would not be bit-equal to running alone."""
    with pytest.raises(BadInputError, match="a multiple of 32"):
        make_arm(method, cfg=support.config(method, **{section: change}))


def test_minibatches_that_do_not_divide_a_rollout_are_refused(make_arm: Make) -> None:
    """Chunks of unequal size are no whole vectors, either."""
    ppo = {"hidden": [16, 16], "lr": 1e-3, "copies": 16, "length": 64, "minibatches": 3}
    with pytest.raises(
        BadInputError, match=r"1024 rows \(copies x length\) cannot be cut into 3 minibatches"
    ):
        make_arm("airl", cfg=support.config("airl", airl={"ppo": ppo}))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("collect", {"exploration": "smaple"}, "Did you mean 'sample'"),
        ("release", {"clip_reward": "off"}, "release.clip_reward is null, true or false, not 'off'"),
        ("release", {"mode": "papre"}, "Did you mean 'paper'"),
    ],
)
def test_a_misspelt_choice_is_named(
    make_arm: Make, section: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        make_arm("opirl", cfg=support.config("opirl", **{section: change}))
