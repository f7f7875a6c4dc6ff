"""PointMaze: a point mass that must find its way round a barrier (Fu et al. 2018; OPIRL's transfer pair).

Geometry, masses and reward follow the published description: the arena spans x in [-0.1, 0.6] and y in
[-0.1, 0.6]; the barrier at y = 0.3 covers the left two thirds of the maze (`left`: the way leads round its
right end) or the right two thirds (`right`). The target's x is drawn from {0, 0.04, ..., 0.48}, its y is 0.5.

`two_goals` is ours: a bar in the middle of the arena, a goal on either side, mirror images of each other; the
reward counts the nearer goal, so that both are equally good. Its observation shows the point between the
goals in the target's place. `two_goals_told` is the same maze for its demonstrator, who is told which goal to
take (drawn with probability 1/2) in the target's place, so that demonstrations have two modes from the same
starts; `info["task_reward"]` is the reward that the untold task gives.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco ships no stubs for its compiled part)

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

LENGTH = 0.6
FRAME_SKIP = 5
TARGET_X = tuple(round(0.04 * i, 2) for i in range(13))
TARGET_Y = 0.5
AXIS = 0.25
GOALS = ((0.0, TARGET_Y, 0.0), (2 * AXIS, TARGET_Y, 0.0))
# start x, and the barrier's ends and height, of each maze
MAZES: dict[str, tuple[float, tuple[float, float, float]]] = {
    "left": (LENGTH / 2, (-0.1, LENGTH * 2 / 3, LENGTH / 2)),
    "right": (LENGTH / 2, (LENGTH / 3, LENGTH, LENGTH / 2)),
    "two_goals": (AXIS, (AXIS - 0.15, AXIS + 0.15, LENGTH / 2)),
    "two_goals_told": (AXIS, (AXIS - 0.15, AXIS + 0.15, LENGTH / 2)),
}


def mjcf(maze: str) -> str:
    """The MJCF model of a maze. Walls collide with the particle only; gravity is off."""
    start, (left, right, height) = MAZES[maze]
    low, high = -0.1, LENGTH
    walls = {
        "south": (low, low, high, low),
        "east": (high, low, high, high),
        "north": (low, high, high, high),
        "west": (low, low, low, high),
        "barrier": (left, height, right, height),
    }
    geoms = "\n".join(
        f'<geom name="{name}" type="capsule" size="0.02" fromto="{x0} {y0} 0.01 {x1} {y1} 0.01"/>'
        for name, (x0, y0, x1, y1) in walls.items()
    )
    return f"""
<mujoco model="pointmaze_{maze}">
  <compiler inertiafromgeom="true" angle="radian"/>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint damping="1" limited="false"/>
    <geom friction="0.5 0.1 0.1" density="1000" margin="0.002" condim="1" contype="2" conaffinity="1"/>
  </default>
  <worldbody>
    <body name="particle" pos="{start} 0 0">
      <geom name="particle" type="sphere" size="0.03" contype="1"/>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
    </body>
    <body name="target" pos="{LENGTH / 2} {TARGET_Y} 0" mocap="true">
      <geom name="target" type="sphere" size="0.02" conaffinity="2"/>
    </body>
    {geoms}
  </worldbody>
  <actuator>
    <motor joint="x" ctrlrange="-1 1" ctrllimited="true"/>
    <motor joint="y" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>
</mujoco>"""


class PointMaze(gymnasium.Env):
    """Observation: particle xyz, target xyz. Reward at (s, a): -|particle - target| - 0.001 |a|^2.

    The target is a mocap body, so that it is part of MuJoCo's own state.
    """

    def __init__(self, maze: str) -> None:
        self.maze = maze
        self.model = mujoco.MjModel.from_xml_string(mjcf(maze))
        self.data = mujoco.MjData(self.model)
        self.start = MAZES[maze][0]
        # views into the simulation: looking an attribute up costs as much as the arithmetic
        self._position, self._control = self.data.qpos, self.data.ctrl
        self._target = self.data.mocap_pos[0]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self._target[:] = self._draw_target()
        self.data.qvel[:] = self.np_random.uniform(-0.01, 0.01, 2)
        self.data.qpos[:] = self.np_random.uniform(-0.05, 0.05, 2)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        force_x, force_y = (min(max(float(force), -1.0), 1.0) for force in action)
        x, y = self._particle()
        effort = 0.001 * (force_x * force_x + force_y * force_y)
        nearest = min(_distance(x, y, GOALS[0]), _distance(x, y, GOALS[1]))
        shown = nearest if self.maze == "two_goals" else _distance(x, y, self._target.tolist())
        self._control[:] = force_x, force_y
        mujoco.mj_step(self.model, self.data, nstep=FRAME_SKIP)
        info = {"task_reward": -nearest - effort} if self.maze == "two_goals_told" else {}
        return self._observe(), -shown - effort, False, False, info

    def _draw_target(self) -> tuple[float, float, float]:
        if self.maze == "two_goals":
            return (AXIS, TARGET_Y, 0.0)
        if self.maze == "two_goals_told":
            return GOALS[self.np_random.integers(2)]
        return (TARGET_X[self.np_random.integers(len(TARGET_X))], TARGET_Y, 0.0)

    def _particle(self) -> tuple[float, float]:
        x, y = self._position.tolist()
        return self.start + x, y

    def _observe(self) -> NDArray[np.float64]:
        return np.array([*self._particle(), 0.0, *self._target.tolist()])


def hide_goal(obs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Observations of `two_goals_told` as `two_goals` would show them (last axis: 6)."""
    hidden = obs.copy()
    hidden[..., 3:] = (AXIS, TARGET_Y, 0.0)
    return hidden


def _distance(x: float, y: float, target: Sequence[float]) -> float:
    return math.hypot(x - target[0], y - target[1])
