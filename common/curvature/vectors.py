"""Norms, and random vectors from an own generator: drawn on the CPU, so that devices get the same numbers."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor


def norm(vector: Float[Tensor, " p"]) -> float:
    """‖v‖₂."""
    return float(cast("Tensor", vector.norm()))  # a cast: torch leaves the method's type open


def gaussian(like: Float[Tensor, " p"], generator: torch.Generator) -> Float[Tensor, " p"]:
    """A standard normal vector with the shape, dtype and device of `like`."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def rademacher(like: Float[Tensor, " p"], generator: torch.Generator) -> Float[Tensor, " p"]:
    """A vector of independent signs with the shape, dtype and device of `like`."""
    return torch.randint(2, like.shape, generator=generator).to(like).mul_(2).sub_(1)
