"""What SAM's perturbation does to the gradient, and how much of it is signal.

cos(g₁, g₂) with g₁ = ∇L(w), g₂ = ∇L(w + rho g₁/‖g₁‖): 1 where SAM is the base optimiser.
SNR = ‖E ε_b‖/rho over micro-batches b, ε_b = rho g_b/‖g_b‖: 1 where all micro-batches perturb alike; k independent
directions give about 1/sqrt(k).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from common.curvature.edge import check_radius
from common.curvature.landscape import Landscape
from common.curvature.vectors import norm
from common.errors import BadInputError


def gradient_cosine(landscape: Landscape, rho: float) -> float:
    """cos(g₁, g₂) at the model's weights.

    Raises:
        BadInputError: rho is not positive, a loss is not finite, or a gradient is zero.
    """
    check_radius(rho)
    w = landscape.weights()
    first = landscape.gradient(w)[1]
    unit = first / positive_norm(first)
    second = landscape.gradient(w + rho * unit)[1]
    return float(torch.dot(unit, second)) / positive_norm(second, " after the perturbation")


def perturbation_snr(landscape: Landscape, m: int) -> float:
    """‖E ε_b‖/rho over consecutive micro-batches of m examples; it does not depend on rho.

    A micro-batch whose gradient is exactly zero is not perturbed: its ε is 0.

    Raises:
        BadInputError: m does not divide n, a loss is not finite, or every gradient is zero.
    """
    w, batches = landscape.weights(), landscape.micro_batches(m)
    total, moved = torch.zeros_like(w), False
    for batch in batches:
        gradient = batch.gradient(w)[1]
        if length := norm(gradient):
            total, moved = total + gradient / length, True
    if not moved:
        raise BadInputError("the gradient of every micro-batch is zero: there is no perturbation to measure")
    return norm(total) / len(batches)


def positive_norm(gradient: Float[Tensor, " p"], where: str = "") -> float:
    """‖g‖.

    Raises:
        BadInputError: it is zero.
    """
    length = norm(gradient)
    if not length:
        raise BadInputError(f"the gradient{where} is zero: it has no direction to perturb along")
    return length
