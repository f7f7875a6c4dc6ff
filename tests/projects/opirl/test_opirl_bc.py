"""Behavioural cloning: it recovers a known policy, stacked as alone, and resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from projects.opirl import demos
from projects.opirl.arm import Setting
from projects.opirl.bc import BC
from projects.opirl.envs import spec

CFG = {"bc": {"hidden": [32, 32], "lr": 3e-3, "batch": 64}, "axes": {"method": "bc"}}
ENV = "pointmaze_left"


def teacher(obs):
    return np.tanh(3.0 * (obs.numpy()[..., 3:5] - obs.numpy()[..., :2]))


@pytest.fixture(scope="module")
def held():
    return {seed: demos.record(teacher, ENV, 3, [seed])[0] for seed in (0, 1, 2, 3)}


def arm(held, seeds):
    chosen = [held[seed] for seed in seeds]
    shift = torch.stack([torch.from_numpy(one.shift) for one in chosen])
    scale = torch.stack([torch.from_numpy(one.scale) for one in chosen])
    return BC(Setting(ENV, spec(ENV), tuple(seeds), CFG, 300, chosen, shift, scale, Path()))


def test_recovers_a_known_policy(held):
    learner = arm(held, [0])
    losses = [learner.step(k).item() for k in range(600)]
    assert np.mean(losses[-20:]) < losses[0] - 1.0
    obs = torch.from_numpy(held[0].episodes.obs).unsqueeze(0)
    error = learner.act(obs).numpy() - teacher(obs)
    assert np.sqrt(np.mean(error**2)) < 0.1


def test_alone_equals_stacked_bit_for_bit(held):
    together = arm(held, [0, 1, 2, 3])
    alone = {seed: arm(held, [seed]) for seed in (0, 2)}
    for k in range(40):
        together.step(k)
        for one in alone.values():
            one.step(k)
    for seed, one in alone.items():
        for a, b in zip(together.actor.net.member(seed), one.actor.net.member(0), strict=True):
            assert torch.equal(a, b)


def test_no_interaction(held):
    learner = arm(held, [0])
    learner.step(0)
    assert learner.counters[0].metrics() == {
        "interactions_training": 0,
        "interactions_evaluation": 0,
        "interactions_reward_collection": 0,
    }


def test_policy_artefact_acts_as_the_learner(held):
    from projects.opirl.artefacts import forward

    learner = arm(held, [0, 1])
    learner.step(0)
    obs = torch.from_numpy(held[1].episodes.obs[:5])
    policy = learner.policies()[1]
    s = torch.nn.functional.pad((obs + policy.shift) * policy.scale, (0, 1))
    by_artefact = torch.tanh(forward(policy.layers, s)[..., :2])
    torch.testing.assert_close(by_artefact, learner.act(obs.expand(2, -1, -1))[1])
