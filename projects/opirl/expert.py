"""Stage `expert`: SAC on the true reward, and its demonstrations as an artefact."""

from __future__ import annotations

from collections.abc import Sequence

from common.study.model import Member, Metrics
from projects.opirl import demos
from projects.opirl.artefacts import save_policy
from projects.opirl.envs import spec
from projects.opirl.given import TrueReward
from projects.opirl.rollout import Counters
from projects.opirl.training import random_policy, scores, setting_of, train


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Train an expert for each seed, record what it does, measure it and a random policy.

    Metrics: `expert_return` of the recorded demonstrations, `random_return`, interactions by purpose.
    """
    task = str(members[0].axes["env"])
    options = members[0].cfg["expert"]
    setting = setting_of(members, spec(task).demonstrator or task, int(options["steps"]), ())
    arm = train(members, setting, TrueReward).arm
    counters = [Counters(one.training, one.evaluation) for one in arm.counters]
    recorded = demos.record(arm.act, task, int(options["episodes"]), setting.seeds, counters)
    floor = scores(
        random_policy(setting.seeds, setting.spec.act_dim), task, setting.seeds, int(options["episodes"])
    )
    result: list[Metrics] = []
    for i, member in enumerate(members):
        made = {
            "algorithm": "SAC",
            "steps": setting.steps,
            "seed": setting.seeds[i],
            "policy": "deterministic mean",
        }
        demos.save(recorded[i], member.out, made)
        save_policy(arm.policies()[i], member.out)
        result.append(
            {
                "expert_return": float(recorded[i].episodes.returns.mean()),
                "random_return": float(floor[i]),
                **counters[i].metrics(),
            }
        )
    return result
