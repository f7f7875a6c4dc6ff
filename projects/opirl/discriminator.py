"""The discriminator: a logistic density ratio between expert and replay data, split into reward and shaping.

    f(s, a, s') = r_psi(s, a) + gd V_phi(s') - V_phi(s)                     (Fu et al. 2018; gd: its own discount)
    L_D = E_E[softplus(-f)] + E_R[softplus(f)] + c (P_r + P_V)              E expert, R replay (off-policy)
    P_r = E[(|grad r_psi(x)| - 1)^2], P_V = E[(|grad V_phi(s)| - 1)^2]      at interpolates of E and R

The optimum of the logistic part is f = log(rho_E / rho_R) of (s, a, s'); the policy is paid r_psi alone. Source:
Hoshino et al. (2021), "OPIRL", and the released code. An interpolate between an absorbing and an ordinary state
has a flag that no state has: it is left out of the penalty (trap P11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from projects.opirl.adam import Adam, descend
from projects.opirl.networks import StackedMLP
from projects.opirl.replay import Batch

softplus = nn.functional.softplus


@dataclass(frozen=True)
class DiscriminatorOptions:
    """`dead_log_pi` is a defect of the release (see projects/opirl/release.py): it halves the logistic part."""

    hidden_reward: tuple[int, ...]
    hidden_value: tuple[int, ...]
    lr: float
    discount: float = 0.9
    penalty: float = 10.0
    state_only: bool = False
    dead_log_pi: bool = False


class Discriminator(nn.Module):
    """Reward r_psi and shaping V_phi of N members, and their optimiser."""

    def __init__(
        self, generators: Sequence[torch.Generator], obs_dim: int, act_dim: int, options: DiscriminatorOptions
    ) -> None:
        super().__init__()
        self.options = options
        inputs = obs_dim if options.state_only else obs_dim + act_dim
        self.reward = StackedMLP(generators, (inputs, *options.hidden_reward, 1))
        self.value = StackedMLP(generators, (obs_dim, *options.hidden_value, 1))
        self.optimiser = Adam(self.parameters(), options.lr)

    def inputs(self, s: Tensor, a: Tensor) -> Tensor:
        """What r_psi sees."""
        return s if self.options.state_only else torch.cat((s, a), -1)

    @torch.no_grad()
    def rewards(self, s: Float[Tensor, "n b d"], a: Float[Tensor, "n b a"]) -> Float[Tensor, "n b"]:
        """r_psi(s, a), what the policy is paid."""
        return self.reward(self.inputs(s, a)).squeeze(-1)

    def logits(self, batch: Batch) -> Float[Tensor, "n b"]:
        """f(s, a, s')."""
        b = batch.s.shape[1]
        v, v2 = self.value(torch.cat((batch.s, batch.s2), 1)).squeeze(-1).split(b, 1)
        r = self.reward(self.inputs(batch.s, batch.a)).squeeze(-1)
        return r + self.options.discount * v2 - v

    def loss(self, expert: Batch, replay: Batch, mix: Float[Tensor, "n 2 b"]) -> Float[Tensor, " n"]:
        """L_D of each member; `mix` are the interpolation fractions for r and for V."""
        b = expert.s.shape[1]
        both = Batch(*(torch.cat((e, r), 1) for e, r in zip(_parts(expert), _parts(replay), strict=True)))
        on_expert, on_replay = self.logits(both).split(b, 1)
        logistic = softplus(-on_expert).mean(-1) + softplus(on_replay).mean(-1)
        weight = 0.5 if self.options.dead_log_pi else 1.0
        return weight * logistic + self.options.penalty * self.gradient_penalty(both, mix)

    def gradient_penalty(self, both: Batch, mix: Float[Tensor, "n 2 b"]) -> Float[Tensor, " n"]:
        """P_r + P_V; `both` holds expert rows, then as many replay rows."""
        b = both.s.shape[1] // 2
        same = (both.s[:, :b, -1] == both.s[:, b:, -1]).to(both.s.dtype)
        total = torch.zeros(same.shape[0], dtype=same.dtype)
        for net, x, u in (
            (self.reward, self.inputs(both.s, both.a), mix[:, 0]),
            (self.value, both.s, mix[:, 1]),
        ):
            between = torch.lerp(x[:, :b], x[:, b:], u.unsqueeze(-1))
            norm = (net.input_gradient(between).square().sum(-1) + 1e-12).sqrt()
            total = total + (same * (norm - 1.0).square()).mean(-1)
        return total

    def update(self, expert: Batch, replay: Batch, mix: Float[Tensor, "n 2 b"]) -> Float[Tensor, " n"]:
        """One step of Adam on L_D; returns it."""
        loss = self.loss(expert, replay, mix)
        descend(self.optimiser, loss, "the discriminator")
        return loss.detach()


def _parts(batch: Batch) -> tuple[Tensor, ...]:
    return batch.s, batch.a, batch.s2, batch.r, batch.m
