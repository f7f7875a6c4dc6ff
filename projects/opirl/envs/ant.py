"""CustomAnt and the two ants to which its reward is transferred: AmputatedAnt and BigAnt.

The models follow the published description (AIRL's "disabled ant", OPIRL's environments): gymnasium's Ant with
friction 1.5; motors of gear 30 (custom, amputated) or 150 (big); the amputated ant's legs 3 and 4 have half
the thigh and half the shin and motors of gear 1; the big ant's shins are twice as long. Lengths are offsets in
x and in y, as in gymnasium's model.

Two choices of ours. The order of the motors is the same in all three ants (gymnasium's: leg 4 first): the
released amputated model lists them from leg 1, so that r(s, a) would speak of other motors in the target. The
released models' eyes and brows, mere decoration, are left out.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco ships no stubs for its compiled part)

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

FRAME_SKIP = 5
HIP = 0.2
# sign of the leg's direction in x and y, ankle axis, ankle range
LEGS = {
    1: ((1, 1), "-1 1 0", "30 70"),
    2: ((-1, 1), "1 1 0", "-70 -30"),
    3: ((-1, -1), "-1 1 0", "-70 -30"),
    4: ((1, -1), "1 1 0", "30 70"),
}
MOTOR_ORDER = (4, 1, 2, 3)
Leg = tuple[float, float, float]
WHOLE: Leg = (0.2, 0.4, 30.0)
STUMP: Leg = (0.1, 0.2, 1.0)
LONG: Leg = (0.2, 0.8, 150.0)
# thigh, shin and gear of legs 1 to 4
ANTS: dict[str, tuple[Leg, Leg, Leg, Leg]] = {
    "custom_ant": (WHOLE, WHOLE, WHOLE, WHOLE),
    "amputated_ant": (WHOLE, WHOLE, STUMP, STUMP),
    "big_ant": (LONG, LONG, LONG, LONG),
}


def _capsule(name: str, x: float, y: float) -> str:
    return f'<geom name="{name}" type="capsule" size="0.08" fromto="0 0 0 {x} {y} 0"/>'


def _leg(index: int, thigh: float, shin: float) -> str:
    (sx, sy), axis, bounds = LEGS[index]
    return f"""
      <body name="leg_{index}">
        {_capsule(f"aux_{index}", sx * HIP, sy * HIP)}
        <body name="thigh_{index}" pos="{sx * HIP} {sy * HIP} 0">
          <joint name="hip_{index}" type="hinge" axis="0 0 1" range="-30 30"/>
          {_capsule(f"thigh_{index}", sx * thigh, sy * thigh)}
          <body name="shin_{index}" pos="{sx * thigh} {sy * thigh} 0">
            <joint name="ankle_{index}" type="hinge" axis="{axis}" range="{bounds}"/>
            {_capsule(f"shin_{index}", sx * shin, sy * shin)}
          </body>
        </body>
      </body>"""


def mjcf(name: str) -> str:
    """The MJCF model of an ant of `ANTS`. Legs touch the floor, not each other."""
    legs = ANTS[name]
    bodies = "".join(_leg(i, thigh, shin) for i, (thigh, shin, _) in enumerate(legs, 1))
    motors = "\n".join(
        f'<motor joint="{part}_{i}" gear="{legs[i - 1][2]}" ctrllimited="true" ctrlrange="-1 1"/>'
        for i in MOTOR_ORDER
        for part in ("hip", "ankle")
    )
    return f"""
<mujoco model="{name}">
  <compiler inertiafromgeom="true" angle="degree"/>
  <option timestep="0.01" integrator="RK4"/>
  <default>
    <joint armature="1" damping="1" limited="true"/>
    <geom friction="1.5 0.5 0.5" density="5" margin="0.01" condim="3" conaffinity="0"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="40 40 40" conaffinity="1"/>
    <body name="torso" pos="0 0 0.75">
      <geom name="torso" type="sphere" size="0.25"/>
      <joint name="root" type="free" armature="0" damping="0" limited="false" margin="0.01"/>{bodies}
    </body>
  </worldbody>
  <actuator>
    {motors}
  </actuator>
</mujoco>"""


class CustomAnt(gymnasium.Env):
    """Reward at (s, a, s'): forward speed in s - 0.01 |a|^2 - 5e-4 |contact in s'|^2 - [height of s' < 0.2].

    Observation (111): positions without x, y (13), velocities (14), contact forces of the 14 bodies, the
    world's zeros first, clipped to [-1, 1] (84). Episodes never terminate.
    """

    def __init__(self, name: str) -> None:
        self.model = mujoco.MjModel.from_xml_string(mjcf(name))
        self.data = mujoco.MjData(self.model)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (111,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (8,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos += self.np_random.uniform(-0.1, 0.1, self.model.nq)
        self.data.qvel[:] = 0.1 * self.np_random.standard_normal(self.model.nv)
        mujoco.mj_forward(self.model, self.data)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        control = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        forward = float(self.data.qvel[0])
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data, nstep=FRAME_SKIP)
        # MuJoCo >= 2.0 leaves the contact forces at zero unless asked
        mujoco.mj_rnePostConstraint(self.model, self.data)
        obs = self._observe()
        contact = obs[27:]
        terms = {
            "forward": forward,
            "effort": -0.01 * float(control @ control),
            "contact": -5e-4 * float(contact @ contact),
            "flipped": -float(not self.data.qpos[2] >= 0.2),
        }
        return obs, sum(terms.values()), False, False, terms

    def _observe(self) -> NDArray[np.float64]:
        contact = np.clip(self.data.cfrc_ext, -1.0, 1.0).ravel()
        return np.concatenate([self.data.qpos[2:], self.data.qvel, contact])
