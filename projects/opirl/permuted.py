"""The control of the transfer claim: a learned reward whose states are permuted.

    r'(s, a) = r(x_sigma(j), a),  x_j the anchor nearest to s

Anchors x_1 ... x_K are a fixed set of states (a random policy's of the target, and the demonstrations' of the source),
sigma a fixed permutation of them. r' takes the values of r, at the wrong places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from common.training.seeds import generator
from projects.opirl.arm import Setting
from projects.opirl.artefacts import Reward
from projects.opirl.given import FrozenReward
from projects.opirl.replay import Batch
from projects.opirl.rollout import run
from projects.opirl.training import random_policy

ANCHORS = 256


@final
class PermutedReward(FrozenReward):
    """SAC on r'."""

    def __init__(self, setting: Setting, rewards: Sequence[Reward]) -> None:
        super().__init__(setting, rewards, rewards[0].absorbing)
        states = self.collector.states
        wild = run(random_policy(setting.seeds, setting.spec.act_dim), setting.env, 4, setting.seeds, "anchors",
                   self.counters, "reward_collection")  # fmt: skip
        seen = [torch.cat([torch.from_numpy(w.obs), torch.from_numpy(d.episodes.obs)])
                for w, d in zip(wild, setting.demos, strict=True)]  # fmt: skip
        sources = [generator(seed, "anchors") for seed in setting.seeds]
        picks = [_picks(len(obs), g) for obs, g in zip(seen, sources, strict=True)]
        self.anchors = states(torch.stack([obs[pick] for obs, pick in zip(seen, picks, strict=True)]))
        self.images = torch.stack(
            [x[torch.randperm(ANCHORS, generator=g)] for x, g in zip(self.anchors, sources, strict=True)]
        )

    @torch.no_grad()
    def pay(self, batch: Batch) -> Float[Tensor, "n b"]:
        """r'(s, a)."""
        # by differences, not by products: those cancel near an anchor, and round otherwise in another stack
        distances = torch.cdist(batch.s, self.anchors, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.argmin(-1, keepdim=True)
        images = self.images.gather(1, nearest.expand(-1, -1, batch.s.shape[-1]))
        return self.reward(images, batch.a)


def _picks(count: int, generator: torch.Generator) -> Int[Tensor, " k"]:
    """ANCHORS of `count` indices, none twice while there are enough."""
    rounds = -(-ANCHORS // count)
    return torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])[:ANCHORS]
