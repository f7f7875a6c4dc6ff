"""Rollouts: lock-step equals alone, true successors, honest counts, disjoint streams."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from projects.opirl.envs import make
from projects.opirl.rollout import Counters, EnvBatch, evaluate, run


def push(obs):
    return 0.3 * torch.tanh(obs.sum(-1, keepdim=True)) * torch.ones(1)


def two(obs):
    return np.clip(obs.numpy()[..., 3:5] - obs.numpy()[..., :2], -1, 1)


def test_members_do_not_influence_one_another():
    together = evaluate(push, "inverted_double_pendulum", 3, [0, 1, 2])
    alone = [evaluate(push, "inverted_double_pendulum", 3, [seed])[0] for seed in (0, 1, 2)]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert len(set(together[:, 0])) == 3


def test_an_evaluation_can_be_repeated():
    np.testing.assert_array_equal(
        evaluate(two, "pointmaze_left", 2, [5]), evaluate(two, "pointmaze_left", 2, [5])
    )


def test_one_forward_pass_a_time_step():
    shapes = []

    def policy(obs):
        shapes.append(tuple(obs.shape))
        return two(obs)

    run(policy, "pointmaze_left", 4, [0, 1, 2])
    assert shapes == [(3, 4, 6)] * 100


def test_episodes_are_whole_and_their_successors_true():
    (episodes,) = run(push, "inverted_double_pendulum", 3, [7])
    assert episodes.lengths.sum() == len(episodes.obs)
    inside = np.diff(episodes.episode) == 0
    np.testing.assert_array_equal(episodes.next_obs[:-1][inside], episodes.obs[1:][inside])
    last = np.append(~inside, True)
    np.testing.assert_array_equal(episodes.terminated, last)
    assert not episodes.truncated.any()


def test_returns_by_hand():
    (episodes,) = run(two, "pointmaze_right", 2, [1])
    by_hand = -np.linalg.norm(episodes.obs[:, :3] - episodes.obs[:, 3:], axis=1)
    by_hand -= 0.001 * np.square(episodes.act).sum(1)
    np.testing.assert_allclose(episodes.returns, by_hand.reshape(2, 100).sum(1), rtol=1e-5)
    assert episodes.truncated.tolist() == ([False] * 99 + [True]) * 2


def test_interactions_are_counted_by_purpose():
    counters = [Counters(), Counters()]
    evaluate(two, "pointmaze_left", 3, [0, 1], counters)
    run(two, "pointmaze_left", 2, [0, 1], "demonstration", counters, "reward_collection")
    counters[0].add("training", 7)
    assert counters[0].metrics() == {
        "interactions_training": 7,
        "interactions_evaluation": 300,
        "interactions_reward_collection": 200,
    }
    assert counters[1].training == 0


def test_purposes_have_disjoint_starts():
    starts = set()
    for purpose in ("evaluation", "demonstration"):
        (episodes,) = run(two, "pointmaze_left", 3, [0], purpose)
        starts |= {row.tobytes() for row in episodes.obs[::100]}
    batch = EnvBatch("pointmaze_left", [0], 3)
    starts |= {row.tobytes() for row in batch.obs[0]}
    assert len(starts) == 9


def test_reward_of_a_told_task_is_the_untold_one():
    (episodes,) = run(two, "pointmaze_two_goals_told", 1, [0])
    goals = np.array([[0.0, 0.5], [0.5, 0.5]])
    nearest = np.linalg.norm(episodes.obs[:, None, :2] - goals, axis=2).min(1)
    by_hand = -nearest - 0.001 * np.square(episodes.act).sum(1)
    np.testing.assert_allclose(episodes.reward, by_hand, atol=1e-6)


def play(batch, steps, seed=0):
    rng = np.random.default_rng(seed)
    n, b, _ = batch.obs.shape
    return [batch.step(rng.uniform(-1, 1, (n, b, 1)).astype(np.float32)) for _ in range(steps)]


def test_batch_gives_true_successors_and_resets():
    """Against one environment stepped by hand: no bogus reset transition, the terminal observation is kept."""
    from common.training.seeds import stream

    batch = EnvBatch("inverted_double_pendulum", [3], 1)
    env = make("inverted_double_pendulum", stream(3, "training", "inverted_double_pendulum", 0))
    obs, _ = env.reset()
    rng = np.random.default_rng(0)
    resets = 0
    for _ in range(60):
        np.testing.assert_array_equal(batch.obs[0, 0], obs)
        action = rng.uniform(-1, 1, (1, 1, 1)).astype(np.float32)
        step = batch.step(action)
        obs, reward, terminated, truncated, _ = env.step(action[0, 0])
        np.testing.assert_array_equal(step.next_obs[0, 0], obs)
        assert step.reward[0, 0] == reward
        assert (step.terminated[0, 0], step.truncated[0, 0]) == (terminated, truncated)
        if terminated or truncated:
            resets += 1
            obs, _ = env.reset()
    assert resets > 2


@pytest.mark.parametrize("name", ["inverted_double_pendulum"])
def test_batch_resumes_to_the_same_bits(name):
    batch = EnvBatch(name, [0, 1], 2)
    play(batch, 13)
    file = io.BytesIO()
    torch.save(batch.get_state(), file)
    file.seek(0)
    expected = play(batch, 20, seed=1)
    other = EnvBatch(name, [8, 9], 2)
    other.set_state(torch.load(file, weights_only=True))
    for one, two_ in zip(play(other, 20, seed=1), expected, strict=True):
        np.testing.assert_array_equal(one.next_obs, two_.next_obs)
        np.testing.assert_array_equal(one.reward, two_.reward)
    np.testing.assert_array_equal(batch.obs, other.obs)
