"""The expert's rows, the shuffled control, and each defect of the release: a switch changes what it names, alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import BadInputError
from projects.opirl import transfer
from projects.opirl.absorbing import absorbing_state
from projects.opirl.artefacts import Reward
from projects.opirl.demos import Demos, rows
from projects.opirl.expertise import expert_buffer, expert_rows, shuffled
from projects.opirl.given import FrozenReward
from projects.opirl.release import Switches, switches
from projects.opirl.replay import Batch, unpack
from tests.projects.opirl import support
from tests.projects.opirl.support import MAZE, PENDULUM

NAMES = [field.name for field in fields(Switches)]
OFF = Switches(**dict.fromkeys(NAMES, False))
SHIFT, SCALE = torch.zeros(9), torch.ones(9)


def mixed() -> Demos:
    """Episodes of the pendulum, the second of which is cut by a time-out."""
    one = support.held(PENDULUM, 0)
    terminated, truncated = one.episodes.terminated.copy(), one.episodes.truncated.copy()
    end = int(np.flatnonzero(one.episodes.episode == 1)[-1])
    terminated[end], truncated[end] = False, True
    return replace(one, episodes=replace(one.episodes, terminated=terminated, truncated=truncated))


def batch_of(part: Tensor) -> Batch:
    return unpack(part.unsqueeze(0), 1)


def expert(*names: str) -> Tensor:
    return expert_rows(mixed(), 2, SHIFT, SCALE, replace(OFF, **dict.fromkeys(names, True)))


# --- modes ---


def release(**chosen: Any) -> Switches:
    return switches({"mode": "paper", **dict.fromkeys(NAMES)} | chosen)


def test_modes_are_none_and_all() -> None:
    assert release() == OFF
    assert release(mode="release") == Switches(**dict.fromkeys(NAMES, True))


@pytest.mark.parametrize("name", NAMES)
def test_a_switch_overrides_its_mode(name: str) -> None:
    assert release(**{name: True}) == replace(OFF, **{name: True})
    every = Switches(**dict.fromkeys(NAMES, True))
    assert release(mode="release", **{name: False}) == replace(every, **{name: False})


def test_every_switch_can_be_set_in_the_config() -> None:
    assert set(support.config()["release"]) == {"mode", *NAMES}


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(BadInputError, match="paper"):
        release(mode="papper")


# --- the expert's rows ---


def test_without_defects_the_rows_are_the_demonstrations() -> None:
    assert torch.equal(expert(), rows(mixed(), 2, SHIFT, SCALE))
    assert torch.equal(expert("dead_log_pi", "cover_replay", "positive_part"), expert())


def test_expert_next_is_current_changes_ordinary_successors_alone() -> None:
    plain, defect = expert(), expert("expert_next_is_current")
    before, after = batch_of(plain), batch_of(defect)
    gone = before.s2[0, :, -1] == 1
    assert torch.equal(after.s2[0, gone], before.s2[0, gone])
    assert torch.equal(after.s2[0, ~gone], before.s[0, ~gone])
    kept = [*range(11), 21, 22]  # all of a row but s'
    assert torch.equal(defect[:, kept], plain[:, kept])


def test_absorbing_until_timeout_forgets_later_terminations_alone() -> None:
    episode = mixed().episodes.episode
    lengths = np.bincount(episode)
    plain, defect = expert(), expert("absorbing_until_timeout")
    assert len(plain) == lengths.sum() + 4 and len(defect) == lengths.sum() + 2
    until = lengths[0] + 2 + lengths[1] + lengths[2] - 1
    assert torch.equal(defect[:until], plain[:until])
    last = batch_of(defect)
    assert last.s2[0, -1, -1] == 0 and last.m[0, -1] == 1
    assert batch_of(plain).s2[0, -1].tolist() == absorbing_state(9).tolist()


def test_members_with_demonstrations_of_different_lengths(tmp_path: Path) -> None:
    where = support.setting(tmp_path, env=PENDULUM, seeds=(0, 1, 2))
    buffer = expert_buffer(where, 2, OFF)
    for i, one in enumerate(where.demos):
        part = rows(one, 2, where.shift[i], where.scale[i])
        assert buffer.sizes[i] == len(part) and torch.equal(buffer.rows[i, : len(part)], part)
    assert len(set(buffer.sizes)) > 1


def test_rows_are_in_the_units_in_which_the_learner_sees_its_own(make_arm: Callable[..., Any]) -> None:
    """Also where the learner bounds the scale: else the discriminator tells the units apart."""
    for method in ("opirl", "dac", "airl", "bc"):
        arm = make_arm(method, env=PENDULUM)
        for i, one in enumerate(arm.setting.demos):
            assert (torch.from_numpy(one.scale) > arm.setting.scale[i]).any()
            seen = (torch.from_numpy(one.episodes.obs) + arm.setting.shift[i]) * arm.setting.scale[i]
            stored = arm.expert.rows[i, : arm.expert.sizes[i]]
            ordinary = stored[stored[:, 9] == 0]
            torch.testing.assert_close(ordinary[:, :9], seen)


# --- the control of mode covering ---


def test_shuffled_actions_are_the_same_actions_of_other_states(tmp_path: Path) -> None:
    where = support.setting(tmp_path, env=PENDULUM, seeds=(0, 1))
    buffer = expert_buffer(where, 3, OFF)
    control, again = shuffled(buffer, where), shuffled(buffer, where)
    for i, size in enumerate(buffer.sizes):
        before, after = (unpack(x.rows[i : i + 1, :size], 1) for x in (buffer, control))
        assert torch.equal(control.rows[i, :size], again.rows[i, :size])
        for key in ("s", "s2", "r", "m"):
            assert torch.equal(getattr(before, key), getattr(after, key))
        gone = before.s[0, :, -1] == 1
        assert gone.any() and not after.a[0, gone].any()
        moved = before.a[0, ~gone, 0], after.a[0, ~gone, 0]
        assert torch.equal(moved[0].sort().values, moved[1].sort().values)
        assert (moved[0] != moved[1]).float().mean() > 0.8


def test_the_control_shuffles_what_the_covering_term_sees_alone(make_arm: Callable[..., Any]) -> None:
    plain, control = make_arm("covering"), make_arm("covering_shuffled")
    assert plain.covered is plain.expert and control.covered is not control.expert
    assert torch.equal(held_by(plain), held_by(control))


# --- switches of the learner ---


def learner(make_arm: Callable[..., Any], **on: bool) -> Any:
    none = {"positive_part": False}  # the one that base.yaml leaves on
    return make_arm("opirl", env=PENDULUM, cfg=support.config("opirl", PENDULUM, release=none | on))


def held_by(arm: Any) -> Tensor:
    return arm.expert.rows[0, : arm.expert.sizes[0]]


@pytest.mark.parametrize("name", ["dead_log_pi", "cover_replay", "positive_part", "expert_next_is_current"])
def test_each_switch_reaches_its_place_alone(make_arm: Callable[..., Any], name: str) -> None:
    arm = learner(make_arm, **{name: True})
    reached = {
        "dead_log_pi": arm.discriminator.options.dead_log_pi,
        "cover_replay": arm.algae.cover_replay,
        "positive_part": arm.algae.positive_part,
        "expert_next_is_current": not torch.equal(held_by(arm), held_by(learner(make_arm))),
    }
    assert reached == {key: key == name for key in reached}


def test_a_switch_changes_the_training_it_names(make_arm: Callable[..., Any]) -> None:
    """Same seed, same numbers: after a few updates every defect of imitation has left its own mark."""
    marks = {}
    for name in ("", "dead_log_pi", "cover_replay", "positive_part", "expert_next_is_current"):
        arm = learner(make_arm, **({name: True} if name else {}))
        for k in range(26):
            arm.step(k)
        marks[name] = (arm.discriminator.reward.flat.sum().item(), arm.agent.actor.net.flat.sum().item())
    reward = {name: mark[0] for name, mark in marks.items()}
    assert len(set(marks.values())) == len(marks)
    assert reward["dead_log_pi"] != reward[""] != reward["expert_next_is_current"]


# --- switches of the transfer ---


def frozen(make: Any, env: str, tmp_path: Path, absorbing: int, **on: bool) -> Any:
    where = support.setting(tmp_path, env=env, cfg=support.config("opirl", env, release=on))
    facts = where.spec
    layers = [torch.zeros(facts.obs_dim + 1 + facts.act_dim, 1), torch.zeros(1)]
    one = Reward(env, "opirl", layers, [], False, absorbing, where.shift[0], where.scale[0])
    return make(where, [one, one])


@pytest.mark.parametrize(("env", "ends"), [(MAZE, True), (PENDULUM, False)])
def test_time_outs_end_the_transfer_where_the_horizon_is_not_1000(
    tmp_path: Path, env: str, ends: bool
) -> None:
    def make(where: Any, rewards: Any) -> FrozenReward:
        return FrozenReward(where, rewards, absorbing=0)

    defect = frozen(make, env, tmp_path / "a", 2, transfer_timeouts_end=True)
    plain = frozen(make, env, tmp_path / "b", 2)
    assert (defect.collector.timeouts_end, plain.collector.timeouts_end) == (ends, False)
    for one in (*defect.journals().values(), *plain.journals().values()):
        one.close()


def transferred(where: Any, rewards: list[Reward], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the stage builds from a learned reward."""
    monkeypatch.setattr(transfer, "load_reward", lambda _: rewards[0])
    input_ = type("Ref", (), {"folder": folder})
    member = type("Member", (), {"inputs": {"imitate": [input_]}})
    return transfer.arm_of("reward", [member, member], where)  # type: ignore[list-item]


@pytest.mark.parametrize("on", [False, True])
def test_transfer_without_absorbing_drops_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: bool
) -> None:
    def make(where: Any, rewards: list[Reward]) -> Any:
        return transferred(where, rewards, tmp_path, monkeypatch)

    arm = frozen(make, PENDULUM, tmp_path / "a", 2, transfer_without_absorbing=on)
    assert arm.collector.absorbing == (0 if on else 2)
    for one in arm.journals().values():
        one.close()


def test_a_transferred_reward_speaks_in_its_own_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in those of the target's demonstrations (trap P5)."""

    def make(where: Any, rewards: list[Reward]) -> Any:
        other = replace(rewards[0], shift=torch.full((9,), 0.5), scale=torch.full((9,), 3.0))
        return transferred(where, [other, other], tmp_path, monkeypatch)

    arm = frozen(make, PENDULUM, tmp_path / "a", 2)
    states = arm.collector.states(torch.ones(2, 1, 9))
    assert (states[..., :-1] == 4.5).all() and (arm.policies()[0].scale == 3.0).all()
    for one in arm.journals().values():
        one.close()


def test_absorbing_states_can_be_left_out(make_arm: Callable[..., Any]) -> None:
    """An ablation (trap P12): terminations end the return, of the expert's rows too."""
    cfg = support.config("opirl", PENDULUM, absorbing={"per_episode": 0})
    arm = make_arm("opirl", env=PENDULUM, cfg=cfg)
    for k in range(40):
        arm.step(k)
    for rows_ in (held_by(arm), arm.collector.replay.rows[0, :40]):
        batch = batch_of(rows_)
        assert not batch.s[..., -1].any() and not batch.s2[..., -1].any() and (batch.m == 0).any()
    assert arm.rewards()[0].absorbing == 0
