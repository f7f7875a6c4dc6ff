"""Proximal policy optimisation (Schulman et al. 2017), stacked: N members, each with its own environments.

    rho    = pi(u|s) / pi_old(u|s),   u ~ N(tanh mu(s), sigma^2),   a = clip(u, -1, 1)
    L_pi   = -E[min(rho A, clip(rho, 1 - c, 1 + c) A)]
    L_V    = E[(V(s) - R)^2] / 2
    A, R   : generalised advantage estimates (Schulman et al. 2016), a time-out bootstrapped, an ending not

Rewards are divided by a running standard deviation of the discounted return, per member. The Gaussian is on the
actions themselves, its mean alone goes through the tanh: so the density of any action in [-1, 1], the expert's at
the limits too, stays within bounds, which AIRL needs (log pi is part of its logit). sigma does not depend on s: with
one that does, two of four pendulums forgot what they knew. The class is no arm by itself: it is paid by what
`iterate` is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from common.errors import BadInputError
from common.processes.shares import share
from common.training.seeds import generator
from projects.opirl.absorbing import features
from projects.opirl.adam import Adam, descend
from projects.opirl.envs import spec
from projects.opirl.networks import FLAT_MULTIPLE, LOG_STD_MAX, LOG_STD_MIN, StackedMLP, whole_vectors
from projects.opirl.rollout import Counters, EnvBatch
from projects.opirl.streams import Streams


@dataclass(frozen=True)
class PPOOptions:
    """`copies` environments a member, `length` steps of each an iteration; c = `clip`."""

    hidden: tuple[int, ...]
    lr: float
    copies: int = 16
    length: int = 64
    epochs: int = 10
    minibatches: int = 4
    clip: float = 0.2
    discount: float = 0.99
    trace: float = 0.95
    entropy: float = 0.0
    init_std: float = 0.6


@dataclass(frozen=True)
class Rollout:
    """t steps of b environments of n members; `u` before clipping, `a` as executed, `s2` the true successors."""

    s: Float[Tensor, "n t b d"]
    u: Float[Tensor, "n t b a"]
    s2: Float[Tensor, "n t b d"]
    reward: Float[Tensor, "n t b"]
    terminated: Bool[Tensor, "n t b"]
    ended: Bool[Tensor, "n t b"]

    @property
    def a(self) -> Float[Tensor, "n t b a"]:
        """Executed actions."""
        return self.u.clamp(-1.0, 1.0)


class PPO(nn.Module):
    """Policy, value function and environments of N members.

    Args:
        env: name in SPECS.
        seeds: one per member; a member's numbers depend on its own seed alone.
        shift, scale: (n, d) normaliser of observations.
    """

    def __init__(
        self, env: str, seeds: Sequence[int], shift: Tensor, scale: Tensor, options: PPOOptions
    ) -> None:
        super().__init__()
        self.options = options
        self.rows = options.copies * options.length
        whole_vectors(rollout=self.rows)
        if self.rows % options.minibatches:
            raise BadInputError(
                f"airl.ppo: {self.rows} rows (copies x length) cannot be cut into {options.minibatches} minibatches."
            )
        whole_vectors(minibatch=self.rows // options.minibatches)
        self.shift, self.scale = shift.unsqueeze(1), scale.unsqueeze(1)
        d, self.act_dim = spec(env).obs_dim + 1, spec(env).act_dim
        generators = [generator(seed, "ppo") for seed in seeds]
        self.mean = StackedMLP(generators, (d, *options.hidden, self.act_dim), gain=0.01)
        self.value = StackedMLP(generators, (d, *options.hidden, 1))
        n, b = len(seeds), options.copies
        # padded to whole vectors, as a network's flat tensor is
        padded = -(-n * self.act_dim // FLAT_MULTIPLE) * FLAT_MULTIPLE
        self.log_std = nn.Parameter(torch.full((padded,), math.log(options.init_std)))
        self.actor_optimiser = Adam([*self.mean.parameters(), self.log_std], options.lr)
        self.value_optimiser = Adam(self.value.parameters(), options.lr)
        self.envs = EnvBatch(env, seeds, options.copies)
        self.counters = [Counters() for _ in seeds]
        self.noise = Streams(seeds, "ppo act", {"eps": ("normal", (options.copies, self.act_dim))})
        self.shuffle = Streams(seeds, "ppo shuffle", {"u": ("uniform", (self.rows,))})
        # running sums: discounted return of each environment; its count, mean and squared deviation
        self.running = {"sum": torch.zeros(n, b), "moments": torch.zeros(n, 3, dtype=torch.float64)}

    def states(self, obs: Float[Tensor, "n b d"]) -> Float[Tensor, "n b d+1"]:
        """Observations as states."""
        return features(obs, self.shift, self.scale)

    @torch.no_grad()
    def act(self, obs: Float[Tensor, "n b d"]) -> Float[Tensor, "n b a"]:
        """The mean action, in numpy's float64 (as `_sample`)."""
        mean = self.mean(self.states(obs)).numpy().astype(np.float64)
        return torch.from_numpy(np.tanh(mean).astype(np.float32))

    def log_density(
        self, s: Float[Tensor, "n b d"], u: Float[Tensor, "n b a"]
    ) -> tuple[Float[Tensor, "n b"], Float[Tensor, "n 1"]]:
        """log pi(u|s), and the policy's entropy (n, 1): sigma does not depend on s."""
        log_std = self._log_std()
        eps = (u - self.mean(s).tanh()) * self._members((-self._clamped()).exp())
        constant = 0.5 * math.log(2.0 * math.pi)
        return (-0.5 * eps.square() - log_std - constant).sum(-1), (log_std + constant + 0.5).sum(-1)

    @torch.no_grad()
    def collect(self, k: int) -> Rollout:
        """Rollout number k: `length` steps of every environment, counted as training."""
        parts: dict[str, list[Tensor]] = {key: [] for key in Rollout.__dataclass_fields__}
        for t in range(k * self.options.length, (k + 1) * self.options.length):
            s = self.states(torch.from_numpy(self.envs.obs))
            u = self._sample(s, t)
            got = self.envs.step(np.clip(u, -1.0, 1.0))
            ended = torch.from_numpy(got.terminated | got.truncated)
            values = (
                s, torch.from_numpy(u), self.states(torch.from_numpy(got.next_obs)),
                torch.from_numpy(got.reward).float(), torch.from_numpy(got.terminated), ended,
            )  # fmt: skip
            for part, value in zip(parts.values(), values, strict=True):
                part.append(value)
        for counter in self.counters:
            counter.add("training", self.rows)
        return Rollout(**{key: torch.stack(part, 1) for key, part in parts.items()})

    def _sample(self, s: Tensor, t: int) -> np.ndarray:
        """u, in numpy's float64: its exp rounds alike wherever an element lies in the stack."""
        std = np.exp(self._log_std().numpy().astype(np.float64))
        mean = np.tanh(self.mean(s).numpy().astype(np.float64))
        return (mean + std * self.noise.at(t)["eps"].numpy()).astype(np.float32)

    def _clamped(self) -> Float[Tensor, " padded"]:
        return self.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def _members(self, padded: Float[Tensor, " padded"]) -> Float[Tensor, "n 1 a"]:
        n, a = self.mean.members, self.act_dim
        return padded[: n * a].view(n, 1, a)

    def _log_std(self) -> Float[Tensor, "n 1 a"]:
        return self._members(self._clamped())

    def iterate(self, k: int, rollout: Rollout, reward: Tensor, ending: Tensor) -> dict[str, Tensor]:
        """Improve policy and value on rollout k.

        Args:
            k: number of the iteration.
            rollout: from ``collect(k)``.
            reward: (n, t, b) what the policy is paid; ``rollout.reward`` for the true task.
            ending: (n,) what a termination is worth beyond its reward: 0, or the absorbing state's value.

        Returns:
            Per member: `loss` (both losses), `value_loss`, `clipped` (share of ratios),
            `entropy`.
        """
        sigma = self._reward_scale(reward, rollout.ended)
        advantage, target = self._advantages(rollout, reward / sigma, ending / sigma[:, 0, 0])
        s, u = rollout.s.flatten(1, 2), rollout.u.flatten(1, 2)
        with torch.no_grad():
            old, _ = self.log_density(s, u)
        data = torch.cat((s, u, torch.stack((old, advantage, target), -1)), -1)
        sums: dict[str, Tensor] = {}
        for epoch in range(self.options.epochs):
            order = self.shuffle.at(k * self.options.epochs + epoch)["u"].argsort(dim=-1, stable=True)
            for picks in order.chunk(self.options.minibatches, 1):
                mine = share(picks, 1).unsqueeze(-1).expand(-1, -1, data.shape[-1])
                sums = self._update(data.gather(1, mine))
        return sums

    def _update(self, batch: Float[Tensor, "n b w"]) -> dict[str, Tensor]:
        d = batch.shape[-1] - self.act_dim - 3
        s, u, (old, advantage, target) = (
            batch[..., :d].contiguous(), batch[..., d:-3].contiguous(), batch[..., -3:].unbind(-1),
        )  # fmt: skip
        new, entropy = self.log_density(s, u)
        ratio = (new - old).exp()
        clipped = ratio.clamp(1.0 - self.options.clip, 1.0 + self.options.clip)
        gain = torch.minimum(ratio * advantage, clipped * advantage) + self.options.entropy * entropy
        actor_loss = -gain.mean(-1)
        descend(self.actor_optimiser, actor_loss, "the policy")
        value_loss = 0.5 * (self.value(s).squeeze(-1) - target).square().mean(-1)
        descend(self.value_optimiser, value_loss, "the value function")
        outside = ((ratio.detach() - 1.0).abs() > self.options.clip).float().mean(-1)
        losses = {
            "loss": actor_loss + value_loss,
            "value_loss": value_loss,
            "clipped": outside,
            "entropy": entropy.mean(-1),
        }
        return {key: value.detach() for key, value in losses.items()}

    @torch.no_grad()
    def _advantages(self, rollout: Rollout, reward: Tensor, ending: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised advantages and value targets, each (n, rows)."""
        n, t, b = reward.shape
        both = torch.cat((rollout.s.flatten(1, 2), rollout.s2.flatten(1, 2)), 1)
        v, v2 = self.value(both).view(n, 2, t, b).unbind(1)
        v2 = torch.where(rollout.terminated, ending.view(n, 1, 1), v2)
        delta = reward + self.options.discount * v2 - v
        keep = self.options.discount * self.options.trace * (~rollout.ended)
        advantage = torch.empty_like(delta)
        carry = torch.zeros(n, b)
        for i in reversed(range(t)):
            carry = delta[:, i] + keep[:, i] * carry
            advantage[:, i] = carry
        target = (advantage + v).flatten(1)
        flat = advantage.flatten(1)
        return (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-8), target

    def _reward_scale(self, reward: Tensor, ended: Tensor) -> Float[Tensor, "n 1 1"]:
        """Running standard deviation of the discounted return (Welford, merged a rollout at a time)."""
        sums = []
        total = self.running["sum"]
        for i in range(reward.shape[1]):
            total = self.options.discount * total + reward[:, i]
            sums.append(total)
            total = torch.where(ended[:, i], 0.0, total)
        self.running["sum"] = total
        seen = torch.stack(sums, 1).flatten(1).double()
        count, mean, squares = self.running["moments"].unbind(1)
        new, new_mean = float(seen.shape[1]), seen.mean(1)
        step = new_mean - mean
        spread = (seen - new_mean.unsqueeze(1)).square().sum(1)
        merged = (
            count + new,
            mean + step * new / (count + new),
            squares + spread + step**2 * count * new / (count + new),
        )
        self.running["moments"] = torch.stack(merged, 1)
        return (merged[2] / merged[0]).sqrt().clamp_min(1e-4).float().view(-1, 1, 1)

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """Of policy and value."""
        return [self.actor_optimiser, self.value_optimiser]

    def state(self) -> dict[str, Any]:
        """What is neither parameter nor optimiser."""
        return {
            "envs": self.envs.get_state(),
            "sums": {key: value.clone() for key, value in self.running.items()},
            "training": [c.training for c in self.counters],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.envs.set_state(state["envs"])
        for key in self.running:
            self.running[key] = state["sums"][key].clone()
        for counter, count in zip(self.counters, state["training"], strict=True):
            counter.training = int(count)
