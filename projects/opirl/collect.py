"""Interaction off policy: one environment a member, one step at a time, every transition into the replay buffer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from common.cluster.ranks import place
from common.processes.shares import from_first_
from common.training.append import AppendOnlyFile
from projects.opirl.absorbing import features, transitions
from projects.opirl.arm import Setting
from projects.opirl.replay import Replay, width
from projects.opirl.rollout import Counters, EnvBatch
from projects.opirl.streams import Streams

Behaviour = Callable[[Float[Tensor, "n 1 d"], Any], Float[Tensor, "n 1 a"]]
"""States and standard normal noise (numpy, float64) to actions."""


class Collector:
    """Environments, replay buffer and its file of N members.

    Args:
        setting: environment, seeds, normaliser, folder.
        random_steps: steps of uniform actions before the policy acts.
        absorbing: absorbing transitions after a termination; 0: terminations end the return.
        timeouts_end: time-outs count as terminations (a defect of the release, projects/opirl/release.py).
    """

    def __init__(
        self, setting: Setting, random_steps: int, absorbing: int, timeouts_end: bool = False
    ) -> None:
        self.random_steps, self.absorbing, self.timeouts_end = random_steps, absorbing, timeouts_end
        self.members = len(setting.seeds)
        self.shift, self.scale = setting.shift.unsqueeze(1), setting.scale.unsqueeze(1)
        d, a = setting.spec.obs_dim + 1, setting.spec.act_dim
        self.envs = EnvBatch(setting.env, setting.seeds, copies=1)
        self.counters = [Counters() for _ in setting.seeds]
        # Twice the steps leaves room for absorbing rows: pages never written cost no memory, growing copies all rows.
        self.replay = Replay(self.members, 2 * setting.steps + 16, d, a)
        self.streams = Streams(
            setting.seeds, "explore", {"eps": ("normal", (1, a)), "u": ("uniform", (1, a))}
        )
        self.files = {
            f"replay {seed}": AppendOnlyFile(setting.out / f"replay-{seed}.f32", np.float32, (width(d, a),))
            for seed in (setting.seeds if place().rank == 0 else ())
        }

    def states(self, obs: Tensor) -> Tensor:
        """Observations (n, b, d) as states (n, b, d + 1)."""
        return features(obs, self.shift, self.scale)

    def step(self, k: int, behave: Behaviour) -> None:
        """Act once in every environment and remember what came of it."""
        noise = self.streams.at(k)
        s = self.states(torch.from_numpy(self.envs.obs))
        random = k < self.random_steps
        a = 2.0 * noise["u"] - 1.0 if random else behave(s, noise["eps"].numpy().astype(np.float64))
        got = self.envs.step(a.numpy())
        s2 = self.states(torch.from_numpy(got.next_obs))
        ended = got.terminated | got.truncated if self.timeouts_end else got.terminated
        r, ends = torch.from_numpy(got.reward).float(), torch.from_numpy(ended)
        if not ended.any():
            rows = transitions(s[:, 0], a[:, 0], s2[:, 0], r[:, 0], ends[:, 0], self.absorbing)
            parts = list(rows.unsqueeze(1))
        else:
            parts = [transitions(*one, self.absorbing) for one in zip(s, a, s2, r, ends, strict=True)]
        for index, part in enumerate(parts):
            self.replay.add(index, part)
            self.counters[index].add("training", 1)
        # of several processes the first alone has files
        for file, part in zip(self.files.values(), parts, strict=False):
            file.append(part.numpy())

    def journals(self) -> Mapping[str, AppendOnlyFile]:
        """The buffers' files."""
        return self.files

    def state(self) -> dict[str, Any]:
        """Environments and counters; the buffers are in their files."""
        return {"envs": self.envs.get_state(), "training": [one.training for one in self.counters]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`; the files were cut to its moment."""
        self.envs.set_state(state["envs"])
        for counter, count in zip(self.counters, state["training"], strict=True):
            counter.training = int(count)
        sizes = torch.tensor([len(file) for file in self.files.values()] or [0] * self.members)
        from_first_(sizes)
        self.replay.sizes = sizes.tolist()
        self.replay.reserve(max(self.replay.sizes))
        for file, rows in zip(self.files.values(), self.replay.rows, strict=False):
            file.read(rows.numpy())
        for rows, size in zip(self.replay.rows, self.replay.sizes, strict=True):
            from_first_(rows[:size])
