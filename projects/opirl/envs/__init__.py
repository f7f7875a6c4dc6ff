"""The environments: gymnasium's v5 tasks and the transfer pairs whose models are built here.

Every environment takes actions in [-1, 1], returns float32 observations, and keeps `terminated` (the task
ended) apart from `truncated` (time ran out): at most one of the two is true.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco ships no stubs for its compiled part)

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from common.errors import unknown
from projects.opirl.envs.task import Task

# MuJoCo would write its warnings (one of them about gymnasium's own models) to MUJOCO_LOG.TXT in the current
# folder, which a job must not touch; a simulation that fails shows as a non-finite observation instead.
_log = mujoco.MjLogConfig.get()
_log.logto_file = False
_log.logto_console = False
_log.set()


@dataclass(frozen=True)
class EnvSpec:
    """What a learner must know before it steps an environment.

    Attributes:
        obs_dim: observation dimensions, without the absorbing flag.
        act_dim: action dimensions.
        horizon: steps after which an episode is truncated.
        demonstrator: the environment in which this task's expert acts; its observations are mapped by
            `task_observation`. The task itself unless the expert must know what the imitator may not.
    """

    obs_dim: int
    act_dim: int
    horizon: int
    demonstrator: str = ""


SPECS: dict[str, EnvSpec] = {
    "inverted_double_pendulum": EnvSpec(9, 1, 1000),
    "hopper": EnvSpec(11, 3, 1000),
    "halfcheetah": EnvSpec(17, 6, 1000),
    "walker2d": EnvSpec(17, 6, 1000),
    "ant": EnvSpec(105, 8, 1000),
    "humanoid": EnvSpec(348, 17, 1000),
    "pointmaze_left": EnvSpec(6, 2, 100),
    "pointmaze_right": EnvSpec(6, 2, 100),
    "pointmaze_two_goals": EnvSpec(6, 2, 100, demonstrator="pointmaze_two_goals_told"),
    "pointmaze_two_goals_told": EnvSpec(6, 2, 100),
    "custom_ant": EnvSpec(111, 8, 1000),
    "amputated_ant": EnvSpec(111, 8, 1000),
    "big_ant": EnvSpec(111, 8, 1000),
}


def spec(name: str) -> EnvSpec:
    """The facts of environment `name`.

    Raises:
        BadInputError: no environment has that name.
    """
    if name not in SPECS:
        raise unknown("environment", name, SPECS)
    return SPECS[name]


def make(name: str, seed: int) -> Task:
    """Environment `name`; its starts are the stream of `seed`, continued by every `reset()`.

    Raises:
        BadInputError: no environment has that name.
    """
    return Task(_core(name), spec(name).horizon, seed)


def task_observation(name: str, obs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Observations of `name`'s demonstrator as the task itself would show them."""
    if spec(name).demonstrator == "pointmaze_two_goals_told":
        from projects.opirl.envs.pointmaze import hide_goal

        return hide_goal(obs)
    return obs


def _core(name: str) -> gymnasium.Env:
    spec(name)
    if name.startswith("pointmaze_"):
        from projects.opirl.envs.pointmaze import PointMaze

        return PointMaze(name.removeprefix("pointmaze_"))
    if name in ("custom_ant", "amputated_ant", "big_ant"):
        from projects.opirl.envs.ant import CustomAnt

        return CustomAnt(name)
    return _gymnasium(name)


def _gymnasium(name: str) -> gymnasium.Env:
    with _without_imageio():
        from gymnasium.envs.mujoco import (
            ant_v5,
            half_cheetah_v5,
            hopper_v5,
            humanoid_v5,
            inverted_double_pendulum_v5,
            walker2d_v5,
        )
    cores: dict[str, Callable[[], gymnasium.Env]] = {
        "inverted_double_pendulum": inverted_double_pendulum_v5.InvertedDoublePendulumEnv,
        "hopper": hopper_v5.HopperEnv,
        "halfcheetah": half_cheetah_v5.HalfCheetahEnv,
        "walker2d": walker2d_v5.Walker2dEnv,
        "ant": ant_v5.AntEnv,
        "humanoid": humanoid_v5.HumanoidEnv,
    }
    core = cores[name]()
    if name == "humanoid":  # its motors take [-0.4, 0.4]
        return gymnasium.wrappers.RescaleAction(core, np.float32(-1.0), np.float32(1.0))
    return core


@contextmanager
def _without_imageio() -> Iterator[None]:
    """gymnasium's MuJoCo package imports imageio at the top, for videos only: let it load without."""
    if "imageio" in sys.modules or importlib.util.find_spec("imageio") is not None:
        yield
        return
    sys.modules["imageio"] = ModuleType("imageio")
    try:
        yield
    finally:
        del sys.modules["imageio"]
