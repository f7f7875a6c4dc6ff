"""The environments against their published description, and their states frozen and thawed."""

from __future__ import annotations

import io
import math

import mujoco
import numpy as np
import pytest
import torch

from common.errors import BadInputError
from projects.opirl.envs import SPECS, make, spec, task_observation
from projects.opirl.envs.pointmaze import GOALS
from projects.opirl.envs.state import get_state, set_state

ANTS = ("custom_ant", "amputated_ant", "big_ant")
MAZES = ("pointmaze_left", "pointmaze_right", "pointmaze_two_goals", "pointmaze_two_goals_told")


def actions(name, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, SPECS[name].act_dim)).astype(np.float32)


def roll(env, plan):
    """(obs, reward, terminated, truncated) of every step; episodes that end are reset."""
    rows = []
    for action in plan:
        obs, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs.tobytes(), reward, terminated, truncated))
        if terminated or truncated:
            rows.append(env.reset()[0].tobytes())
    return rows


@pytest.mark.parametrize("name", SPECS)
def test_spaces_are_as_declared(name):
    env = make(name, 0)
    obs, _ = env.reset()
    after, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert obs.shape == after.shape == env.observation_space.shape == (SPECS[name].obs_dim,)
    assert obs.dtype == after.dtype == np.float32
    assert env.action_space.shape == (SPECS[name].act_dim,)
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    assert isinstance(reward, float) and isinstance(terminated, bool) and isinstance(truncated, bool)


@pytest.mark.parametrize("name", SPECS)
def test_a_seed_fixes_everything_and_seeds_differ(name):
    runs = []
    for seed in (3, 3, 4):
        env = make(name, seed)
        runs.append([env.reset()[0].tobytes(), *roll(env, actions(name, 30))])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("before", [0, 7, 23])
def test_thawed_state_continues_to_the_same_bits(name, before):
    """Also into an environment with another past, through a file, and across the next reset."""
    env = make(name, 1)
    env.reset()
    roll(env, actions(name, before))
    file = io.BytesIO()
    torch.save(get_state(env), file)
    file.seek(0)
    expected = roll(env, actions(name, 120, seed=5))
    other = make(name, 99)
    other.reset()
    roll(other, actions(name, 11, seed=6))
    set_state(other, torch.load(file, weights_only=True))
    assert roll(other, actions(name, 120, seed=5)) == expected


def test_saved_state_is_a_copy():
    env = make("pointmaze_left", 0)
    env.reset()
    state = get_state(env)
    frozen = state["physics"].clone()
    roll(env, actions("pointmaze_left", 5))
    assert torch.equal(state["physics"], frozen)


@pytest.mark.parametrize("name", [n for n, s in SPECS.items() if s.horizon == 100])
def test_time_out_is_truncation_not_termination(name):
    env = make(name, 0)
    env.reset()
    ends = [env.step(action)[2:4] for action in actions(name, 100)]
    assert ends[:-1] == [(False, False)] * 99
    assert ends[-1] == (False, True)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(2))


def test_horizons():
    assert {s.horizon for n, s in SPECS.items() if n in MAZES} == {100}
    assert {s.horizon for n, s in SPECS.items() if n not in MAZES} == {1000}


def test_ant_times_out_without_terminating():
    env = make("amputated_ant", 0)
    env.reset()
    ends = [env.step(np.zeros(8))[2:4] for _ in range(1000)]
    assert ends[-2:] == [(False, False), (False, True)]


@pytest.mark.parametrize("name", ["inverted_double_pendulum", "hopper", "walker2d", "ant", "humanoid"])
def test_a_fall_is_termination_not_truncation(name):
    env = make(name, 0)
    env.reset()
    for action in np.sign(actions(name, 1000, seed=2)):
        _, _, terminated, truncated, _ = env.step(action)
        if terminated:
            break
    assert terminated and not truncated


def test_unknown_name():
    with pytest.raises(BadInputError, match="pointmaze_left"):
        spec("pointmaze_lef")


# --- the maze ---


def test_maze_model():
    model = make("pointmaze_left", 0).unwrapped.model
    assert model.body("particle").mass == pytest.approx(1000 * 4 / 3 * math.pi * 0.03**3)
    assert model.dof_damping.tolist() == [1.0, 1.0]
    assert model.actuator_ctrlrange.tolist() == [[-1, 1], [-1, 1]]
    assert model.opt.gravity.tolist() == [0, 0, 0]
    assert model.opt.timestep * 5 == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [("pointmaze_left", -0.1, 0.4), ("pointmaze_right", 0.2, 0.6), ("pointmaze_two_goals", 0.1, 0.4)],
)
def test_barrier(name, left, right):
    barrier = make(name, 0).unwrapped.model.geom("barrier")
    assert barrier.pos[:2] == pytest.approx([(left + right) / 2, 0.3])
    assert barrier.size[:2] == pytest.approx([0.02, (right - left) / 2])


def test_maze_starts_and_targets():
    env = make("pointmaze_left", 0)
    starts = np.stack([env.reset()[0] for _ in range(400)])
    assert set(np.round(starts[:, 3] / 0.04).astype(int)) == set(range(13))
    np.testing.assert_allclose(starts[:, 3], np.round(starts[:, 3] / 0.04) * 0.04, atol=1e-6)
    assert (starts[:, 4] == 0.5).all() and (starts[:, [2, 5]] == 0).all()
    assert np.abs(starts[:, :2] - [0.3, 0.0]).max() <= 0.05 + 1e-6


@pytest.mark.parametrize("name", MAZES)
def test_maze_reward_by_hand(name):
    env = make(name, 4)
    obs, _ = env.reset()
    action = np.array([0.5, -2.0], np.float32)  # beyond the limits: the force and its cost are clipped
    _, reward, *_, info = env.step(action)
    to_goals = min(np.linalg.norm(obs[:2] - np.array(goal[:2])) for goal in GOALS)
    to_target = np.linalg.norm(obs[:3] - obs[3:])
    effort = 0.001 * (0.5**2 + 1.0**2)
    shown = to_goals if name == "pointmaze_two_goals" else to_target
    assert reward == pytest.approx(-shown - effort, abs=1e-6)
    if name == "pointmaze_two_goals_told":
        assert info["task_reward"] == pytest.approx(-to_goals - effort, abs=1e-6)


def drive(name, route, seed):
    """Push straight towards each way point in turn, then the target; the last distance to it."""
    env = make(name, seed)
    obs, _ = env.reset()
    queue = [*route]
    for _ in range(100):
        goal = queue[0] if queue else obs[3:5]
        if queue and np.linalg.norm(obs[:2] - goal) < 0.05:
            queue.pop(0)
        obs, *_ = env.step(np.clip(8 * (goal - obs[:2]), -1, 1))
    return float(np.linalg.norm(obs[:2] - obs[3:5]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("pointmaze_left", [np.array([0.5, 0.2]), np.array([0.5, 0.4])]),
        ("pointmaze_right", [np.array([0.08, 0.2]), np.array([0.08, 0.4])]),
    ],
)
def test_way_round_is_open_and_the_other_way_is_shut(name, route, seed):
    assert drive(name, route, seed) < 0.05
    mirrored = [np.array([0.58 - point[0], point[1]]) for point in route]
    assert drive(name, mirrored, seed) > 0.15


def test_two_goals_are_mirror_images():
    env = make("pointmaze_two_goals", 0)
    env.reset()
    rewards = []
    for side in (1.0, -1.0):
        env.unwrapped.data.qpos[:] = 0.0
        env.unwrapped.data.qvel[:] = 0.0
        env.unwrapped.data.qacc_warmstart[:] = 0.0
        plan = [np.array([side, 0.0])] * 8 + [np.array([0.2 * side, 1.0])] * 14
        rewards.append([env.step(action)[1] for action in plan])
    np.testing.assert_allclose(rewards[0], rewards[1], atol=1e-9)
    assert rewards[0][-1] > -0.1


def test_demonstrator_is_told_a_goal_that_the_task_hides():
    env = make("pointmaze_two_goals_told", 0)
    told = np.stack([env.reset()[0] for _ in range(200)])
    share = (told[:, 3] == 0.0).mean()
    assert set(told[:, 3].tolist()) == {0.0, 0.5} and 0.4 < share < 0.6
    hidden = task_observation("pointmaze_two_goals", told)
    assert (hidden[:, :3] == told[:, :3]).all()
    task, _ = make("pointmaze_two_goals", 0).reset()
    assert (hidden[:, 3:] == task[3:]).all()
    assert task_observation("pointmaze_left", told) is told


# --- the ants ---


def test_custom_ant_is_gymnasiums_ant_but_for_friction_and_gear():
    ours, theirs = (make(n, 0).unwrapped.model for n in ("custom_ant", "ant"))
    for fact in ("body_mass", "body_inertia", "body_pos", "jnt_axis", "jnt_range", "dof_damping"):
        np.testing.assert_allclose(getattr(ours, fact), getattr(theirs, fact), err_msg=fact)
    np.testing.assert_allclose(ours.geom_size, theirs.geom_size)
    assert ours.dof_armature.tolist() == theirs.dof_armature.tolist()
    assert ours.actuator_trnid[:, 0].tolist() == theirs.actuator_trnid[:, 0].tolist()
    assert ours.opt.integrator == theirs.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert ours.opt.timestep == theirs.opt.timestep == 0.01
    assert (ours.geom_friction == [1.5, 0.5, 0.5]).all()
    assert (ours.actuator_gear[:, 0] == 30).all() and (theirs.actuator_gear[:, 0] == 150).all()


@pytest.mark.parametrize(
    ("name", "thighs", "shins", "gears"),
    [
        ("custom_ant", [0.2] * 4, [0.4] * 4, [30] * 4),
        ("amputated_ant", [0.2, 0.2, 0.1, 0.1], [0.4, 0.4, 0.2, 0.2], [30, 30, 1, 1]),
        ("big_ant", [0.2] * 4, [0.8] * 4, [150] * 4),
    ],
)
def test_ant_legs(name, thighs, shins, gears):
    model = make(name, 0).unwrapped.model
    for leg, thigh, shin, gear in zip(range(1, 5), thighs, shins, gears, strict=True):
        assert model.geom(f"thigh_{leg}").size[1] == pytest.approx(thigh * math.sqrt(2) / 2)
        assert model.geom(f"shin_{leg}").size[1] == pytest.approx(shin * math.sqrt(2) / 2)
        for part in ("hip", "ankle"):
            joint = model.joint(f"{part}_{leg}").id
            motor = model.actuator_trnid[:, 0].tolist().index(joint)
            assert model.actuator_gear[motor, 0] == gear


def test_ants_agree_on_the_order_of_motors_and_joints():
    orders = [make(n, 0).unwrapped.model.actuator_trnid[:, 0].tolist() for n in ANTS]
    assert orders[0] == orders[1] == orders[2]
    names = [[make(n, 0).unwrapped.model.joint(i).name for i in range(9)] for n in ANTS]
    assert names[0] == names[1] == names[2]


@pytest.mark.parametrize("name", ANTS)
def test_ant_observation_and_reward_by_hand(name):
    env = make(name, 0)
    env.reset()
    data = env.unwrapped.data
    for _ in range(40):  # until it has landed: the contact terms are then not zero
        env.step(np.zeros(8))
    action = np.full(8, 0.5, np.float32)
    speed = data.qvel[0]
    after, reward, terminated, _, _ = env.step(action)
    np.testing.assert_array_equal(after[:13], data.qpos[2:].astype(np.float32))
    np.testing.assert_array_equal(after[13:27], data.qvel.astype(np.float32))
    contact = np.clip(data.cfrc_ext, -1, 1)
    np.testing.assert_array_equal(after[27:].reshape(14, 6), contact.astype(np.float32))
    assert np.abs(contact).max() > 0 and (contact[0] == 0).all()
    by_hand = speed - 0.01 * 8 * 0.25 - 5e-4 * np.square(contact).sum() - (data.qpos[2] < 0.2)
    assert reward == pytest.approx(by_hand)
    assert not terminated


def test_flipped_ant_pays_one():
    env = make("custom_ant", 0)
    env.reset()
    env.unwrapped.data.qpos[2] = -5.0
    env.unwrapped.data.qvel[:] = 0.0
    _, _, terminated, _, terms = env.step(np.zeros(8))
    assert terms["flipped"] == -1.0 and not terminated
