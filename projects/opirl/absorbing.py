"""Absorbing states (Kostrikov et al. 2019, "Discriminator-actor-critic", section 4.2; kept by OPIRL).

A state is [normalised observation, flag]. What follows a termination is the absorbing state, zero features and
flag 1, which leads to itself; so a learned reward of either sign says what an ending is worth. Without it an
ending is worth 0 for ever: the best thing there is under a negative reward, the worst under a positive one.

A time-out is no ending: the transition keeps its next state and is bootstrapped (trap P2).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def features(
    obs: Float[Tensor, "... d"], shift: Float[Tensor, "... d"], scale: Float[Tensor, "... d"]
) -> Float[Tensor, "... d+1"]:
    """States of observations: (obs + shift) scale, and flag 0."""
    return torch.nn.functional.pad((obs + shift) * scale, (0, 1))


def absorbing_state(obs_dim: int) -> Float[Tensor, " d+1"]:
    """The absorbing state of a task with `obs_dim` observations."""
    state = torch.zeros(obs_dim + 1)
    state[-1] = 1.0
    return state


def transitions(
    s: Float[Tensor, "k d"],
    a: Float[Tensor, "k a"],
    s2: Float[Tensor, "k d"],
    r: Float[Tensor, " k"],
    terminated: Bool[Tensor, " k"],
    absorbing: int,
) -> Float[Tensor, "m w"]:
    """Rows [s, a, s', r, m] of the replay buffer, in order; d counts the flag.

    Args:
        absorbing: how many rows (absorbing, 0, absorbing, 0, 1) follow each termination, whose own s' becomes
            the absorbing state and whose m becomes 1. With 0 a termination keeps its s' and has m = 0.
    """
    ends = terminated.unsqueeze(-1)
    if absorbing == 0:
        return torch.cat((s, a, s2, r.unsqueeze(-1), (~ends).to(s.dtype)), -1)
    void = absorbing_state(s.shape[-1] - 1).to(s.dtype)
    one = torch.ones_like(r).unsqueeze(-1)
    rows = torch.cat((s, a, torch.where(ends, void, s2), r.unsqueeze(-1), one), -1)
    if not bool(terminated.any()):
        return rows
    loop = torch.cat((void, torch.zeros(a.shape[-1], dtype=s.dtype), void, void.new_tensor([0.0, 1.0])))
    repeats = torch.where(terminated, 1 + absorbing, 1)
    result = rows.repeat_interleave(repeats, 0)
    first = repeats.cumsum(0) - repeats
    extra = torch.ones(len(result), dtype=torch.bool)
    extra[first] = False
    result[extra] = loop
    return result
