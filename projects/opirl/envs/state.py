"""Freezing an environment in the middle of an episode, and going on from there to the same bits."""

# pyright: reportAttributeAccessIssue=false
# (mujoco ships no stubs for its compiled part)

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import torch

from projects.opirl.envs.task import Task

State = dict[str, Any]
_INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION


def get_state(env: Task) -> State:
    """Everything that the rest of the run depends on, as tensors and plain numbers.

    `torch.load(weights_only=True)` accepts it. Beside MuJoCo's integration state it holds the positions of the
    bodies and of their centres of mass (the humanoid's reward): they are derived, but some rewards read them
    before the step that would derive them anew, and after an RK4 step they lag behind the coordinates.
    """
    core: Any = env.unwrapped
    physics = np.empty(mujoco.mj_stateSize(core.model, _INTEGRATION))
    mujoco.mj_getState(core.model, core.data, physics, _INTEGRATION)
    return {
        "physics": torch.from_numpy(physics),
        "bodies": torch.from_numpy(core.data.xpos.copy()),
        "centres": torch.from_numpy(core.data.xipos.copy()),
        "elapsed": env.elapsed,
        "rng": core.np_random.bit_generator.state,
    }


def set_state(env: Task, state: State) -> None:
    """Put `env`, made under the same name, into a state from `get_state`."""
    core: Any = env.unwrapped
    mujoco.mj_resetData(core.model, core.data)
    mujoco.mj_setState(core.model, core.data, state["physics"].numpy(), _INTEGRATION)
    core.data.xpos[:] = state["bodies"].numpy()
    core.data.xipos[:] = state["centres"].numpy()
    env.elapsed = int(state["elapsed"])
    core.np_random.bit_generator.state = state["rng"]
