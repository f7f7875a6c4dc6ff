"""OPIRL (Hoshino et al. 2021): off-policy inverse reinforcement learning via distribution matching.

Each interaction is followed by one update of the discriminator, on an expert batch and a replay batch, and one of
the policy, on the same replay batch paid by the current reward r_psi(s, a): see projects/opirl/discriminator.py
and algae.py. Controls differ from it by configuration alone (`variants.method` in base.yaml): the replay buffer or
the discriminator's data cut to the last rollout, the covering term off or fed shuffled actions, r_psi(s).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from common.training.seeds import generator
from projects.opirl import algae
from projects.opirl.algae import AlgaeOptions
from projects.opirl.arm import Setting
from projects.opirl.artefacts import Reward
from projects.opirl.discriminator import Discriminator, DiscriminatorOptions
from projects.opirl.expertise import expert_buffer, shuffled
from projects.opirl.offpolicy import OffPolicy
from projects.opirl.release import switches
from projects.opirl.replay import Batch


@final
class OPIRL(OffPolicy):
    """Discriminator and policy of N members."""

    def __init__(self, setting: Setting) -> None:
        cfg, matching = setting.cfg, dict(setting.cfg["algae"])
        self.absorbing = int(cfg["absorbing"]["per_episode"])
        on = switches(cfg["release"])  # checked before files are opened
        super().__init__(_with_temperature(setting, matching.pop("temperature")), self.absorbing)
        self.algae = AlgaeOptions(**matching, positive_part=on.positive_part, cover_replay=on.cover_replay)
        self.clip_reward = on.clip_reward and setting.env.startswith("pointmaze_")
        self.expert = expert_buffer(setting, self.absorbing, on)
        self.covered = shuffled(self.expert, setting) if cfg["cover"]["shuffle"] else self.expert
        options = dict(cfg["discriminator"])
        self.recent = options.pop("window")
        hidden = {key: tuple(options.pop(key)) for key in ("hidden_reward", "hidden_value")}
        generators = [generator(seed, "discriminator") for seed in setting.seeds]
        self.discriminator = Discriminator(
            generators,
            setting.spec.obs_dim + 1,
            setting.spec.act_dim,
            DiscriminatorOptions(**hidden, **options, dead_log_pi=on.dead_log_pi),
        )

    def learn(self, k: int, batch: Batch, draws: Mapping[str, Tensor]) -> Tensor:
        """One update of r_psi and V_phi, one of the policy."""
        against = batch
        if self.recent is not None:
            against = self.collector.replay.sample(draws["recent"], self.recent)
        expert = self.expert.sample(draws["expert"])
        first = self.discriminator.update(expert, against, draws["mix"])
        reward = self.pay(batch)
        covered = expert if self.covered is self.expert else self.covered.sample(draws["expert"])
        return first + algae.update(self.agent, batch, reward, draws["eps"], self.algae, covered, k)

    def pay(self, batch: Batch) -> Float[Tensor, "n b"]:
        """r_psi(s, a); min(r_psi(s, a), 0) in a maze where the release's clip is switched on."""
        reward = self.discriminator.rewards(batch.s, batch.a)
        return reward.clamp(max=0.0) if self.clip_reward else reward

    @torch.no_grad()
    def diagnostics(self, k: int) -> dict[str, Tensor]:
        """Of the batches of step k, r_psi on expert and replay and the share that f tells apart (traps P8, P9)."""
        if min(self.collector.replay.sizes) == 0:
            return {}
        draws = self.streams.at(k)
        sides = {
            "expert": self.expert.sample(draws["expert"]),
            "replay": self.collector.replay.sample(draws["replay"]),
        }
        rewards = {name: self.discriminator.rewards(side.s, side.a) for name, side in sides.items()}
        right = [
            sign * self.discriminator.logits(side) > 0
            for sign, side in zip((1, -1), sides.values(), strict=True)
        ]
        return {
            "temperature": self.agent.alpha.squeeze(1),
            **{f"reward_{name}": value.mean(-1) for name, value in rewards.items()},
            **{f"reward_{name}_std": value.std(-1) for name, value in rewards.items()},
            "discriminator_accuracy": torch.cat(right, -1).float().mean(-1),
        }

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The agent's and the discriminator's."""
        return [*super().optimisers(), self.discriminator.optimiser]

    def rewards(self) -> list[Reward]:
        """r_psi and V_phi with their normaliser and absorbing layout."""
        setting, parts = self.setting, self.discriminator
        method = str(setting.cfg["axes"]["method"])
        return [
            Reward(
                setting.env,
                method,
                parts.reward.member(i),
                parts.value.member(i),
                parts.options.state_only,
                self.absorbing,
                setting.shift[i],
                setting.scale[i],
            )
            for i in range(len(setting.seeds))
        ]


def _with_temperature(setting: Setting, temperature: float | None) -> Setting:
    """With a number the temperature is fixed to it; null learns it, as released.

    The forward KL to a deterministic expert narrows the policy below any target entropy, and a learned temperature
    then grows without bound (trap P7; measured: 0.1 -> 50 in 5,000 updates).
    """
    if temperature is None:
        return setting
    agent: dict[str, Any] = {**setting.cfg["agent"], "alpha_init": float(temperature), "alpha_lr": 0.0}
    return replace(setting, cfg={**setting.cfg, "agent": agent})
