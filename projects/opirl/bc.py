"""Behavioural cloning: max E_E[log pi(a|s)], the forward KL to the demonstrations and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from common.processes.shares import share
from common.training.seeds import generator
from projects.opirl import demos
from projects.opirl.absorbing import features
from projects.opirl.adam import Adam, descend
from projects.opirl.arm import Setting
from projects.opirl.artefacts import Policy, Reward
from projects.opirl.networks import Actor, whole_vectors
from projects.opirl.replay import Replay
from projects.opirl.rollout import Counters
from projects.opirl.streams import Streams


@final
class BC(nn.Module):
    """The actor of the other arms, N members. A step is one update; it never acts. Reads the section `bc`."""

    stride = 0

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        options = setting.cfg["bc"]
        whole_vectors(bc__batch=int(options["batch"]))
        n, d, a = len(setting.seeds), setting.spec.obs_dim + 1, setting.spec.act_dim
        generators = [generator(seed, "agent") for seed in setting.seeds]
        self.actor = Actor(generators, (d, *options["hidden"]), a)
        self.optimiser = Adam(self.actor.parameters(), float(options["lr"]))
        self.counters = [Counters() for _ in setting.seeds]
        self.expert = Replay(n, 1, d, a)
        for i, one in enumerate(setting.demos):
            self.expert.add(i, demos.rows(one, 0, setting.shift[i], setting.scale[i]))
        self.streams = Streams(setting.seeds, "bc", {"expert": ("uniform", (int(options["batch"]),))})

    def step(self, k: int) -> Tensor:
        """One update; the losses (n,)."""
        batch = self.expert.sample(share(self.streams.at(k)["expert"], 1))
        loss = -self.actor.log_prob(batch.s, batch.a).mean(-1)
        descend(self.optimiser, loss, "the policy")
        return loss.detach()

    def act(self, obs: Float[Tensor, "n b d"]) -> Float[Tensor, "n b a"]:
        """The mean action."""
        return self.actor.play(
            features(obs, self.setting.shift.unsqueeze(1), self.setting.scale.unsqueeze(1))
        )

    def diagnostics(self, k: int) -> dict[str, Tensor]:
        """Nothing beside the return."""
        return {}

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The actor's."""
        return [self.optimiser]

    def journals(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing beside parameters and optimiser."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""

    def policies(self) -> list[Policy]:
        """The mean policies."""
        where = self.setting
        return [
            Policy(
                where.env,
                where.spec.act_dim,
                self.actor.net.member(i),
                where.shift[i],
                where.scale[i],
            )
            for i in range(len(where.seeds))
        ]

    def rewards(self) -> list[Reward]:
        """None is learned."""
        return []
