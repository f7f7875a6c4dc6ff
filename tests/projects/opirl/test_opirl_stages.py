"""Every stage in every environment at a size of no meaning: it runs, and leaves what the next one needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from projects.opirl.envs import SPECS
from tests.projects.opirl import support
from tests.projects.opirl.stages import Stages

SEEDS = (0, 1)
STEPS = 40
BIG = [
    "hopper",
    pytest.param("halfcheetah", marks=pytest.mark.slow),
    pytest.param("walker2d", marks=pytest.mark.slow),
    "ant",
    "humanoid",
    "pointmaze_two_goals",
]


def config(stage: str, method: str, env: str, **changes: Any) -> dict[str, Any]:
    few = {"steps": STEPS, "episodes": 2}
    return support.config(
        method, env, stage,
        expert=few, imitate=few, transfer=few | changes, evaluate={"episodes": 2}, demos={"count": 1},
        collect={"start": 10, "random_steps": 20}, evaluation={"every": 20, "episodes": 1},
    )  # fmt: skip


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of 25 steps: what is not under test takes most of the time."""
    for name, facts in SPECS.items():
        monkeypatch.setitem(SPECS, name, replace(facts, horizon=25))


def run(stages: Stages, stage: str, method: str, env: str, **axes: str) -> Any:
    folder = f"{stage} {method} {axes}"
    cfg = config(stage, method, env, **({"kind": axes.pop("kind")} if "kind" in axes else {}))
    metrics = stages.run(stage, stages.members(stage, cfg, SEEDS, folder, **axes))
    assert len(metrics) == len(SEEDS)
    assert all(np.isfinite(value) for one in metrics for value in one.values())
    return metrics


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("env", BIG)
def test_expert_imitate_evaluate(stages: Stages, env: str) -> None:
    expert = run(stages, "expert", "sac", env)
    # another 2 episodes are the recorded demonstrations
    assert [one["interactions_training"] for one in expert] == [STEPS, STEPS]
    assert all(0 < one["interactions_reward_collection"] <= 50 for one in expert)
    imitated = run(stages, "imitate", "opirl", env)
    assert [one["interactions_training"] for one in imitated] == [STEPS, STEPS]
    assert all(0 < one["interactions_evaluation"] <= 3 * 25 for one in imitated)
    evaluated = run(stages, "evaluate", "opirl", env)
    assert ("overlap" in evaluated[0]) == bool(SPECS[env].demonstrator)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("target", ["amputated_ant", "big_ant"])
def test_transfer_of_the_ants(stages: Stages, target: str) -> None:
    run(stages, "expert", "sac", "custom_ant")
    run(stages, "imitate", "opirl", "custom_ant")
    for kind in ("reward", "permuted", "policy", "true", "random"):
        got = run(stages, "transfer", "opirl", "custom_ant", target=target, kind=kind)
        trained = 0 if kind == "policy" else STEPS
        assert [one["interactions_training"] for one in got] == [trained, trained]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("method", ["dac", "airl", "bc", "random", "release"])
def test_the_rivals_learn_the_ant(stages: Stages, method: str) -> None:
    """The widest observations, and the first that end early."""
    stages.given_experts("ant", SEEDS)
    run(stages, "imitate", method, "ant")
