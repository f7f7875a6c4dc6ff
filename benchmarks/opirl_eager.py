"""SAC and OPIRL as one would write them first: one member, nn.Linear, autograd for everything.

The literal transcription of the equations in projects/opirl/{sac,algae,discriminator}.py: the tests compare
gradients with it in float64, the benchmark compares speed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Rows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""s, a, s', r, m of one batch."""


def perceptron(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    sizes = (inputs, *hidden)
    layers: list[nn.Module] = []
    for low, high in itertools.pairwise(sizes):
        layers += [nn.Linear(low, high), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


class Eager(nn.Module):
    """One member's networks and optimisers."""

    def __init__(
        self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], reward_hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.act_dim = act_dim
        self.actor = perceptron(obs_dim, hidden, 2 * act_dim)
        self.critics = nn.ModuleList([perceptron(obs_dim + act_dim, hidden, 1) for _ in range(2)])
        self.targets = nn.ModuleList([perceptron(obs_dim + act_dim, hidden, 1) for _ in range(2)])
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.reward = perceptron(obs_dim + act_dim, reward_hidden, 1)
        self.value = perceptron(obs_dim, hidden, 1)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=1e-3)
        self.alpha_optimiser = torch.optim.Adam([self.log_alpha], lr=1e-3)
        self.reward_optimiser = torch.optim.Adam(
            [*self.reward.parameters(), *self.value.parameters()], lr=3e-4
        )

    def normal(self, s: Tensor) -> torch.distributions.Normal:
        mean, raw = self.actor(s).split(self.act_dim, -1)
        return torch.distributions.Normal(mean, (-5.0 + 3.5 * (torch.tanh(raw) + 1.0)).exp())

    def act(self, s: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        normal = self.normal(s)
        raw = normal.loc + normal.scale * eps
        jacobian = 2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))
        alive = 1.0 - s[..., -1]  # in the absorbing state there is nothing to choose
        return torch.tanh(raw) * alive.unsqueeze(-1), (normal.log_prob(raw) - jacobian).sum(-1) * alive

    def log_prob(self, s: Tensor, a: Tensor) -> Tensor:
        raw = torch.atanh(a.clamp(-1.0 + 1e-6, 1.0 - 1e-6))
        jacobian = 2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))
        return (self.normal(s).log_prob(raw) - jacobian).sum(-1)

    def q(self, nets: nn.ModuleList, s: Tensor, a: Tensor) -> list[Tensor]:
        return [net(torch.cat((s, a), -1)).squeeze(-1) for net in nets]


def sac_losses(net: Eager, rows: Rows, eps: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """L_Q, L_pi and log pi(a|s)."""
    s, a, s2, r, m = rows
    with torch.no_grad():
        a2, log_prob2 = net.act(s2, eps[0])
        y = r + gamma * m * (torch.minimum(*net.q(net.targets, s2, a2)) - net.log_alpha.exp() * log_prob2)
    critic = torch.stack([(0.5 * (q - y) ** 2).mean() for q in net.q(net.critics, s, a)]).sum()
    pi, log_prob = net.act(s, eps[1])
    actor = (net.log_alpha.exp().detach() * log_prob - torch.minimum(*net.q(net.critics, s, pi))).mean()
    return critic, actor, log_prob.detach()


@dataclass(frozen=True)
class Constants:
    """gamma, p, kappa, c_pi, c_C."""

    gamma: float = 0.99
    p: float = 1.5
    kappa: float = 1.0
    actor_weight: float = 1e-3
    cover_weight: float = 1.0 / 256.0


def algae_y(net: Eager, rows: Rows, a2: Tensor, log_prob: Tensor, c: Constants) -> list[Tensor]:
    """y_1, y_2."""
    _, _, s2, r, m = rows
    bar = torch.minimum(*net.q(net.targets, s2, a2))
    alpha = net.log_alpha.exp().detach()
    return [r + c.gamma * m * (0.05 * q + 0.95 * bar - alpha * log_prob) for q in net.q(net.critics, s2, a2)]


def algae_critic_loss(net: Eager, rows: Rows, eps: Tensor, c: Constants) -> Tensor:
    """L_Q with f(x) = |x|^p / p."""
    s, a, s2, _, _ = rows
    with torch.no_grad():
        (a2, log_prob), (a0, _) = net.act(s2, eps[0]), net.act(s, eps[1])
    loss = torch.zeros((), dtype=s.dtype)
    for y, q, q0 in zip(
        algae_y(net, rows, a2, log_prob, c), net.q(net.critics, s, a), net.q(net.critics, s, a0), strict=True
    ):
        loss = loss + ((y - q).abs() ** c.p / c.p + (1 - c.gamma) * c.kappa * q0).mean()
    return loss


def algae_actor_loss(
    net: Eager, rows: Rows, eps: Tensor, c: Constants, expert: Rows, positive_part: bool = False
) -> tuple[Tensor, Tensor]:
    """c_pi L_pi + c_C L_C with the expert's forward KL, and log pi(a'|s')."""
    s, a, s2, _, _ = rows
    (a2, log_prob), (a0, _) = net.act(s2, eps[0]), net.act(s, eps[1])
    matching = torch.zeros((), dtype=s.dtype)
    for y, q, q0 in zip(
        algae_y(net, rows, a2, log_prob, c), net.q(net.critics, s, a), net.q(net.critics, s, a0), strict=True
    ):
        x = (y - q).detach()
        slope = x.clamp(min=0.0) ** (c.p - 1) if positive_part else x.sign() * x.abs() ** (c.p - 1)
        matching = matching - 0.5 * (slope * (y - q) + (1 - c.gamma) * c.kappa * q0).mean()
    covering = -((1.0 - expert[0][:, -1]) * net.log_prob(expert[0], expert[1])).mean()
    return c.actor_weight * matching + c.cover_weight * covering, log_prob.detach()


def discriminator_loss(net: Eager, expert: Rows, replay: Rows, mix: Tensor, discount: float = 0.9) -> Tensor:
    """L_D with the gradient penalties by double backward."""
    f = []
    for s, a, s2, _, _ in (expert, replay):
        r = net.reward(torch.cat((s, a), -1)) + discount * net.value(s2) - net.value(s)
        f.append(r.squeeze(-1))
    loss = nn.functional.softplus(-f[0]).mean() + nn.functional.softplus(f[1]).mean()
    same = (expert[0][:, -1] == replay[0][:, -1]).to(mix.dtype)
    pairs = [tuple(torch.cat(rows[:2], -1) for rows in (expert, replay)), (expert[0], replay[0])]
    for module, (x, y), u in zip((net.reward, net.value), pairs, mix, strict=True):
        between = (x + u.unsqueeze(-1) * (y - x)).requires_grad_()
        (slope,) = torch.autograd.grad(module(between).sum(), between, create_graph=True)
        loss = loss + 10.0 * (same * (slope.norm(dim=-1) - 1.0) ** 2).mean()
    return loss


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def temper(net: Eager, s: Tensor, log_prob: Tensor) -> None:
    """One step of the temperature, over the states that are not absorbing."""
    alive = (1.0 - s[:, -1]).sum().clamp(min=1.0)
    descend(net.alpha_optimiser, net.log_alpha.exp() * (-log_prob.sum() / alive + net.act_dim))


def track(net: Eager, tau: float = 0.005) -> None:
    """Polyak averaging, parameter by parameter."""
    with torch.no_grad():
        for slow, fast in zip(net.targets.parameters(), net.critics.parameters(), strict=True):
            slow.mul_(1.0 - tau).add_(fast, alpha=tau)


def sac_update(net: Eager, rows: Rows, eps: Tensor, step: int) -> None:
    """As projects.opirl.sac.update."""
    s, a, s2, r, m = rows
    with torch.no_grad():
        a2, log_prob2 = net.act(s2, eps[0])
        y = r + 0.99 * m * (torch.minimum(*net.q(net.targets, s2, a2)) - net.log_alpha.exp() * log_prob2)
    descend(
        net.critic_optimiser,
        torch.stack([(0.5 * (q - y) ** 2).mean() for q in net.q(net.critics, s, a)]).sum(),
    )
    if step % 2 == 0:
        pi, log_prob = net.act(s, eps[1])
        q = torch.minimum(*net.q(net.critics, s, pi))
        descend(net.actor_optimiser, (net.log_alpha.exp().detach() * log_prob - q).mean())
        temper(net, s, log_prob.detach())
    track(net)


def opirl_update(net: Eager, expert: Rows, rows: Rows, mix: Tensor, eps: Tensor, step: int) -> None:
    """As one step of projects.opirl.opirl.OPIRL."""
    c = Constants()
    descend(net.reward_optimiser, discriminator_loss(net, expert, rows, mix))
    with torch.no_grad():
        r = net.reward(torch.cat(rows[:2], -1)).squeeze(-1)
    rows = (*rows[:3], r, rows[4])
    descend(net.critic_optimiser, algae_critic_loss(net, rows, eps[:2], c))
    if step % 2 == 0:
        loss, log_prob = algae_actor_loss(net, rows, eps[2:], c, expert)
        descend(net.actor_optimiser, loss)
        temper(net, rows[2], log_prob)
        track(net)
