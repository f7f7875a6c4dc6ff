"""Policies read from their artefacts, stacked and played."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from common.training.seeds import numpy_generator
from projects.opirl import rollout
from projects.opirl.absorbing import features
from projects.opirl.artefacts import Policy, forward
from projects.opirl.networks import LOG_STD_MAX, LOG_STD_MIN


def stacked(policies: Sequence[Policy]) -> rollout.Policy:
    """One function of raw observations (n, b, d) for the mean policies of N members (of one shape)."""
    outputs, act_dim = _outputs(policies), policies[0].act_dim

    def act(obs: Float[Tensor, "n b d"]) -> Float[ndarray, "n b a"]:
        return np.tanh(outputs(obs)[..., :act_dim]).astype(np.float32)

    return act


def sampled(policies: Sequence[Policy], seeds: Sequence[int]) -> rollout.Policy:
    """As `stacked`, but a sample a = tanh(mu + sigma eps) of each, for actors that have sigma among their outputs.

    Source: projects/opirl/networks.py, Actor. Each member draws from its own stream.
    """
    outputs, act_dim = _outputs(policies), policies[0].act_dim
    generators = [numpy_generator(seed, "sampled policy") for seed in seeds]

    def act(obs: Float[Tensor, "n b d"]) -> Float[ndarray, "n b a"]:
        mean, raw = np.split(outputs(obs), (act_dim,), axis=-1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (np.tanh(raw) + 1.0)
        eps = np.stack([one.standard_normal(mean.shape[1:]) for one in generators])
        return np.tanh(mean + np.exp(log_std) * eps).astype(np.float32)

    return act


def _outputs(policies: Sequence[Policy]) -> rollout.Policy:
    layers = [torch.stack(part) for part in zip(*(policy.layers for policy in policies), strict=True)]
    shift = torch.stack([policy.shift for policy in policies]).unsqueeze(1)
    scale = torch.stack([policy.scale for policy in policies]).unsqueeze(1)

    def outputs(obs: Float[Tensor, "n b d"]) -> Float[ndarray, "n b o"]:
        return forward(layers, features(obs, shift, scale)).numpy().astype(np.float64)

    return outputs
