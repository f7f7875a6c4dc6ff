from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import brentq

from common.curvature.sharpness import m_sharpness
from common.errors import BadInputError
from tests.common.curvature.nets import conv, draws, mlp, quadratic


def closed_form(hessian, slope, rho):
    """max_{‖ε‖ <= rho} gᵀε + ½ εᵀHε: on the sphere (H not negative definite), ε = (μ − H)⁻¹ g, ‖ε‖ = rho, μ > λ_max."""
    values, vectors = torch.linalg.eigh(hessian)
    values, slope = values.numpy(), (vectors.T @ slope).numpy()

    def excess(mu):
        return math.sqrt(((slope / (mu - values)) ** 2).sum()) - rho

    top = values[-1]
    mu = brentq(excess, top + 1e-12, top + 1e3 + 10 * abs(slope).sum() / rho, xtol=1e-15)
    place = slope / (mu - values)
    return float(slope @ place + 0.5 * (values * place) @ place)


def random_quadratic(n, shift):
    a = torch.randn(n, 6, 6, generator=draws(0), dtype=torch.float64)
    hessians = 0.5 * (a + a.transpose(1, 2)) + shift * torch.eye(6, dtype=torch.float64)
    slopes = torch.randn(n, 6, generator=draws(1), dtype=torch.float64)
    return hessians, slopes, torch.randn(6, generator=draws(2), dtype=torch.float64)


@pytest.mark.parametrize("shift", [0.0, 4.0], ids=["indefinite", "convex"])
@pytest.mark.parametrize("rho", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("m", [1, 2, 6])
def test_quadratics_have_a_closed_form(shift, rho, m):
    hessians, slopes, w = random_quadratic(6, shift)
    measured = m_sharpness(quadratic(hessians, slopes, w), rho, m, steps=300)
    expected = []
    for start in range(0, 6, m):
        hessian, b = hessians[start : start + m].mean(0), slopes[start : start + m].mean(0)
        expected.append(closed_form(hessian, hessian @ w + b, rho))
    assert measured == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_twenty_steps_come_close():
    hessians, slopes, w = random_quadratic(6, 2.0)
    landscape = quadratic(hessians, slopes, w)
    assert m_sharpness(landscape, 0.5, 2) == pytest.approx(
        m_sharpness(landscape, 0.5, 2, steps=300), rel=0.01
    )


def test_at_a_stationary_point_it_is_the_largest_eigenvalue():
    hessian, _, _ = random_quadratic(1, 4.0)
    zero = torch.zeros(6, dtype=torch.float64)
    measured = m_sharpness(quadratic(hessian, zero[None], zero), 0.3, 1, steps=300)
    assert measured == pytest.approx(0.5 * 0.09 * float(torch.linalg.eigvalsh(hessian[0])[-1]), rel=1e-6)


@pytest.mark.parametrize("build", [mlp, conv])
def test_it_rises_with_rho_and_with_smaller_micro_batches(build):
    landscape = build()
    over_rho = [m_sharpness(landscape, rho, 6) for rho in (1e-3, 0.01, 0.05, 0.1, 0.3, 1.0)]
    assert over_rho == sorted(over_rho)
    assert over_rho[0] > 0
    over_m = [m_sharpness(landscape, 0.1, m) for m in (12, 6, 3, 1)]
    assert over_m == sorted(over_m)


def test_at_least_the_perturbation_of_sam_and_first_order_at_small_rho():
    landscape = mlp()
    w, rho = landscape.weights(), 0.2
    value, gradient = landscape.gradient(w)
    one_step = landscape.value(w + rho * gradient / gradient.norm()) - value
    n = len(landscape.inputs)
    assert m_sharpness(landscape, rho, n, steps=1) == pytest.approx(one_step, rel=1e-9)
    assert m_sharpness(landscape, rho, n) >= one_step
    assert m_sharpness(landscape, 1e-5, n) == pytest.approx(1e-5 * float(gradient.norm()), rel=1e-3)


def test_bad_input_is_named():
    for rho in (0.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(BadInputError, match="rho = "):
            m_sharpness(mlp(), rho, 6)
    with pytest.raises(BadInputError, match="m = 5 does not divide the 24"):
        m_sharpness(mlp(), 0.1, 5)
    with pytest.raises(BadInputError, match="steps = 0"):
        m_sharpness(mlp(), 0.1, 6, steps=0)
