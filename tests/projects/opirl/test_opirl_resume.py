"""A training that is stopped or breaks, and goes on, leaves the bits of one that was not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from common.errors import StoppedError
from common.study.model import Member
from common.training import checkpoint, stop
from tests.projects.opirl import support
from tests.projects.opirl.stages import AtStep, Stages, break_at, left_by, plain, stop_at
from tests.projects.opirl.support import MAZE, PENDULUM

SEEDS = (0, 1)
CASES = {
    # step by step: stops before the first update, in the random phase and later
    ("opirl", PENDULUM): (3, 20, 37),
    ("dac", PENDULUM): (26,),
    ("sac", MAZE): (26,),
    ("airl", PENDULUM): (0, 1, 2),
    ("bc", MAZE): (5, 30),
}


def config(method: str, env: str) -> dict[str, Any]:
    return support.config(
        method, env, imitate={"steps": 48 if method != "airl" else 256}, evaluation={"every": 12, "episodes": 1},
        collect={"start": 8, "random_steps": 16}, demos={"count": 2},
    )  # fmt: skip


@pytest.fixture
def imitate(stages: Stages) -> Callable[..., tuple[list[Member], str]]:
    """Run a method to its end in a folder, through these interruptions."""

    def run(method: str, env: str, folder: str, *interruptions: AtStep) -> tuple[list[Member], str]:
        if "expert" not in stages.finished:
            stages.given_experts(env, SEEDS)
        members = stages.members("imitate", config(method, env), SEEDS, folder)
        for one in interruptions:
            stages.at_step = one
            with pytest.raises((StoppedError, RuntimeError), match=r"a test|broken"):
                stages.run("imitate", members)
            stop.clear()
        stages.at_step = None
        return members, plain(stages.run("imitate", members))

    return run


def assert_equal(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> None:
    assert one.keys() == other.keys() and len(one) > 0
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.parametrize(("method", "env"), CASES)
def test_stops_change_no_bit(imitate: Callable[..., Any], method: str, env: str) -> None:
    """Curves, replay files, policies, rewards and metrics."""
    whole, metrics = imitate(method, env, "whole")
    stopped, again = imitate(method, env, "stopped", *map(stop_at, CASES[method, env]))
    assert_equal(left_by(whole), left_by(stopped))
    assert metrics == again
    names = {name.partition("/")[2] for name in left_by(whole)}
    assert {"history.jsonl", "policy.npz"} <= names
    assert ("reward.npz" in names) == (method in ("opirl", "airl"))
    assert any(name.startswith("replay-") for name in names) == (method in ("opirl", "dac", "sac"))


@pytest.mark.parametrize(("method", "env"), [("opirl", PENDULUM), ("airl", PENDULUM)])
def test_a_crash_between_checkpoints_changes_no_bit(
    imitate: Callable[..., Any], stages: Stages, method: str, env: str
) -> None:
    """Rows of replay and history that no checkpoint knows are cut, and made again."""
    whole, metrics = imitate(method, env, "whole")
    stages.checkpoint_steps = 16 if method == "opirl" else 1
    crashes = (6, 22, 45) if method == "opirl" else (1, 3)
    broken, again = imitate(method, env, "broken", *map(break_at, crashes))
    assert_equal(left_by(whole), left_by(broken))
    assert metrics == again


def test_a_training_that_ended_is_not_done_again(imitate: Callable[..., Any], stages: Stages) -> None:
    members, metrics = imitate("opirl", PENDULUM, "whole")
    before = left_by(members)
    stages.at_step = break_at(0)
    assert plain(stages.run("imitate", members)) == metrics
    assert_equal(before, left_by(members))


def test_a_checkpoint_holds_every_weight_and_optimiser(imitate: Callable[..., Any], stages: Stages) -> None:
    members, _ = imitate("opirl", PENDULUM, "whole")
    (path, *_) = sorted((members[0].out / "checkpoints").glob("*.ckpt"), reverse=True)
    state = checkpoint.read(path)
    weights = {name for name in state["state_dict"] if name.endswith("flat")}
    nets = ("agent.actor", "agent.critic", "agent.target", "discriminator.reward", "discriminator.value")
    assert {f"arm.{net}" for net in nets} == {
        name.removesuffix(".flat").removesuffix(".net") for name in weights
    }
    assert len(state["optimizer_states"]) == 4


def test_another_membership_starts_afresh(imitate: Callable[..., Any], stages: Stages) -> None:
    """A checkpoint of seeds 0 and 1 is none of seed 0 alone."""
    whole, _ = imitate("opirl", PENDULUM, "whole")
    members = stages.members("imitate", config("opirl", PENDULUM), SEEDS, "some")
    stages.at_step = stop_at(20)
    with pytest.raises(StoppedError):
        stages.run("imitate", members)
    stop.clear()
    stages.at_step = None
    stages.run("imitate", members[:1])
    kept = {
        name: raw for name, raw in left_by(whole).items() if name.startswith("0/") and "replay-1" not in name
    }
    alone = {name: raw for name, raw in left_by(members[:1]).items() if "replay-1" not in name}
    assert_equal(kept, alone)
