"""The edge of stability of full-batch sharpness-aware minimisation.

SAM's gradient at a quadratic minimum is H(w + rho g/‖g‖). Along an eigenvector of H with eigenvalue λ, and with ‖g‖
slow, g = λw and so the step sees λ(1 + rho λ/‖g‖) w: the base optimiser's limit c binds that product,

    λ (1 + rho λ/‖g‖) = c   =>   λ_SAM = ‖g‖/(2 rho) (sqrt(1 + 4 c rho/‖g‖) − 1),   λ_SAM -> c as rho -> 0

(Long & Bartlett 2023, "Sharpness-aware minimization and the edge of stability", arXiv 2309.12488). c is 2/η for
gradient descent, 2(1+β)/η for heavy ball, 2(1+β)/(η(1+2β)) for Nesterov momentum as torch.optim.SGD has it: the
eigenvalue at which the companion matrix gets the eigenvalue −1.

Weight decay wd adds to the Hessian: the eigenvalue that the edge is about is that of the decayed Hessian, λ + wd.
*Inside* the perturbation (the decay is a part of the loss that is perturbed, and of g) the edge above holds for λ + wd.
*Outside* (the base optimiser adds wd w to SAM's gradient) the limit is λ (1 + rho λ/‖g‖) + wd = c, with g of the loss
alone, so the edge of the decayed eigenvalue is λ_SAM(c − wd) + wd.

All of it is about full-batch training; at a smaller batch the noise settles lambda below the edge.
"""

from __future__ import annotations

import math

from common.errors import BadInputError


def stability_limit(lr: float, momentum: float = 0.0, nesterov: bool = False) -> float:
    """The largest eigenvalue c at which the base optimiser is stable on a quadratic.

    Raises:
        BadInputError: lr is not positive, or momentum not in [0, 1).
    """
    if not (math.isfinite(lr) and lr > 0):
        raise BadInputError(f"lr = {lr}: the learning rate must be positive and finite")
    if not 0 <= momentum < 1:
        raise BadInputError(f"momentum = {momentum}: it must lie in [0, 1)")
    return 2 * (1 + momentum) / (lr * (1 + 2 * momentum if nesterov else 1))


def sam_edge(
    gradient_norm: float, rho: float, limit: float, weight_decay: float = 0.0, decay_inside: bool = True
) -> float:
    """The eigenvalue of the decayed Hessian, λ + wd, at which full-batch SAM loses its stability.

    Args:
        gradient_norm: ‖g‖ of the gradient that is normalised: with decay inside, that of the decayed loss.
        rho: radius of the perturbation.
        limit: c of the base optimiser, from `stability_limit`.
        weight_decay: wd.
        decay_inside: whether the perturbation's gradient holds the decay.

    Raises:
        BadInputError: gradient_norm, rho or limit is not positive and finite; wd is negative or at least c.
    """
    check_radius(rho)
    if not (math.isfinite(gradient_norm) and gradient_norm > 0):
        raise BadInputError(
            f"the gradient's norm is {gradient_norm}: the SAM edge needs a gradient that is not zero"
        )
    if not (math.isfinite(limit) and 0 <= weight_decay < limit):
        raise BadInputError(
            f"weight decay {weight_decay} must lie in [0, c), c = {limit} the stability limit"
        )
    outside = 0.0 if decay_inside else weight_decay
    c = limit - outside
    return (
        2 * c / (1 + math.sqrt(1 + 4 * c * rho / gradient_norm)) + outside
    )  # the formula without cancellation


def check_radius(rho: float) -> None:
    """Raise unless rho is a radius.

    Raises:
        BadInputError: rho is not positive and finite.
    """
    if not (math.isfinite(rho) and rho > 0):
        raise BadInputError(f"rho = {rho}: the radius of the perturbation must be positive and finite")
