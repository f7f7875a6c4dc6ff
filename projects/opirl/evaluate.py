"""Stage `evaluate`: every imitation policy anew, on episodes that no curve has seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.study.model import Member, Metrics
from projects.opirl import demos
from projects.opirl.artefacts import Policy, load_policy
from projects.opirl.coverage import coverage, goals_reached, overlap, pairs, regions
from projects.opirl.envs import spec
from projects.opirl.played import sampled, stacked
from projects.opirl.rollout import run as roll


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: `return` of the mean policy, `return_std` over episodes, `normalised` (0 random, 1 expert).

    Where the task has several modes also `coverage` and `overlap` (projects/opirl/coverage.py) of the policy as
    it samples: a mean has one mode.
    """
    first = members[0]
    env, count = str(first.axes["env"]), int(first.cfg["evaluate"]["episodes"])
    policies = [load_policy(member.inputs["imitate"][0].folder) for member in members]
    seeds = [int(member.axes["seed"]) for member in members]
    result = [
        measure(member, one.returns)
        for member, one in zip(members, roll(stacked(policies), env, count, seeds, "test"), strict=True)
    ]
    if spec(env).demonstrator:
        covered = modes(members, policies, env, count, seeds)
        result = [{**one, **more} for one, more in zip(result, covered, strict=True)]
    return result


def measure(member: Member, returns: np.ndarray) -> dict[str, float]:
    """One member's metrics from its episodes' returns."""
    expert = member.inputs["expert"][0].metrics
    low, high = expert["random_return"], expert["expert_return"]
    value = float(returns.mean())
    return {
        "return": value,
        "return_std": float(returns.std()),
        "normalised": (value - low) / max(high - low, 1e-9),
    }


def modes(
    members: Sequence[Member], policies: Sequence[Policy], env: str, count: int, seeds: Sequence[int]
) -> list[dict[str, float]]:
    """How much of what each member's expert did its policy does too."""
    result: list[dict[str, float]] = []
    played = roll(sampled(policies, seeds), env, count, seeds, "modes")
    for member, one in zip(members, played, strict=True):
        expert = demos.load(member.inputs["expert"][0].folder).episodes
        result.append(
            {
                "coverage": coverage(regions(pairs(expert)), pairs(one)),
                "overlap": overlap(goals_reached(one), goals_reached(expert)),
            }
        )
    return result
