"""SAC on a reward that is given: the true one (ceiling), a random network's (floor), a learned and frozen one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from common.training.seeds import generator
from projects.opirl import sac
from projects.opirl.arm import Setting
from projects.opirl.artefacts import Reward, forward
from projects.opirl.networks import StackedMLP
from projects.opirl.offpolicy import OffPolicy
from projects.opirl.release import switches
from projects.opirl.replay import Batch


class GivenReward(OffPolicy):
    """SAC; final classes say what a transition pays."""

    def learn(self, k: int, batch: Batch, draws: Mapping[str, Tensor]) -> Tensor:
        """One update of SAC."""
        return sac.update(self.agent, batch, self.pay(batch), draws["eps"][:, :2], k)

    @abstractmethod
    def pay(self, batch: Batch) -> Float[Tensor, "n b"]:
        """The reward of each transition."""


@final
class TrueReward(GivenReward):
    """The environment's own reward; terminations end the return, so no absorbing states."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, absorbing=0)

    def pay(self, batch: Batch) -> Float[Tensor, "n b"]:
        """r, scaled: the double pendulum's 10 a step makes critics of 64 units slow."""
        return float(self.setting.cfg["sac"]["reward_scale"]) * batch.r


@final
class RandomReward(GivenReward):
    """A random network of (s, a), at initialisation and for ever."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, absorbing=int(setting.cfg["absorbing"]["per_episode"]))
        sizes = (setting.spec.obs_dim + 1 + setting.spec.act_dim, 64, 64, 1)
        self.network = StackedMLP([generator(seed, "random reward") for seed in setting.seeds], sizes)
        self.network.requires_grad_(False)

    @torch.no_grad()
    def pay(self, batch: Batch) -> Float[Tensor, "n b"]:
        """The network's output."""
        return self.network(torch.cat((batch.s, batch.a), -1)).squeeze(-1)


class FrozenReward(GivenReward):
    """A reward that another stage learned, one per member.

    Args:
        absorbing: as the reward was trained, or 0 (a defect of the release).
    """

    def __init__(self, setting: Setting, rewards: Sequence[Reward], absorbing: int) -> None:
        on = switches(setting.cfg["release"])
        super().__init__(setting, absorbing, on.transfer_timeouts_end and setting.spec.horizon != 1000)
        self.state_only = rewards[0].state_only
        self.layers = [torch.stack(part) for part in zip(*(one.reward for one in rewards), strict=True)]

    @torch.no_grad()
    def reward(self, s: Float[Tensor, "n b d"], a: Float[Tensor, "n b a"]) -> Float[Tensor, "n b"]:
        """r_psi(s, a)."""
        return forward(self.layers, s if self.state_only else torch.cat((s, a), -1)).squeeze(-1)

    def pay(self, batch: Batch) -> Float[Tensor, "n b"]:
        """r_psi(s, a)."""
        return self.reward(batch.s, batch.a)
