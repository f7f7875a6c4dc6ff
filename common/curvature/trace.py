"""The trace of a symmetric matrix that is known by its products, with a standard error.

Hutchinson: E[zᵀ H z] = tr H for independent random signs z; the variance of one probe is 2 Σ_{i≠j} H_ij².
Hutch++ (Meyer, Musco, Musco, Woodruff 2021, "Hutch++: optimal stochastic trace estimation", algorithm 1): a third of
the products sketch the range, Q = orth(H S); the trace on Q is exact and Hutchinson estimates the rest,

    tr H = tr Qᵀ H Q + tr P H P,   P = I − Q Qᵀ

so a few outlying eigenvalues, as a trained network's Hessian has them, cost no variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from common.curvature.lanczos import Product
from common.curvature.landscape import Landscape
from common.curvature.vectors import rademacher
from common.errors import BadInputError


@dataclass(frozen=True)
class Trace:
    """An unbiased estimate of a trace.

    Attributes:
        value: the estimate.
        standard_error: of the random probes, over this estimate's draws; 0 where the sketch was exact.
        products: Hessian products used.
    """

    value: float
    standard_error: float
    products: int


def hessian_trace(landscape: Landscape, *, products: int = 60, seed: int = 0) -> Trace:
    """tr ∇²L at the model's weights, by Hutch++.

    Args:
        landscape: L.
        products: Hessian products: a third each for the sketch, its image and the probes of the rest.
        seed: of the own generator that draws sketch and probes.

    Raises:
        BadInputError: the loss or a product is not finite, or there are fewer than 6 products.
    """
    w = landscape.weights()
    landscape.value(w)
    return hutch_plus_plus(lambda v: landscape.hvp(w, v), w, products, torch.Generator().manual_seed(seed))


def hutchinson(product: Product, like: Float[Tensor, " p"], probes: int, generator: torch.Generator) -> Trace:
    """Hutchinson's estimate; `like` gives shape, dtype and device of a vector.

    Raises:
        BadInputError: fewer than 2 probes: they have no standard error.
    """
    if probes < 2:
        raise BadInputError(f"a trace with a standard error needs at least 2 probes, not {probes}")
    draws = (rademacher(like, generator) for _ in range(probes))
    return _mean([float(torch.dot(z, product(z))) for z in draws], 0.0, probes)


def hutch_plus_plus(
    product: Product, like: Float[Tensor, " p"], products: int, generator: torch.Generator
) -> Trace:
    """Hutch++; exact, with p sketches, once a third of the products reaches p.

    Raises:
        BadInputError: fewer than 6 products: two probes of the rest need two of each.
    """
    if products < 6:
        raise BadInputError(f"Hutch++ needs at least 6 Hessian products, not {products}")
    third, p = products // 3, like.numel()
    sketch = min(third, p)
    images = torch.stack([product(rademacher(like, generator)) for _ in range(sketch)], 1)
    basis = cast("Tensor", torch.linalg.qr(images)[0])  # orthonormal, whatever the rank of the images
    inside = math.fsum(float(torch.dot(q, product(q))) for q in basis.unbind(1))
    if sketch == p:
        return Trace(inside, 0.0, 2 * p)
    rest: list[float] = []
    for _ in range(third):
        z = rademacher(like, generator)
        z = z - torch.mv(basis, torch.mv(basis.t(), z))
        rest.append(float(torch.dot(z, product(z))))
    return _mean(rest, inside, 3 * third)


def _mean(samples: list[float], offset: float, products: int) -> Trace:
    n = len(samples)
    mean = math.fsum(samples) / n
    variance = math.fsum((sample - mean) ** 2 for sample in samples) / (n - 1)
    return Trace(offset + mean, math.sqrt(variance / n), products)
