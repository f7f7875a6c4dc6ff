"""m-sharpness: how much the loss of a micro-batch can rise within a ball of radius rho, on average.

    S_m(w) = mean over the n/m micro-batches b of  max_{‖ε‖₂ <= rho} L_b(w + ε) − L_b(w)

(Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization"; Andriushchenko &
Flammarion 2022, "Towards understanding sharpness-aware minimization"). The maximum is found by projected ascent along
the normalised gradient, ε <- Π(ε + a ∇L_b/‖∇L_b‖). The first step has a = rho and lands on SAM's own perturbation; a
step that does not raise the loss is taken back and a is halved, so that the value never falls. What is found is a local
maximum: a lower bound of S_m.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from common.curvature.edge import check_radius
from common.curvature.landscape import Landscape
from common.curvature.vectors import gaussian, norm
from common.errors import BadInputError


def m_sharpness(landscape: Landscape, rho: float, m: int, *, steps: int = 20, seed: int = 0) -> float:
    """S_m at the model's weights over consecutive micro-batches of m examples.

    Args:
        landscape: L; its examples in the order that makes the micro-batches.
        rho: radius of the ball.
        m: size of a micro-batch, a divisor of n.
        steps: gradients a micro-batch.
        seed: of the direction that ascent leaves a stationary point by.

    Raises:
        BadInputError: rho, m or steps is out of range, or a loss is not finite.
    """
    check_radius(rho)
    if steps < 1:
        raise BadInputError(f"steps = {steps}: ascent needs at least one step")
    w, generator = landscape.weights(), torch.Generator().manual_seed(seed)
    rises = [worst_rise(batch, w, rho, steps, generator) for batch in landscape.micro_batches(m)]
    return math.fsum(rises) / len(rises)


def worst_rise(
    landscape: Landscape, w: Float[Tensor, " p"], rho: float, steps: int, generator: torch.Generator
) -> float:
    """max_{‖ε‖ <= rho} L(w + ε) − L(w) by `steps` steps of projected ascent; never negative.

    Raises:
        BadInputError: a loss is not finite.
    """
    start, slope = landscape.gradient(w)
    best, place, step = start, torch.zeros_like(w), rho
    for _ in range(steps):
        length = norm(slope)
        uphill = slope / length if length else _unit(gaussian(w, generator))
        candidate = place + step * uphill
        candidate = candidate * min(1.0, rho / norm(candidate))
        value, slope_there = landscape.gradient(w + candidate)
        if value > best:
            best, place, slope = value, candidate, slope_there
        else:
            step /= 2
    return best - start


def _unit(vector: Tensor) -> Tensor:
    return vector / norm(vector)
