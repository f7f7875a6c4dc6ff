"""DAC-style off-policy GAIL: discriminator-actor-critic (Kostrikov et al. 2019) on the shared engine.

    L_D = E_E[softplus(-h)] + E_R[softplus(h)] + c E[(|grad h| - 1)^2],  h(s, a);  reward log D - log(1 - D) = h

The policy is SAC's in place of TD3's. Absorbing states as there; no reward is carried over (h is no reward of the
task: at the optimum it is constant).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from common.training.seeds import generator
from projects.opirl import sac
from projects.opirl.adam import Adam, descend
from projects.opirl.arm import Setting
from projects.opirl.expertise import expert_buffer
from projects.opirl.networks import StackedMLP
from projects.opirl.offpolicy import OffPolicy
from projects.opirl.release import switches
from projects.opirl.replay import Batch

softplus = nn.functional.softplus


@final
class DAC(OffPolicy):
    """One discriminator h(s, a) and SAC, N members."""

    def __init__(self, setting: Setting) -> None:
        options, absorbing = setting.cfg["discriminator"], int(setting.cfg["absorbing"]["per_episode"])
        super().__init__(setting, absorbing)
        self.expert = expert_buffer(setting, absorbing, switches(setting.cfg["release"]))
        self.penalty = float(options["penalty"])
        sizes = (setting.spec.obs_dim + 1 + setting.spec.act_dim, *options["hidden_value"], 1)
        self.network = StackedMLP([generator(seed, "discriminator") for seed in setting.seeds], sizes)
        self.optimiser = Adam(self.network.parameters(), float(options["lr"]))

    def learn(self, k: int, batch: Batch, draws: Mapping[str, Tensor]) -> Tensor:
        """One update of h, one of SAC paid by it."""
        loss = self.loss(self.expert.sample(draws["expert"]), batch, draws["mix"][:, 0])
        descend(self.optimiser, loss, "the discriminator")
        with torch.no_grad():
            reward = self.network(torch.cat((batch.s, batch.a), -1)).squeeze(-1)
        return loss.detach() + sac.update(self.agent, batch, reward, draws["eps"][:, :2], k)

    def loss(self, expert: Batch, replay: Batch, mix: Float[Tensor, "n b"]) -> Float[Tensor, " n"]:
        """L_D of each member."""
        x, y = torch.cat((expert.s, expert.a), -1), torch.cat((replay.s, replay.a), -1)
        on_expert, on_replay = self.network(torch.cat((x, y), 1)).squeeze(-1).chunk(2, 1)
        same = (expert.s[..., -1] == replay.s[..., -1]).to(x.dtype)
        slope = self.network.input_gradient(torch.lerp(x, y, mix.unsqueeze(-1)))
        norm = (slope.square().sum(-1) + 1e-12).sqrt()
        logistic = softplus(-on_expert).mean(-1) + softplus(on_replay).mean(-1)
        return logistic + self.penalty * (same * (norm - 1.0).square()).mean(-1)

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The agent's and the discriminator's."""
        return [*super().optimisers(), self.optimiser]
