"""The replay buffer of N members: one preallocated tensor, appended to and sampled, never rewritten.

A row is [s, a, s', r, m]: states carry the absorbing flag as their last element and are normalised; r is the
environment's reward (a learned reward is never stored: it changes); m is 0 where the task terminated and no
absorbing state stands for what follows, else 1. A time-out leaves m = 1 (trap P2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Stacked transitions, views of one gathered tensor."""

    s: Float[Tensor, "n b d"]
    a: Float[Tensor, "n b a"]
    s2: Float[Tensor, "n b d"]
    r: Float[Tensor, "n b"]
    m: Float[Tensor, "n b"]


def width(obs_dim: int, act_dim: int) -> int:
    """Length of a row; `obs_dim` counts the absorbing flag."""
    return 2 * obs_dim + act_dim + 2


def unpack(rows: Float[Tensor, "n b w"], act_dim: int) -> Batch:
    """Rows as a batch of views."""
    d = (rows.shape[-1] - act_dim - 2) // 2
    s, a, s2, r, m = rows.split((d, act_dim, d, 1, 1), dim=-1)
    return Batch(s, a, s2, r.squeeze(-1), m.squeeze(-1))


class Replay:
    """N append-only buffers of equal capacity; members may hold different numbers of rows.

    `capacity` is room for a run without terminations; absorbing rows beyond it double it.

    Attributes:
        rows: (n, capacity, width).
        sizes: rows held, per member.
    """

    def __init__(self, members: int, capacity: int, obs_dim: int, act_dim: int) -> None:
        self.act_dim = act_dim
        self.rows = torch.empty(members, capacity, width(obs_dim, act_dim))
        self.sizes = [0] * members
        self._offsets = torch.arange(members).unsqueeze(1) * capacity

    def add(self, member: int, rows: Float[Tensor, "k w"]) -> None:
        """Append k rows to one member's buffer."""
        start, end = self.sizes[member], self.sizes[member] + rows.shape[0]
        self.reserve(end)
        self.rows[member, start:end] = rows
        self.sizes[member] = end

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` rows of every member."""
        held = self.rows.shape[1]
        if capacity > held:
            extra = self.rows.new_empty(len(self.sizes), max(held, capacity - held), self.rows.shape[2])
            self.rows = torch.cat((self.rows, extra), 1)
            self._offsets = torch.arange(len(self.sizes)).unsqueeze(1) * self.rows.shape[1]

    def sample(self, u: Float[Tensor, "n b"], window: int | None = None) -> Batch:
        """The rows at the fractions `u` in [0, 1) of each buffer, or of its last `window` rows."""
        held = [size if window is None else min(size, window) for size in self.sizes]
        counts = torch.tensor(held).unsqueeze(1)
        starts = torch.tensor(self.sizes).unsqueeze(1) - counts
        picks = torch.minimum((u.double() * counts).long(), counts - 1) + starts + self._offsets
        flat = self.rows.view(-1, self.rows.shape[-1]).index_select(0, picks.view(-1))
        return unpack(flat.view(*u.shape, -1), self.act_dim)
