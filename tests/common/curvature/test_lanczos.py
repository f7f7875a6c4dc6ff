from __future__ import annotations

import warnings

import pytest
import torch

from common.curvature.lanczos import lambda_max, largest_eigenpair
from common.curvature.vectors import gaussian
from common.errors import BadInputError
from tests.common.curvature.nets import conv, dense, draws, mlp


@pytest.mark.parametrize("build", [mlp, conv])
def test_lambda_max_is_the_dense_one(build):
    landscape = build()
    matrix = dense(landscape)
    pair = lambda_max(landscape, tolerance=1e-8)
    assert pair.value == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-12)
    assert pair.converged and pair.products < len(matrix)
    loose = lambda_max(landscape, tolerance=1e-2)
    true_residual = float((matrix @ loose.vector - loose.value * loose.vector).norm())
    assert loose.residual == pytest.approx(true_residual, rel=1e-6)
    assert loose.residual <= 1e-2 * float(torch.linalg.eigvalsh(matrix).abs().max())
    assert loose.products < pair.products


@pytest.mark.parametrize("build", [mlp, conv])
def test_products_and_lambda_max_are_curvlinops_s(build):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compiles helpers with torch.jit at import
        from curvlinops import HessianLinearOperator
    landscape = build()
    landscape.model.eval()
    oracle = HessianLinearOperator(
        landscape.model,
        {"mlp": torch.nn.CrossEntropyLoss(), "conv": torch.nn.MSELoss()}[build.__name__],
        list(landscape.model.parameters()),
        [(landscape.inputs, landscape.targets)],
    )
    w = landscape.weights()
    v = gaussian(w, draws(9))
    torch.testing.assert_close(landscape.hvp(w, v), oracle @ v, rtol=1e-9, atol=1e-12)
    top = float(torch.linalg.eigvalsh(oracle @ torch.eye(len(w), dtype=w.dtype))[-1])
    assert lambda_max(landscape, tolerance=1e-8).value == pytest.approx(top, rel=1e-10)


def test_largest_means_algebraic_and_clusters_are_found():
    spectrum = torch.cat([torch.tensor([-50.0, 3.0, 2.999]), torch.linspace(-1, 1, 197)]).double()
    pair = largest_eigenpair(lambda v: spectrum * v, gaussian(spectrum, draws(0)), tolerance=1e-9, steps=150)
    assert pair.value == pytest.approx(3.0, rel=1e-9)
    assert pair.converged


def test_a_low_rank_matrix_ends_early():
    u = gaussian(torch.zeros(50, dtype=torch.float64), draws(1))
    pair = largest_eigenpair(lambda v: u * (u @ v), gaussian(u, draws(0)), tolerance=1e-14, steps=50)
    assert pair.value == pytest.approx(float(u @ u), rel=1e-12)
    assert pair.products <= 3
    zero = largest_eigenpair(torch.zeros_like, gaussian(u, draws(0)), tolerance=1e-9, steps=50)
    assert (zero.value, zero.products, zero.converged) == (0, 1, True)


def test_the_seed_decides_and_an_unfinished_run_says_so():
    landscape = mlp()
    first, again = (lambda_max(landscape, seed=1, steps=4, tolerance=1e-9) for _ in range(2))
    assert first.value == again.value and torch.equal(first.vector, again.vector)
    assert first.value != lambda_max(landscape, seed=2, steps=4, tolerance=1e-9).value
    assert not first.converged and first.products == 4


def test_single_precision_agrees():
    landscape = mlp()
    exact = lambda_max(landscape, tolerance=1e-8).value
    landscape.model.float()
    single = type(landscape)(landscape.model, landscape.loss, landscape.inputs.float(), landscape.targets)
    assert lambda_max(single, tolerance=1e-4).value == pytest.approx(exact, rel=1e-5)


def test_bad_input_is_named():
    landscape = mlp()
    with pytest.raises(BadInputError, match=r"steps >= 1 \(0\)"):
        lambda_max(landscape, steps=0)
    with pytest.raises(BadInputError, match=r"tolerance > 0 \(0\)"):
        lambda_max(landscape, tolerance=0)
    with torch.no_grad():
        landscape.model[0].weight.fill_(float("nan"))
    with pytest.raises(BadInputError, match="the loss over 24 examples is nan"):
        lambda_max(landscape)
