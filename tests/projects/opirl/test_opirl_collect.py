"""Interaction off policy: honest counts, true successors, time-outs bootstrapped, terminations absorbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.training.seeds import stream
from projects.opirl.absorbing import absorbing_state
from projects.opirl.collect import Collector
from projects.opirl.envs import make
from projects.opirl.replay import Batch, unpack
from tests.projects.opirl import support
from tests.projects.opirl.support import MAZE, PENDULUM

Make = Callable[..., Collector]


@pytest.fixture
def make_collector(tmp_path: Path) -> Iterator[Make]:
    made: list[Collector] = []

    def make_one(env: str, seeds: tuple[int, ...] = (0,), random_steps: int = 0, **options: Any) -> Collector:
        where = support.setting(tmp_path / str(len(made)), env=env, seeds=seeds, steps=100)
        made.append(Collector(where, random_steps, **{"absorbing": 2, **options}))
        return made[-1]

    yield make_one
    for one in made:
        for file in one.journals().values():
            file.close()


def push(s: Tensor, eps: np.ndarray) -> Tensor:
    """Some policy with noise."""
    return torch.from_numpy(np.tanh(0.5 + eps)).float()


def buffer_of(one: Collector, member: int = 0) -> Batch:
    return unpack(one.replay.rows[member : member + 1, : one.replay.sizes[member]], one.replay.act_dim)


def test_training_interactions_are_counted_and_absorbing_rows_are_not(make_collector: Make) -> None:
    one = make_collector(PENDULUM, (0, 1))
    for k in range(40):
        one.step(k, push)
    assert [counter.training for counter in one.counters] == [40, 40]
    assert [counter.evaluation + counter.reward_collection for counter in one.counters] == [0, 0]
    ends = [int((buffer_of(one, i).s[..., -1] == 1).sum()) // 2 for i in (0, 1)]
    assert min(ends) > 0 and one.replay.sizes == [40 + 2 * end for end in ends]


def test_rows_equal_an_environment_stepped_by_hand(make_collector: Make) -> None:
    one = make_collector(PENDULUM)
    for k in range(30):
        one.step(k, push)
    env = make(PENDULUM, stream(0, "training", PENDULUM, 0))
    shift, scale = one.shift[0, 0].numpy(), one.scale[0, 0].numpy()
    obs, _ = env.reset()
    batch, at = buffer_of(one), 0
    for _ in range(30):
        np.testing.assert_allclose(batch.s[0, at, :-1].numpy(), (obs + shift) * scale, rtol=1e-6)
        obs, reward, terminated, _, _ = env.step(batch.a[0, at].numpy())
        assert batch.r[0, at].item() == pytest.approx(reward)
        if terminated:
            assert torch.equal(batch.s2[0, at], absorbing_state(9))
            obs, _ = env.reset()
            at += 2
        else:
            np.testing.assert_allclose(batch.s2[0, at, :-1].numpy(), (obs + shift) * scale, rtol=1e-6)
        at += 1
    assert at == one.replay.sizes[0]


def test_terminations_are_followed_by_absorbing_rows(make_collector: Make) -> None:
    one = make_collector(PENDULUM)
    for k in range(40):
        one.step(k, push)
    batch = buffer_of(one)
    void, gone = absorbing_state(9), batch.s[0, :, -1] == 1
    assert (batch.m == 1).all() and gone.any()
    assert (
        (batch.s[0, gone] == void).all() and (batch.s2[0, gone] == void).all() and not batch.a[0, gone].any()
    )
    entered = torch.nonzero((batch.s2[0, :, -1] == 1) & ~gone).flatten()
    assert all(gone[i + 1 : i + 3].all() for i in entered) and len(entered) * 2 == int(gone.sum())


def test_without_absorbing_states_a_termination_ends_the_return(make_collector: Make) -> None:
    one = make_collector(PENDULUM, absorbing=0)
    for k in range(40):
        one.step(k, push)
    batch = buffer_of(one)
    assert one.replay.sizes == [40] and 0 < (batch.m == 0).sum() < 40 and not batch.s2[..., -1].any()


def test_a_time_out_keeps_its_successor_and_is_bootstrapped(make_collector: Make) -> None:
    one = make_collector(MAZE)
    for k in range(102):
        one.step(k, push)
    batch = buffer_of(one)
    assert one.replay.sizes == [102] and (batch.m == 1).all() and not batch.s2[..., -1].any()
    moved = (batch.s2[0, 99, :2] - batch.s[0, 99, :2]).abs().max()
    jumped = (batch.s[0, 100, :2] - batch.s2[0, 99, :2]).abs().max()
    assert moved < jumped  # row 100 starts anew, row 99 does not lead there


@pytest.mark.parametrize("absorbing", [0, 2])
def test_a_time_out_that_ends_is_a_defect_of_the_release(make_collector: Make, absorbing: int) -> None:
    one = make_collector(MAZE, absorbing=absorbing, timeouts_end=True)
    for k in range(102):
        one.step(k, push)
    batch = buffer_of(one)
    assert one.replay.sizes == [102 + absorbing]
    assert (batch.m[0] == 0).nonzero().flatten().tolist() == ([] if absorbing else [99])
    assert bool(batch.s2[0, 99, -1] == 1) == (absorbing > 0)


def test_random_steps_come_first_and_are_uniform(make_collector: Make) -> None:
    one = make_collector(MAZE, random_steps=90)
    for k in range(100):
        one.step(k, lambda s, eps: torch.full((1, 1, 2), 0.25))
    a = buffer_of(one).a[0]
    assert (a[90:] == 0.25).all() and not (a[:90] == 0.25).any()
    assert a[:90].min() < -0.9 and a[:90].max() > 0.9 and a[:90].mean().abs() < 0.15


def test_members_do_not_influence_one_another(make_collector: Make) -> None:
    together, alone = (make_collector(PENDULUM, seeds, random_steps=60) for seeds in ((0, 1, 2), (1,)))
    for k in range(60):
        together.step(k, push)
        alone.step(k, push)
    assert len(set(together.replay.sizes)) > 1  # members end at different times
    size = alone.replay.sizes[0]
    assert together.replay.sizes[1] == size
    assert torch.equal(together.replay.rows[1, :size], alone.replay.rows[0, :size])


def test_files_hold_the_buffers_and_a_resume_reads_them(make_collector: Make) -> None:
    one, other = make_collector(PENDULUM, (0, 1)), make_collector(PENDULUM, (0, 1))
    for k in range(30):
        one.step(k, push)
    state = one.state()
    for mine, theirs in zip(one.files.values(), other.files.values(), strict=True):
        mine.sync()
        theirs.append(np.fromfile(mine.path, np.float32).reshape(-1, one.replay.rows.shape[2]))
    other.load_state(state)
    for k in range(30, 60):
        one.step(k, push)
        other.step(k, push)
    assert [c.training for c in other.counters] == [60, 60] and one.replay.sizes == other.replay.sizes
    for i, size in enumerate(one.replay.sizes):
        assert torch.equal(one.replay.rows[i, :size], other.replay.rows[i, :size])


def test_exploration_is_the_policy_s_own_or_gaussian_about_its_mean(make_arm: Callable[..., Any]) -> None:
    s, eps = torch.zeros(2, 1, 7), np.full((2, 1, 2), 0.5)
    noisy = make_arm("sac", cfg=support.config("sac", collect={"exploration": "noise", "noise": 0.1}))
    mean = noisy.agent.actor.play(s)
    torch.testing.assert_close(noisy.behave(s, eps), (mean + 0.05).clamp(-1.0, 1.0))
    assert noisy.behave(s, eps * 1e3).max() == 1.0
    sampling = make_arm("sac", cfg=support.config("sac", collect={"exploration": "sample"}))
    torch.testing.assert_close(
        sampling.behave(s, eps), sampling.agent.actor(s, torch.from_numpy(eps).float())[0]
    )
