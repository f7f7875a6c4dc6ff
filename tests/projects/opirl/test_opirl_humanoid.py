"""The humanoid, the largest task, against its published description."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from projects.opirl.envs import make
from projects.opirl.envs.state import get_state, set_state

# joint: range in degrees, gear of its motor
JOINTS = {
    "abdomen_z": ((-45, 45), 100),
    "abdomen_y": ((-75, 30), 100),
    "abdomen_x": ((-35, 35), 100),
    "right_hip_x": ((-25, 5), 100),
    "right_hip_z": ((-60, 35), 100),
    "right_hip_y": ((-110, 20), 300),
    "right_knee": ((-160, -2), 200),
    "left_hip_x": ((-25, 5), 100),
    "left_hip_z": ((-60, 35), 100),
    "left_hip_y": ((-110, 20), 300),
    "left_knee": ((-160, -2), 200),
    "right_shoulder1": ((-85, 60), 25),
    "right_shoulder2": ((-85, 60), 25),
    "right_elbow": ((-90, 50), 25),
    "left_shoulder1": ((-60, 85), 25),
    "left_shoulder2": ((-60, 85), 25),
    "left_elbow": ((-90, 50), 25),
}
# radius and length (0: a sphere) of the capsules of each body, in metres
BODIES = {
    "torso": [(0.07, 0.14), (0.09, 0), (0.06, 0.12)],
    "lwaist": [(0.06, 0.12)],
    "pelvis": [(0.09, 0.14)],
    "thigh": [(0.06, math.hypot(0.34, 0.01))],
    "shin": [(0.049, 0.3)],
    "foot": [(0.075, 0)],
    "upper_arm": [(0.04, 0.16 * math.sqrt(3))],
    "lower_arm": [(0.031, 0.16 * math.sqrt(3)), (0.04, 0)],
}
DENSITY = 1000


def fresh() -> tuple[Any, Any]:
    """The task after a reset, and its simulation."""
    env = make("humanoid", 0)
    env.reset()
    return env, env.unwrapped.data


def test_masses() -> None:
    """Those of capsules as dense as water."""
    model = make("humanoid", 0).unwrapped.model
    total = 0.0
    for i in range(1, model.nbody):
        body = model.body(i)
        parts = BODIES[body.name.removeprefix("right_").removeprefix("left_")]
        volume = sum(4 / 3 * math.pi * r**3 + math.pi * r**2 * length for r, length in parts)
        assert body.mass[0] == pytest.approx(DENSITY * volume), body.name
        total += DENSITY * volume
    assert model.nbody == 1 + 13 and model.body("torso").subtreemass[0] == pytest.approx(total)


def test_joints_ranges_and_gears() -> None:
    model = make("humanoid", 0).unwrapped.model
    assert [model.joint(i).name for i in range(model.njnt)] == ["root", *JOINTS]
    assert (model.nq, model.nv, model.nu) == (7 + 17, 6 + 17, 17)
    for name, (bounds, gear) in JOINTS.items():
        assert np.degrees(model.joint(name).range) == pytest.approx(bounds)
        assert model.actuator(name).gear[0] == gear
        assert model.actuator(name).trnid[0] == model.joint(name).id
    # the motors' order is not the joints'
    assert [model.actuator(i).name for i in range(3)] == ["abdomen_y", "abdomen_z", "abdomen_x"]
    assert model.opt.timestep * 5 == pytest.approx(0.015)


@pytest.mark.parametrize("share", [1.0, -1.0, 0.0, 0.25])
def test_actions_are_shares_of_the_motors_range(share: float) -> None:
    """[-1, 1] as in every task; the motors take [-0.4, 0.4]."""
    env, data = fresh()
    env.step(np.full(17, share, np.float32))
    assert env.unwrapped.model.actuator_ctrlrange.tolist() == [[-0.4, 0.4]] * 17
    np.testing.assert_allclose(data.ctrl, 0.4 * share, rtol=1e-6)


def test_observation_and_reward_by_hand() -> None:
    env, data = fresh()
    for _ in range(12):  # until its feet touch the floor: the contact terms are then not zero
        env.step(np.zeros(17, np.float32))
    mass = env.unwrapped.model.body_mass
    before = mass @ data.xipos[:, 0] / mass.sum()
    after, reward, terminated, *_ = env.step(np.full(17, 0.5, np.float32))
    by_hand = [
        data.qpos[2:],  # without x, y: 22
        data.qvel,  # 23
        data.cinert[1:].ravel(),  # bodies without the world: 13 x 10
        data.cvel[1:].ravel(),  # 13 x 6
        data.qfrc_actuator[6:],  # without the root: 17
        data.cfrc_ext[1:].ravel(),  # 13 x 6
    ]
    assert [len(part) for part in by_hand] == [22, 23, 130, 78, 17, 78]
    np.testing.assert_array_equal(after, np.concatenate(by_hand).astype(np.float32))
    assert np.abs(data.cfrc_ext).max() > 0
    forward = 1.25 * (mass @ data.xipos[:, 0] / mass.sum() - before) / 0.015
    effort = 0.1 * 17 * (0.4 * 0.5) ** 2
    contact = min(5e-7 * np.square(data.cfrc_ext).sum(), 10.0)
    assert reward == pytest.approx(forward + 5.0 - effort - contact)
    assert not terminated


@pytest.mark.parametrize(("height", "ends"), [(0.9, True), (1.1, False), (1.9, False), (2.2, True)])
def test_it_ends_where_its_torso_is_not_between_one_and_two_metres(height: float, ends: bool) -> None:
    env, data = fresh()
    data.qpos[2], data.qvel[:] = height, 0.0
    _, _, terminated, truncated, info = env.step(np.zeros(17, np.float32))
    assert (terminated, truncated) == (ends, False)
    assert info["reward_survive"] == (0.0 if ends else 5.0)


def test_a_thawed_humanoid_is_paid_from_where_it_was() -> None:
    """Its speed is that of the centre of mass, which lags behind the coordinates until the next step."""
    env, data = fresh()
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 17)).astype(np.float32):
        env.step(action)
    state, centres = get_state(env), data.xipos.copy()
    other, thawed = fresh()
    set_state(other, state)
    assert np.array_equal(thawed.xipos, centres)
    still = np.zeros(17, np.float32)
    assert other.step(still)[1] == env.step(still)[1]
