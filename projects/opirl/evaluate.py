"""Stage `evaluate`: every imitation policy anew, on episodes that no curve has seen."""

from __future__ import annotations

from collections.abc import Sequence

from common.study.model import Member, Metrics
from projects.opirl.artefacts import load_policy
from projects.opirl.played import stacked
from projects.opirl.rollout import run as roll


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: `return`, `return_std` over episodes, `normalised` (0 random, 1 expert)."""
    first = members[0]
    policies = [load_policy(member.inputs["imitate"][0].folder) for member in members]
    seeds = [int(member.axes["seed"]) for member in members]
    episodes = roll(
        stacked(policies), str(first.axes["env"]), int(first.cfg["evaluate"]["episodes"]), seeds, "test"
    )
    result: list[Metrics] = []
    for member, one in zip(members, episodes, strict=True):
        expert = member.inputs["expert"][0].metrics
        low, high = expert["random_return"], expert["expert_return"]
        value = float(one.returns.mean())
        result.append(
            {
                "return": value,
                "return_std": float(one.returns.std()),
                "normalised": (value - low) / max(high - low, 1e-9),
            }
        )
    return result
