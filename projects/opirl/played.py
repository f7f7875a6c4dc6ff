"""Policies read from their artefacts, stacked and played."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from projects.opirl import rollout
from projects.opirl.absorbing import features
from projects.opirl.artefacts import Policy, forward


def stacked(policies: Sequence[Policy]) -> rollout.Policy:
    """One function of raw observations (n, b, d) for the policies of N members (of one shape)."""
    layers = [torch.stack(part) for part in zip(*(policy.layers for policy in policies), strict=True)]
    shift = torch.stack([policy.shift for policy in policies]).unsqueeze(1)
    scale = torch.stack([policy.scale for policy in policies]).unsqueeze(1)
    act_dim, squash = policies[0].act_dim, policies[0].squash

    def act(obs: Float[Tensor, "n b d"]) -> Float[ndarray, "n b a"]:
        mean = forward(layers, features(obs, shift, scale))[..., :act_dim].numpy().astype(np.float64)
        return (np.tanh(mean) if squash == "tanh" else mean.clip(-1.0, 1.0)).astype(np.float32)

    return act
