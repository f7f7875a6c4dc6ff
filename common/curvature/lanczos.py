"""The largest eigenvalue of a symmetric matrix that is known by its products, by Lanczos' method.

K_k = span(q, Hq, …, H^(k−1) q) with an orthonormal basis Q gives Qᵀ H Q = T, tridiagonal. The largest eigenpair (θ, s)
of T gives (θ, Qs) with the residual ‖H Qs − θ Qs‖ = |T_{k+1,k} s_k|, and some eigenvalue of H lies within it of θ
(Parlett 1980, "The symmetric eigenvalue problem", ch. 13). Each new vector is made orthogonal to all before it, twice:
without that, copies of converged eigenvalues appear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from common.curvature.landscape import Landscape
from common.curvature.vectors import gaussian, norm
from common.errors import BadInputError

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Eigenpair:
    """The largest eigenvalue (algebraically: H need not be definite) with what it is worth.

    Attributes:
        value: θ, at most λ_max up to rounding.
        residual: ‖Hx − θx‖; an eigenvalue lies within this distance.
        vector: x, of norm 1.
        products: Hessian products used.
        converged: residual <= tolerance × the largest |θ| of T.
    """

    value: float
    residual: float
    vector: Float[Tensor, " p"]
    products: int
    converged: bool


def lambda_max(landscape: Landscape, *, seed: int = 0, tolerance: float = 1e-3, steps: int = 80) -> Eigenpair:
    """The largest eigenvalue of ∇²L at the model's weights.

    Args:
        landscape: L.
        seed: of the start vector, drawn by an own generator.
        tolerance: of the residual, relative to the spectral norm; the error of θ is of its square where the
            eigenvalue is separated.
        steps: Hessian products at most; the basis keeps that many vectors of p numbers.

    Raises:
        BadInputError: the loss or a product is not finite, or a setting is out of range.
    """
    w = landscape.weights()
    landscape.value(w)
    start = gaussian(w, torch.Generator().manual_seed(seed))
    return largest_eigenpair(lambda v: landscape.hvp(w, v), start, tolerance=tolerance, steps=steps)


def largest_eigenpair(
    product: Product, start: Float[Tensor, " p"], *, tolerance: float, steps: int
) -> Eigenpair:
    """Lanczos with full reorthogonalisation from `start`, until the residual or the number of steps says stop.

    Raises:
        BadInputError: tolerance or steps is not positive, or the start is zero.
    """
    if steps < 1 or tolerance <= 0 or not norm(start) > 0:
        raise BadInputError(
            f"Lanczos needs steps >= 1 ({steps}), tolerance > 0 ({tolerance}) and a start vector"
        )
    steps = min(steps, start.numel())
    basis = start.new_empty(steps, start.numel())
    basis[0] = start / norm(start)
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        k = len(diagonal) + 1
        image = product(basis[k - 1])
        diagonal.append(float(torch.dot(basis[k - 1], image)))
        for _ in range(2):
            image = image - torch.mv(basis[:k].t(), torch.mv(basis[:k], image))
        beta = norm(image)
        ritz, vectors = _spectrum(diagonal, beside)
        residual, scale = beta * abs(float(vectors[-1, -1])), float(ritz.abs().max())
        exhausted = beta <= 10 * torch.finfo(start.dtype).eps * scale  # an invariant subspace: it holds λ_max
        converged = residual <= tolerance * scale or exhausted
        if converged or k == steps:
            vector = torch.mv(basis[:k].t(), vectors[:, -1].to(basis))
            return Eigenpair(float(ritz[-1]), residual, vector / norm(vector), k, converged)
        basis[k] = image / beta
        beside.append(beta)


def _spectrum(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and eigenvectors of the symmetric tridiagonal matrix, in double precision."""
    off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + off + off.t()
    return cast("tuple[Tensor, Tensor]", torch.linalg.eigh(matrix))
