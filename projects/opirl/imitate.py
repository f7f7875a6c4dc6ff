"""Stage `imitate`: every method learns from the same demonstrations of the same seed's expert."""

from __future__ import annotations

from collections.abc import Sequence

from common.study.model import Member, Metrics
from projects.opirl import demos
from projects.opirl.arm import build, code_of
from projects.opirl.artefacts import save_policy, save_reward
from projects.opirl.module import Training
from projects.opirl.training import first_reaching, setting_of, train

GOAL = 0.8
"""Share of the way from the random policy's return to the expert's that counts as arriving."""


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Train, evaluate on the way, and leave the policy and the learned reward.

    Metrics: `interactions_to_80` (interpolated between evaluations; never: twice `imitate.steps`), `final_return`
    (mean of the last three evaluations), `normalised` (0 random, 1 expert), `area` under the normalised curve,
    interactions by purpose.
    """
    first = members[0]
    options = first.cfg["imitate"]
    env, method = str(first.axes["env"]), str(first.axes["method"])
    held = [demos.load(member.inputs["expert"][0].folder) for member in members]
    count = int(first.cfg["demos"]["count"])
    chosen = [
        demos.choose(one, count, int(member.axes["seed"])) for one, member in zip(held, members, strict=True)
    ]
    setting = setting_of(members, env, int(options["steps"]), chosen)
    code = code_of(method)
    module = train(members, setting, lambda where: build(code, where))
    for policy, member in zip(module.arm.policies(), members, strict=True):
        save_policy(policy, member.out)
    for reward, member in zip(module.arm.rewards(), members, strict=False):
        save_reward(reward, member.out)
    return [measure(module, i, member, float(options["steps"])) for i, member in enumerate(members)]


def measure(module: Training, index: int, member: Member, cap: float) -> Metrics:
    """One member's metrics from its learning curve."""
    interactions, returns = module.returns()
    curve = returns[:, index]
    expert = member.inputs["expert"][0].metrics
    low, high = expert["random_return"], expert["expert_return"]
    scale = max(high - low, 1e-9)
    final = float(curve[-3:].mean())
    return {
        "interactions_to_80": first_reaching(interactions, curve, low + GOAL * (high - low), 2.0 * cap),
        "final_return": final,
        "normalised": (final - low) / scale,
        "area": float((curve.mean() - low) / scale),
        **module.arm.counters[index].metrics(),
    }
