"""From the members of a stacked stage to a trained arm: what expert, imitate and transfer have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from common.study.model import Member
from common.tracking.record import Recorder
from common.training.data import StepIndices
from common.training.fit import fit
from common.training.seeds import numpy_generator
from projects.opirl.arm import Arm, Setting
from projects.opirl.demos import Demos
from projects.opirl.envs import spec
from projects.opirl.module import Training
from projects.opirl.rollout import Policy, evaluate

CHUNK = 8  # steps between two looks at the stop flag, of an arm that interacts once a step


def setting_of(members: Sequence[Member], env: str, steps: int, demos: Sequence[Demos]) -> Setting:
    """Where the members learn; the normaliser is that of their demonstrations, the identity without.

    A feature in which the expert barely moves would be magnified a thousandfold: `normaliser.floor` bounds its
    standard deviation from below (the release: 1e-3); null leaves observations as they are (the release, for its ant).
    """
    first = members[0]
    facts = spec(env)
    shift, scale = torch.zeros(len(members), facts.obs_dim), torch.ones(len(members), facts.obs_dim)
    floor = first.cfg["normaliser"]["floor"]
    if demos and floor is not None:
        largest = 1.0 / float(floor)
        shift = torch.stack([torch.from_numpy(one.shift) for one in demos])
        scale = torch.stack([torch.from_numpy(one.scale).clamp(max=largest) for one in demos])
    seeds = tuple(int(member.axes["seed"]) for member in members)
    return Setting(env, facts, seeds, first.cfg, steps, demos, shift, scale, first.out)


def train(members: Sequence[Member], setting: Setting, make: Callable[[Setting], Arm]) -> Training:
    """Train one arm for all members, or continue it; the checkpoints are in the first member's folder."""
    records = [Recorder(member.out) for member in members]
    arm = make(setting)
    options = setting.cfg["evaluation"]
    steps = -(-setting.steps // max(1, arm.stride))
    data = StepIndices(steps, CHUNK if arm.stride <= 1 else 1, divides=True)
    module = Training(arm, setting, steps, int(options["every"]), int(options["episodes"]), records)
    fit(module, data, setting.out, records=records, identity=_identity(members), guard_every=0)
    for record in records:
        record.close()
    return module


def scores(policy: Policy, env: str, seeds: Sequence[int], episodes: int) -> Float[ndarray, " n"]:
    """The mean return of each member."""
    return evaluate(policy, env, episodes, seeds).mean(1)


def random_policy(seeds: Sequence[int], act_dim: int) -> Policy:
    """Uniform actions, each member from its own stream."""
    generators = [numpy_generator(seed, "random policy") for seed in seeds]

    def act(obs: Float[Tensor, "n b d"]) -> Float[ndarray, "n b a"]:
        return np.stack([one.uniform(-1.0, 1.0, (obs.shape[1], act_dim)) for one in generators])

    return act


def first_reaching(
    interactions: Float[ndarray, " k"], returns: Float[ndarray, " k"], goal: float, never: float
) -> float:
    """Interactions at which a curve first reaches `goal`, linearly interpolated between evaluations."""
    above = np.flatnonzero(returns >= goal)
    if len(above) == 0:
        return never
    at = int(above[0])
    if at == 0:
        return float(interactions[0])
    low, high = returns[at - 1], returns[at]
    share = (goal - low) / (high - low)
    return float(interactions[at - 1] + share * (interactions[at] - interactions[at - 1]))


def _identity(members: Sequence[Member]) -> str:
    """A checkpoint belongs to one membership: under another the group starts afresh."""
    return " ".join(f"{member.axes['seed']}:{member.out.name}" for member in members)
