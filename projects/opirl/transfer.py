"""Stage `transfer`: the reward learned in `env` re-optimised from scratch, frozen, in the changed dynamics of `target`.

`transfer.kind` says what is carried over: "reward" (the learned reward of arm `transfer.source`), "permuted" (the
same with its states permuted: the control), "policy" (the policy, without training), "true" (nothing: the target's
own reward) or "random" (nothing: a random reward). The optimiser is SAC in every arm (arXiv 2403.14593).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from common.errors import unknown
from common.study.model import Member, Metrics
from projects.opirl import demos
from projects.opirl.arm import Arm, Setting
from projects.opirl.artefacts import Policy, load_policy, load_reward, save_policy
from projects.opirl.envs import spec
from projects.opirl.given import FrozenReward, RandomReward, TrueReward
from projects.opirl.permuted import PermutedReward
from projects.opirl.played import stacked
from projects.opirl.release import switches
from projects.opirl.rollout import Counters, evaluate
from projects.opirl.training import random_policy, scores, setting_of, train

KINDS = ("reward", "permuted", "policy", "true", "random")


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: `final_return` in the target, `normalised` (0: a random policy there, 1: the source's expert's
    return in its own task), `random_return`, interactions by purpose."""
    options = members[0].cfg["transfer"]
    kind = str(options["kind"])
    if kind not in KINDS:
        raise unknown("transfer.kind", kind, KINDS)
    held = [demos.load(member.inputs["expert"][0].folder) for member in members]
    target = str(members[0].axes["target"])
    setting = setting_of(members, target, int(options["steps"]), held)
    episodes = int(options["episodes"])
    if kind == "policy":
        counters = [Counters() for _ in members]
        policies = [load_policy(member.inputs["imitate"][0].folder) for member in members]
        final = evaluate(stacked(policies), target, episodes, setting.seeds, counters).mean(1)
    else:
        module = train(members, setting, lambda where: arm_of(kind, members, where))
        counters, policies = module.arm.counters, module.arm.policies()
        final = evaluate(module.arm.act, target, episodes, setting.seeds, counters).mean(1)
    floor = scores(random_policy(setting.seeds, spec(target).act_dim), target, setting.seeds, episodes)
    return [
        measure(member, policy, counter, float(value), float(low))
        for member, policy, counter, value, low in zip(members, policies, counters, final, floor, strict=True)
    ]


def arm_of(kind: str, members: Sequence[Member], setting: Setting) -> Arm:
    """SAC on the reward that `kind` names."""
    if kind == "true":
        return TrueReward(setting)
    if kind == "random":
        return RandomReward(setting)
    rewards = [load_reward(member.inputs["imitate"][0].folder) for member in members]
    # a reward speaks of states in its own normalisation
    shift, scale = torch.stack([r.shift for r in rewards]), torch.stack([r.scale for r in rewards])
    setting = replace(setting, shift=shift, scale=scale)
    if kind == "permuted":
        return PermutedReward(setting, rewards)
    bare = switches(setting.cfg["release"]).transfer_without_absorbing
    return FrozenReward(setting, rewards, absorbing=0 if bare else rewards[0].absorbing)


def measure(member: Member, policy: Policy, counter: Counters, final: float, low: float) -> Metrics:
    """One member's metrics; leaves its policy."""
    save_policy(policy, member.out)
    high = member.inputs["expert"][0].metrics["expert_return"]
    return {
        "final_return": final,
        "random_return": low,
        "normalised": (final - low) / max(high - low, 1e-9),
        **counter.metrics(),
    }
