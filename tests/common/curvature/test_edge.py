from __future__ import annotations

import math

import pytest
import torch

from common.curvature.edge import sam_edge, stability_limit
from common.errors import BadInputError

BASES = [(0.1, 0.0, False), (0.05, 0.9, False), (0.05, 0.9, True), (0.2, 0.5, True)]


def radius(eigenvalue, norm, rho, lr, beta, nesterov, wd=0.0, inside=True):
    """Spectral radius of one step on (w, buffer) along an eigenvector, with ‖g‖ fixed; torch.optim.SGD's rules."""
    if inside:
        seen = (eigenvalue + wd) * (1 + rho * (eigenvalue + wd) / norm)
    else:
        seen = eigenvalue * (1 + rho * eigenvalue / norm) + wd
    a = 1 - lr * seen * (1 + beta if nesterov else 1)
    b = -lr * beta * (beta if nesterov else 1)
    companion = torch.tensor([[a, b], [seen, beta]], dtype=torch.float64)
    return float(torch.linalg.eigvals(companion).abs().max())


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("rho", [1e-3, 0.05, 2.0])
@pytest.mark.parametrize(("wd", "inside"), [(0.0, True), (0.3, True), (0.3, False)])
def test_the_linearised_map_is_marginal_at_the_edge(base, rho, wd, inside):
    norm = 0.7
    edge = sam_edge(norm, rho, stability_limit(*base), wd, inside) - wd
    assert radius(edge, norm, rho, *base, wd, inside) == pytest.approx(1, abs=1e-10)
    assert radius(0.999 * edge, norm, rho, *base, wd, inside) <= 1
    assert radius(1.001 * edge, norm, rho, *base, wd, inside) > 1


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_the_limit_is_torch_s_sgd(base, factor):
    lr, beta, nesterov = base
    w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimiser = torch.optim.SGD([w], lr=lr, momentum=beta, nesterov=nesterov)
    for _ in range(2000):
        w.grad = factor * stability_limit(*base) * w.detach()
        optimiser.step()
    assert (w.abs().item() < 1e-3) if factor < 1 else (w.abs().item() > 1e3)


def test_small_radius_gives_the_base_limit_and_a_larger_one_a_lower_edge():
    limit = stability_limit(0.08)
    assert limit == 25
    assert sam_edge(1.0, 1e-14, limit) == pytest.approx(limit, rel=1e-12)
    edges = [sam_edge(1.0, rho, limit) for rho in (0.01, 0.1, 1.0)]
    textbook = [(math.sqrt(1 + 4 * limit * rho) - 1) / (2 * rho) for rho in (0.01, 0.1, 1.0)]
    assert edges == pytest.approx(textbook, rel=1e-12)
    assert edges == sorted(edges, reverse=True)
    assert sam_edge(3.0, 0.3, limit) == pytest.approx(sam_edge(1.0, 0.1, limit), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sam_edge(1, 0, 1), "rho = 0"),
        (lambda: sam_edge(1, math.nan, 1), "rho = nan"),
        (lambda: sam_edge(0, 0.1, 1), "norm is 0: the SAM edge needs a gradient"),
        (lambda: sam_edge(math.inf, 0.1, 1), "norm is inf"),
        (lambda: sam_edge(1, 0.1, 1, 2), "weight decay 2"),
        (lambda: stability_limit(0), "lr = 0"),
        (lambda: stability_limit(0.1, 1.0), "momentum = 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(BadInputError, match=message):
        call()
