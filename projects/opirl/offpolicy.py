"""What every off-policy arm shares: a collector, an agent, one update an interaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from common.errors import unknown
from common.processes.shares import share
from common.training.seeds import generator
from projects.opirl.agent import Agent, AgentOptions
from projects.opirl.arm import Setting
from projects.opirl.artefacts import Policy, Reward
from projects.opirl.collect import Collector
from projects.opirl.networks import whole_vectors
from projects.opirl.replay import Batch
from projects.opirl.rollout import Counters
from projects.opirl.streams import Streams

EXPLORATIONS = ("noise", "sample")


class OffPolicy(nn.Module, ABC):
    """N members learning off policy. Final classes say how a batch is learned from.

    Same seed means same initial agent, same exploration noise and same batch fractions in every arm.
    """

    stride = 1

    def __init__(self, setting: Setting, absorbing: int, timeouts_end: bool = False) -> None:
        super().__init__()
        self.setting = setting
        options = setting.cfg["collect"]
        self.batch, self.start, self.window = int(options["batch"]), int(options["start"]), options["window"]
        whole_vectors(collect__batch=self.batch)
        if options["exploration"] not in EXPLORATIONS:
            raise unknown("collect.exploration", str(options["exploration"]), EXPLORATIONS)
        self.exploration = None if options["exploration"] == "sample" else float(options["noise"])
        obs_dim, act_dim = setting.spec.obs_dim + 1, setting.spec.act_dim
        self.collector = Collector(setting, int(options["random_steps"]), absorbing, timeouts_end)
        agent = {**setting.cfg["agent"], "hidden": tuple(setting.cfg["agent"]["hidden"])}
        generators = [generator(seed, "agent") for seed in setting.seeds]
        self.agent = Agent(generators, obs_dim, act_dim, AgentOptions(**agent))
        b = self.batch
        self.streams = Streams(
            setting.seeds,
            "update",
            {
                "replay": ("uniform", (b,)),
                "expert": ("uniform", (b,)),
                "recent": ("uniform", (b,)),
                "mix": ("uniform", (2, b)),
                "eps": ("normal", (4, b, act_dim)),
            },
        )

    @property
    def counters(self) -> list[Counters]:
        """Interactions per member."""
        return self.collector.counters

    def step(self, k: int) -> Tensor | None:
        """One interaction and, from `start` on, one update."""
        self.collector.step(k, self.behave)
        if k < self.start:
            return None
        draws = {name: share(value, _batch_axis(name)) for name, value in self.streams.at(k).items()}
        return self.learn(k, self.collector.replay.sample(draws["replay"], self.window), draws)

    @abstractmethod
    def learn(self, k: int, batch: Batch, draws: Mapping[str, Tensor]) -> Tensor:
        """One update; returns the losses (n,)."""

    def behave(self, s: Float[Tensor, "n 1 d"], eps: Any) -> Float[Tensor, "n 1 a"]:
        """A sample of the policy, or its mean with Gaussian noise as the release explores."""
        if self.exploration is None:
            return self.agent.actor.play(s, eps)
        mean = self.agent.actor.play(s).numpy()
        return torch.from_numpy(np.clip(mean + self.exploration * eps, -1.0, 1.0).astype(np.float32))

    def act(self, obs: Float[Tensor, "n b d"]) -> Float[Tensor, "n b a"]:
        """The mean action."""
        return self.agent.actor.play(self.collector.states(obs))

    def diagnostics(self, k: int) -> dict[str, Tensor]:
        """What the history shows beside the return, per member; a function of the state and of k alone."""
        return {"temperature": self.agent.alpha.squeeze(1)}

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The agent's; arms add theirs."""
        return [self.agent.actor_optimiser, self.agent.critic_optimiser, self.agent.alpha_optimiser]

    def journals(self) -> Mapping[str, Any]:
        """The replay buffer's files."""
        return self.collector.journals()

    def state(self) -> dict[str, Any]:
        """Environments and counters."""
        return self.collector.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.collector.load_state(state)

    def policies(self) -> list[Policy]:
        """The mean policies."""
        setting, net = self.setting, self.agent.actor.net
        return [
            Policy(setting.env, setting.spec.act_dim, net.member(i), setting.shift[i], setting.scale[i])
            for i in range(len(setting.seeds))
        ]

    def rewards(self) -> list[Reward]:
        """None is learned, unless the arm says otherwise."""
        return []


def _batch_axis(draw: str) -> int:
    return 2 if draw in ("mix", "eps") else 1
