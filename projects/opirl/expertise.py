"""The expert's side of imitation: demonstrations as stacked rows, and their actions shuffled for the control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from common.training.seeds import generator
from projects.opirl import demos
from projects.opirl.arm import Setting
from projects.opirl.demos import Demos
from projects.opirl.release import Switches, current_as_next
from projects.opirl.replay import Replay
from projects.opirl.rollout import Episodes


def expert_rows(
    one: Demos, absorbing: int, shift: Tensor, scale: Tensor, on: Switches
) -> Float[Tensor, "m w"]:
    """One member's demonstrations as replay rows, with the release's defects that are switched on."""
    if on.absorbing_until_timeout:
        one = _forget_terminations(one)
    rows = demos.rows(one, absorbing, shift, scale)
    if on.expert_next_is_current:
        rows = current_as_next(rows, one.episodes.obs.shape[1] + 1, one.episodes.act.shape[1])
    return rows


def expert_buffer(setting: Setting, absorbing: int, on: Switches) -> Replay:
    """The demonstrations of all members."""
    d, a = setting.spec.obs_dim + 1, setting.spec.act_dim
    parts = [
        expert_rows(one, absorbing, shift, scale, on)
        for one, shift, scale in zip(setting.demos, setting.shift, setting.scale, strict=True)
    ]
    buffer = Replay(len(parts), max(len(part) for part in parts), d, a)
    for index, part in enumerate(parts):
        buffer.add(index, part)
    return buffer


def shuffled(buffer: Replay, setting: Setting) -> Replay:
    """The same states with the same actions in another order: what a covering term must not profit from.

    Absorbing states keep theirs: the covering term leaves them out, and an expert's action given to one is lost.
    """
    d, a = setting.spec.obs_dim + 1, setting.spec.act_dim
    result = Replay(len(buffer.sizes), buffer.rows.shape[1], d, a)
    for index, (seed, size) in enumerate(zip(setting.seeds, buffer.sizes, strict=True)):
        rows = buffer.rows[index, :size].clone()
        acting = torch.nonzero(rows[:, d - 1] == 0).squeeze(-1)
        order = acting[torch.randperm(len(acting), generator=generator(seed, "shuffled actions"))]
        rows[acting, d : d + a] = rows[order, d : d + a]
        result.add(index, rows)
    return result


def _forget_terminations(one: Demos) -> Demos:
    """Terminations after the first timed-out episode are kept as ordinary transitions."""
    episodes: Episodes = one.episodes
    timed_out = np.flatnonzero(episodes.truncated)
    terminated = episodes.terminated.copy()
    if len(timed_out):
        terminated[timed_out[0] :] = False
    return replace(one, episodes=replace(episodes, terminated=terminated))
