"""How the neighbourhood size rho changes during a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import BadInputError

Schedule = Callable[[float, float], float]
"""(learning rate, ||g||) -> rho. A schedule may give 0: that step is one of the base optimiser."""


def positive(name: str, value: float, zero: bool = False) -> float:
    """The value, if it is finite and positive (or 0 where `zero` allows it).

    Raises:
        BadInputError: otherwise.
    """
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        hint = " For no perturbation use the rule Base." if name == "rho" else ""
        raise BadInputError(f"{name} must be {'>= 0' if zero else '> 0'} and finite, not {value}.{hint}")
    return float(value)


@dataclass(frozen=True)
class Constant:
    """rho as published (Foret et al., ICLR 2021)."""

    rho: float

    def __post_init__(self) -> None:
        positive("rho", self.rho)

    def __call__(self, lr: float, norm: float) -> float:
        """Rho."""
        return self.rho


@dataclass(frozen=True)
class ProportionalToLr:
    """(rho - rho_min) / (rho_max - rho_min) = (lr - lr_min) / (lr_max - lr_min) (GSAM, Zhuang et al., ICLR 2022).

    At a learning rate below lr_min, as in a warm-up, rho is rho_min.
    """

    rho_max: float
    lr_max: float
    rho_min: float = 0.0
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        positive("rho", self.rho_max)
        positive("rho_min", self.rho_min, zero=True)
        if not self.rho_min <= self.rho_max or not 0 <= self.lr_min < self.lr_max < math.inf:
            raise BadInputError(f"needs rho_min <= rho_max and 0 <= lr_min < lr_max, not {self}.")

    def __call__(self, lr: float, norm: float) -> float:
        """The rho of this learning rate."""
        share = max(0.0, (lr - self.lr_min) / (self.lr_max - self.lr_min))
        return self.rho_min + share * (self.rho_max - self.rho_min)


@dataclass(frozen=True)
class ByNorm:
    """rho = c ||g||^power, g the gradient that is normalised.

    With power 1 the perturbation is c g: un-normalised SAM (Andriushchenko & Flammarion, ICML 2022), whose strength
    rho lambda / ||g|| = c lambda does not grow as ||g|| falls with the batch. With power -1 it grows.
    """

    c: float
    power: float = 1.0

    def __post_init__(self) -> None:
        positive("rho", self.c)
        if not math.isfinite(self.power):
            raise BadInputError(f"the power of ||g|| must be finite, not {self.power}.")

    def __call__(self, lr: float, norm: float) -> float:
        """The rho of this gradient norm; 0 where there is no gradient."""
        return self.c * norm**self.power if norm > 0 else 0.0
