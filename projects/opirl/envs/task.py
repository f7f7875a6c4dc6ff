"""The wrapper around every environment: a seeded stream of starts, float32, and the time limit."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray


class Task(gymnasium.Wrapper):
    """`env` with a horizon. Plays the part of gymnasium's TimeLimit and dtype wrappers in one call."""

    def __init__(self, env: gymnasium.Env, horizon: int, seed: int) -> None:
        super().__init__(env)
        self.horizon = horizon
        self.elapsed = 0
        shape = env.observation_space.shape
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
        env.unwrapped.np_random, _ = seeding.np_random(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        self.elapsed = 0
        return obs.astype(np.float32), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Raises RuntimeError after the horizon: a silent extra step would be counted as experience."""
        if self.elapsed >= self.horizon:
            raise RuntimeError(f"episode is over after {self.horizon} steps: call reset()")
        obs, reward, terminated, _, info = self.env.step(action)
        self.elapsed += 1
        truncated = self.elapsed >= self.horizon and not terminated
        return obs.astype(np.float32), float(reward), bool(terminated), truncated, info
