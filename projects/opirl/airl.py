"""On-policy AIRL by PPO (Fu et al. 2018), with OPIRL's discriminator networks, penalty and data format.

    h(s, a, s') = f(s, a, s') - log pi(a|s),   f = r_psi(s, a) + gd V_phi(s') - V_phi(s)
    L_D = E_E[softplus(-h)] + E_pi[softplus(h)] + c (P_r + P_V)        pi: the last rollout, no older data
    PPO is paid log D - log(1 - D) = h. With gd = gamma, as the arms have it, the policy's optimum is the
    entropy-regularised one of r_psi; with another gd a part (gamma - gd) V_phi(s') of the reward stays in the shaping.

A termination leads to the absorbing state, whose value is that of its own reward for ever, h_abs / (1 - gamma);
there is nothing to choose there, so its log pi is 0. r_psi(s) in place of r_psi(s, a): `discriminator.state_only`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from common.processes.shares import share
from common.training.seeds import generator
from projects.opirl import demos
from projects.opirl.absorbing import absorbing_state, transitions
from projects.opirl.adam import descend
from projects.opirl.arm import Setting
from projects.opirl.artefacts import Policy, Reward
from projects.opirl.discriminator import Discriminator, DiscriminatorOptions, softplus
from projects.opirl.networks import whole_vectors
from projects.opirl.ppo import PPO, PPOOptions, Rollout
from projects.opirl.replay import Batch, Replay
from projects.opirl.rollout import Counters
from projects.opirl.streams import Streams


@final
class AIRL(nn.Module):
    """Discriminator and PPO of N members. Reads the sections `airl`, `discriminator` and `absorbing`."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        options = setting.cfg["airl"]
        ppo: dict[str, Any] = {**options["ppo"], "hidden": tuple(options["ppo"]["hidden"])}
        self.ppo = PPO(setting.env, setting.seeds, setting.shift, setting.scale, PPOOptions(**ppo))
        self.batch, self.updates = int(options["batch"]), int(options["updates"])
        whole_vectors(airl__batch=self.batch)
        self.absorbing = int(setting.cfg["absorbing"]["per_episode"])
        self.stride = self.ppo.rows
        n, self.d, a = len(setting.seeds), setting.spec.obs_dim + 1, setting.spec.act_dim
        self.discriminator = Discriminator(
            [generator(seed, "discriminator") for seed in setting.seeds], self.d, a, _options(setting.cfg)
        )
        self.expert, self.recent = Replay(n, 1, self.d, a), Replay(n, self.stride, self.d, a)
        for i, one in enumerate(setting.demos):
            self.expert.add(i, demos.rows(one, self.absorbing, setting.shift[i], setting.scale[i]))
        b = self.batch
        self.streams = Streams(
            setting.seeds,
            "airl",
            {"expert": ("uniform", (b,)), "policy": ("uniform", (b,)), "mix": ("uniform", (2, b))},
        )

    @property
    def counters(self) -> list[Counters]:
        """Interactions per member."""
        return self.ppo.counters

    def step(self, k: int) -> Tensor:
        """Iteration k: a rollout, the discriminator's updates, PPO's; the losses (n,)."""
        return self.iterate(k)["loss"]

    def iterate(self, k: int) -> dict[str, Tensor]:
        """As `step`; returns PPO's scalars, and the discriminator's `disc_loss`, `on_expert`, `on_policy`."""
        rollout = self.ppo.collect(k)
        self._remember(rollout)
        scalars: dict[str, Tensor] = {}
        for update in range(k * self.updates, (k + 1) * self.updates):
            draws = self.streams.at(update)
            expert = self.expert.sample(share(draws["expert"], 1))
            policy = self.recent.sample(share(draws["policy"], 1))
            scalars = self._update(expert, policy, share(draws["mix"], 2))
        reward, ending = self.pay(rollout)
        result = self.ppo.iterate(k, rollout, reward, ending)
        return {**scalars, **result, "loss": result["loss"] + scalars["disc_loss"]}

    def _remember(self, rollout: Rollout) -> None:
        """Only this rollout: what came before is forgotten, that is what on-policy means."""
        for i in range(len(self.setting.seeds)):
            parts = (rollout.s, rollout.a, rollout.s2, rollout.reward, rollout.terminated)
            s, a, s2, r, ends = (part[i].flatten(0, 1) for part in parts)
            self.recent.sizes[i] = 0
            self.recent.add(i, transitions(s, a, s2, r, ends, self.absorbing))

    def _update(self, expert: Batch, policy: Batch, mix: Tensor) -> dict[str, Tensor]:
        both = Batch(
            *(
                torch.cat((getattr(expert, key), getattr(policy, key)), 1)
                for key in ("s", "a", "s2", "r", "m")
            )
        )
        h = self.discriminator.logits(both) - self._log_pi(both.s, both.a)
        on_expert, on_policy = h.chunk(2, 1)
        logistic = softplus(-on_expert).mean(-1) + softplus(on_policy).mean(-1)
        loss = logistic + self.discriminator.options.penalty * self.discriminator.gradient_penalty(both, mix)
        descend(self.discriminator.optimiser, loss, "the discriminator")
        means = {"disc_loss": loss, "on_expert": on_expert.mean(-1), "on_policy": on_policy.mean(-1)}
        return {key: value.detach() for key, value in means.items()}

    @torch.no_grad()
    def _log_pi(self, s: Float[Tensor, "n b d"], a: Float[Tensor, "n b a"]) -> Float[Tensor, "n b"]:
        return self.ppo.log_density(s, a)[0] * (s[..., -1] == 0)

    @torch.no_grad()
    def pay(self, rollout: Rollout) -> tuple[Float[Tensor, "n t b"], Float[Tensor, " n"]]:
        """h of every transition, and the value of the absorbing state."""
        n, t, b = rollout.reward.shape
        void = absorbing_state(self.d - 1).expand(n, 1, self.d)
        s, a = rollout.s.flatten(1, 2), rollout.a.flatten(1, 2)
        s2 = rollout.s2.flatten(1, 2)
        if self.absorbing > 0:
            s2 = torch.where(rollout.terminated.view(n, -1, 1), void, s2)
        one = torch.ones(n, t * b)
        h = self.discriminator.logits(Batch(s, a, s2, one, one)) - self._log_pi(s, a)
        if self.absorbing == 0:
            return h.view(n, t, b), torch.zeros(n)
        still = Batch(void, torch.zeros(n, 1, a.shape[-1]), void, one[:, :1], one[:, :1])
        ending = self.discriminator.logits(still)[:, 0] / (1.0 - self.ppo.options.discount)
        return h.view(n, t, b), ending

    def act(self, obs: Float[Tensor, "n b d"]) -> Float[Tensor, "n b a"]:
        """The mean action."""
        return self.ppo.act(obs)

    def diagnostics(self, k: int) -> dict[str, Tensor]:
        """Nothing beside the return."""
        return {}

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """PPO's and the discriminator's."""
        return [*self.ppo.optimisers(), self.discriminator.optimiser]

    def journals(self) -> Mapping[str, Any]:
        """None: nothing older than an iteration is kept."""
        return {}

    def state(self) -> dict[str, Any]:
        """Environments and running sums."""
        return self.ppo.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.ppo.load_state(state)

    def policies(self) -> list[Policy]:
        """The mean policies."""
        where, net = self.setting, self.ppo.mean
        return [
            Policy(where.env, where.spec.act_dim, net.member(i), where.shift[i], where.scale[i])
            for i in range(len(where.seeds))
        ]

    def rewards(self) -> list[Reward]:
        """r_psi and V_phi with their normaliser and absorbing layout."""
        where, parts = self.setting, self.discriminator
        form = (parts.options.state_only, self.absorbing)
        return [
            Reward(
                where.env, str(where.cfg["axes"]["method"]), parts.reward.member(i), parts.value.member(i),
                *form, where.shift[i], where.scale[i],
            )
            for i in range(len(where.seeds))
        ]  # fmt: skip


def _options(cfg: Mapping[str, Any]) -> DiscriminatorOptions:
    """The section `discriminator`; its window of the replay buffer has no meaning on policy."""
    options: dict[str, Any] = {key: value for key, value in cfg["discriminator"].items() if key != "window"}
    for key in ("hidden_reward", "hidden_value"):
        options[key] = tuple(options[key])
    return DiscriminatorOptions(**options)
