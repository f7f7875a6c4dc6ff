"""The perturbation rules. g1 = grad L(w), g2 = grad L(w + eps); the base optimiser receives a g1 + b g2.

Every rule is invariant to the scale of the loss, so scaled gradients (mixed precision) need no unscaling here.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from common.errors import BadInputError
from common.optim import vectors
from common.optim.schedules import positive
from common.optim.vectors import Vector
from common.processes.parts import cut_like

First = Literal["gradient", "loss", "none"]
"""What the pass at w is for: g1; only the loss and the running statistics; or there is no such pass."""
Key = tuple[int, int]
"""(step, number of the perturbation batch)."""


class Rule(ABC):
    """One perturbation rule; holds no state (LookSAM's memory is kept, and saved, by the optimiser)."""

    first: ClassVar[First] = "gradient"

    @abstractmethod
    def perturbation(self, w: Vector, g: Vector, rho: float, key: Key) -> Vector:
        """Eps, of norm rho in the rule's own norm; zero where g is zero.

        Args:
            w: the parameters.
            g: g1, or the momentum for MSAM; empty for a rule that needs no gradient.
            rho: neighbourhood size.
            key: of the random numbers.
        """

    def mix(self, g1: Vector, g2: Vector, rho: float) -> tuple[float, float]:
        """The factors (a, b) of g1 and g2 in the final gradient."""
        return 0.0, 1.0

    def due(self, step: int) -> bool:
        """Whether this step makes both passes."""
        return True


def along(g: Vector, rho: float) -> Vector:
    """rho g / ||g||."""
    length = vectors.norm(g)
    return vectors.scaled(g, rho / length if length > 0 else 0.0)


@dataclass(frozen=True)
class Base(Rule):
    """No perturbation: the base optimiser, to the bit. The one way to say rho = 0."""

    def perturbation(self, w: Vector, g: Vector, rho: float, key: Key) -> Vector:
        """Never asked for."""
        raise AssertionError

    def due(self, step: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class SAM(Rule):
    """eps = rho g1 / ||g1||_2 over all parameters (Foret et al., ICLR 2021)."""

    def perturbation(self, w: Vector, g: Vector, rho: float, key: Key) -> Vector:
        """rho g / ||g||."""
        return along(g, rho)


@dataclass(frozen=True)
class ASAM(Rule):
    """eps = rho T^2 g1 / ||T g1||, T = |w| + eta (Kwon et al., ICML 2021; their code has eta = 0.01)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        positive("eta", self.eta, zero=True)

    def perturbation(self, w: Vector, g: Vector, rho: float, key: Key) -> Vector:
        """rho T^2 g / ||T g||."""
        t = vectors.magnitude(w)
        if self.eta:
            for each in t:
                each.add_(self.eta)
        tg = vectors.product(t, g)
        length = vectors.norm(tg)
        return vectors.scaled(vectors.product(t, tg), rho / length if length > 0 else 0.0)


@dataclass(frozen=True)
class GSAM(SAM):
    """g2 - alpha (g1 - <g1, g2> g2 / ||g2||^2): SAM's gradient less alpha times the part of g1 orthogonal to it.

    Zhuang et al., ICLR 2022; published with rho in proportion to the learning rate.
    """

    alpha: float = 0.4

    def __post_init__(self) -> None:
        positive("alpha", self.alpha, zero=True)

    def mix(self, g1: Vector, g2: Vector, rho: float) -> tuple[float, float]:
        """(-alpha, 1 + alpha <g1, g2> / ||g2||^2)."""
        square = vectors.norm(g2) ** 2
        return -self.alpha, 1.0 + (self.alpha * vectors.dot(g1, g2) / square if square > 0 else 0.0)


@dataclass(frozen=True)
class GradientNormPenalty(SAM):
    """The gradient of L + strength ||grad L||, by a finite difference of length rho.

    (1 - strength / rho) g1 + (strength / rho) g2 (Zhao et al., ICML 2022); strength = rho is SAM.
    """

    strength: float

    def __post_init__(self) -> None:
        positive("strength", self.strength)

    def mix(self, g1: Vector, g2: Vector, rho: float) -> tuple[float, float]:
        """(1 - strength / rho, strength / rho)."""
        share = self.strength / rho if rho > 0 else 0.0
        return 1.0 - share, share


@dataclass(frozen=True)
class LookSAM(SAM):
    """SAM every k steps; between, g + alpha ||g|| g_v / ||g_v||, g_v the part of SAM's gradient orthogonal to g1.

    Liu et al., CVPR 2022. Steps between make one pass, and so cost what the base optimiser costs.
    """

    k: int = 5
    alpha: float = 0.7

    def __post_init__(self) -> None:
        positive("alpha", self.alpha)
        if self.k < 1:
            raise BadInputError(f"LookSAM's k must be at least 1, not {self.k}.")

    def due(self, step: int) -> bool:
        """Every k steps."""
        return step % self.k == 0

    def remember(self, g1: Vector, g2: Vector) -> Vector:
        """g_v = g2 - <g1, g2> g1 / ||g1||^2."""
        square = vectors.norm(g1) ** 2
        v = vectors.scaled(g2, 1.0)
        vectors.add_(v, g1, -vectors.dot(g1, g2) / square if square > 0 else 0.0)
        return v

    def reuse_(self, g: Vector, v: Vector) -> None:
        """g <- g + alpha ||g|| v / ||v||."""
        length = vectors.norm(v)
        vectors.add_(g, v, self.alpha * vectors.norm(g) / length if length > 0 else 0.0)


@dataclass(frozen=True)
class MSAM(Rule):
    """eps = -rho v / ||v||, v the base optimiser's momentum (w <- w - lr v): one pass, at w + eps.

    Becker et al., 2024 (arXiv 2401.12033): on along the last update, which in a sharp valley is uphill; the sign is
    that of their release. Without momentum yet (the first step) nothing is perturbed. For Adam and its like v is the
    running mean of the gradient, not divided by the root of the second moment.
    """

    first: ClassVar[First] = "none"

    def perturbation(self, w: Vector, g: Vector, rho: float, key: Key) -> Vector:
        """-rho v / ||v||, v given as g."""
        return along(g, -rho)


@dataclass(frozen=True)
class RandomDirection(Rule):
    """The control: eps = rho z / ||z||, z normal, a pure function of (seed, step, perturbation batch)."""

    seed: int
    first: ClassVar[First] = "loss"

    def perturbation(self, w: Vector, g: Vector, rho: float, key: Key) -> Vector:
        """rho z / ||z||."""
        digest = hashlib.blake2b(repr((self.seed, *key)).encode(), digest_size=8).digest()
        draw = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
        z = [torch.randn(p.shape, generator=draw, dtype=torch.float32).to(p.device, p.dtype) for p in w]
        z = [cut_like(whole, p) for whole, p in zip(z, w, strict=True)]
        return along(z, rho)
