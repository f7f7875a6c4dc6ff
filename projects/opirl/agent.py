"""Actor, twin critics, their target and the temperature of N members: what SAC and AlgaeDICE share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from common.processes.shares import total
from projects.opirl.adam import Adam, descend
from projects.opirl.networks import FLAT_MULTIPLE, Actor, TwinCritic


@dataclass(frozen=True)
class AgentOptions:
    """Names of the thesis: gamma discount, tau target update, alpha temperature."""

    hidden: tuple[int, ...]
    actor_lr: float
    critic_lr: float
    alpha_lr: float
    alpha_init: float = 1.0
    discount: float = 0.99
    tau: float = 0.005
    actor_every: int = 2


class Agent(nn.Module):
    """The networks of the policy and their optimisers."""

    def __init__(
        self, generators: Sequence[torch.Generator], obs_dim: int, act_dim: int, options: AgentOptions
    ) -> None:
        super().__init__()
        self.options = options
        self.members = len(generators)
        self.target_entropy = -float(act_dim)
        self.actor = Actor(generators, (obs_dim, *options.hidden), act_dim)
        self.critic = TwinCritic(generators, (obs_dim + act_dim, *options.hidden))
        self.target = TwinCritic(generators, (obs_dim + act_dim, *options.hidden)).requires_grad_(False)
        self.target.net.flat.copy_(self.critic.net.flat.detach())
        # padded for the same reason as a network's flat tensor
        self.log_alpha = nn.Parameter(torch.full((FLAT_MULTIPLE,), options.alpha_init).log())
        self.actor_optimiser = Adam(self.actor.parameters(), options.actor_lr)
        self.critic_optimiser = Adam(self.critic.parameters(), options.critic_lr)
        self.alpha_optimiser = Adam([self.log_alpha], options.alpha_lr)

    @property
    def alpha(self) -> Float[Tensor, "n 1"]:
        """The temperatures, detached."""
        return self.log_alpha.detach().exp()[: self.members].unsqueeze(1)

    def act(
        self, s: Float[Tensor, "n b d"], eps: Float[Tensor, "n b a"]
    ) -> tuple[Float[Tensor, "n b a"], Float[Tensor, "n b"]]:
        """a ~ pi(.|s) and log pi(a|s); in the absorbing state there is nothing to choose, a = 0 and log pi = 0.

        The buffer holds no other action there, so the critics know no other: a policy that chose one would be
        paid what they extrapolate, 1 / (1 - gamma) times over, for dying (as in DAC's own code).
        """
        a, log_prob = self.actor(s, eps)
        alive = 1.0 - s[..., -1]
        return a * alive.unsqueeze(-1), log_prob * alive

    def step_critic(self, loss: Float[Tensor, " n"]) -> None:
        """One step of Adam on the critics."""
        descend(self.critic_optimiser, loss, "the critics")

    def step_actor(self, loss: Float[Tensor, " n"]) -> None:
        """One step of Adam on the actor."""
        descend(self.actor_optimiser, loss, "the actor")

    def step_alpha(self, s: Float[Tensor, "n b d"], log_prob: Float[Tensor, "n b"]) -> None:
        """One step on J(alpha) = E[alpha (-log pi - H)], H = -|A|, taken in log alpha, over states not absorbing."""
        alive, log_probs = total(torch.stack(((1.0 - s[..., -1]).sum(-1), log_prob.detach().sum(-1))))
        gap = torch.zeros(FLAT_MULTIPLE)
        gap[: self.members] = -log_probs / alive.clamp_min(1.0) - self.target_entropy
        self.log_alpha.grad = self.log_alpha.detach().exp() * gap
        self.alpha_optimiser.step()

    def step_target(self) -> None:
        """Polyak average: target <- target + tau (critic - target)."""
        with torch.no_grad():
            self.target.net.flat.lerp_(self.critic.net.flat, self.options.tau)
