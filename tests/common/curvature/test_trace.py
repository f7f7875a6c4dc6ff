from __future__ import annotations

import pytest
import torch

from common.curvature.trace import hessian_trace, hutch_plus_plus, hutchinson
from common.curvature.vectors import rademacher
from common.errors import BadInputError
from tests.common.curvature.nets import conv, dense, draws, mlp

SPIKED = torch.cat([torch.tensor([900.0, 400.0, -150.0]), torch.linspace(-0.2, 0.4, 157)]).double()
ROTATION = torch.linalg.qr(torch.randn(160, 160, generator=draws(0), dtype=torch.float64))[0]
MATRIX = ROTATION @ torch.diag(SPIKED) @ ROTATION.T


@pytest.mark.parametrize("build", [mlp, conv])
def test_the_trace_is_the_dense_one(build):
    landscape = build()
    exact = float(torch.trace(dense(landscape)))
    estimate = hessian_trace(landscape, products=60)
    assert abs(estimate.value - exact) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.1 * abs(exact)
    assert estimate.products == 60
    everything = hessian_trace(landscape, products=3 * landscape.weights().numel())
    assert everything.value == pytest.approx(exact, rel=1e-10)
    assert everything.standard_error == 0


@pytest.mark.parametrize("estimator", [hutchinson, hutch_plus_plus])
def test_estimates_are_unbiased_and_their_standard_errors_honest(estimator):
    estimates = [estimator(lambda v: MATRIX @ v, SPIKED, 30, draws(seed)) for seed in range(200)]
    values = torch.tensor([estimate.value for estimate in estimates])
    errors = torch.tensor([estimate.standard_error for estimate in estimates])
    spread = float(values.std())
    assert abs(float(values.mean() - SPIKED.sum())) < 4 * spread / 200**0.5
    assert float(errors.square().mean().sqrt()) == pytest.approx(spread, rel=0.25)


def test_hutch_plus_plus_beats_hutchinson_on_outliers():
    plain, better = (e(lambda v: MATRIX @ v, SPIKED, 30, draws(1)) for e in (hutchinson, hutch_plus_plus))
    assert plain.products == better.products == 30
    assert better.standard_error < plain.standard_error / 50


def test_a_low_rank_matrix_is_exact():
    low = ROTATION[:, :2] @ torch.diag(torch.tensor([3.0, -1.0]).double()) @ ROTATION[:, :2].T
    estimate = hutch_plus_plus(lambda v: low @ v, SPIKED, 12, draws(0))
    assert estimate.value == pytest.approx(2, abs=1e-10)
    assert estimate.standard_error < 1e-10


def test_signs_are_signs_and_the_seed_decides():
    signs = rademacher(SPIKED, draws(3))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert signs.dtype == SPIKED.dtype
    assert hessian_trace(mlp(), seed=4) == hessian_trace(mlp(), seed=4) != hessian_trace(mlp(), seed=5)


def test_bad_input_is_named():
    with pytest.raises(BadInputError, match="at least 6 Hessian products, not 5"):
        hessian_trace(mlp(), products=5)
    with pytest.raises(BadInputError, match="at least 2 probes, not 1"):
        hutchinson(lambda v: v, SPIKED, 1, draws(0))
