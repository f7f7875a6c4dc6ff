from __future__ import annotations

import pytest
import torch

from common.curvature.alignment import gradient_cosine, perturbation_snr
from common.errors import BadInputError
from tests.common.curvature.nets import mlp, quadratic


def axes(slopes):
    """Examples whose gradients at w = 0 are the given slopes; curvature 1 and 3."""
    slopes = torch.tensor(slopes, dtype=torch.float64)
    hessians = torch.diag(torch.tensor([1.0, 3.0]).double()).expand(len(slopes), 2, 2)
    return quadratic(hessians, slopes, torch.zeros(2, dtype=torch.float64))


def test_cosine_of_a_quadratic():
    rho = 0.5
    first = torch.tensor([3.0, 4.0])
    second = first + rho * torch.tensor([1.0, 3.0]) * first / 5
    expected = float(first @ second / (first.norm() * second.norm()))
    assert gradient_cosine(axes([[3.0, 4.0]]), rho) == pytest.approx(expected, rel=1e-6)
    assert gradient_cosine(mlp(), 1e-7) == pytest.approx(1, abs=1e-10)
    assert gradient_cosine(mlp(), 1.0) < 0.99


def test_signal_to_noise_of_known_directions():
    assert perturbation_snr(axes([[2.0, 0.0], [5.0, 0.0]]), 1) == pytest.approx(1)
    assert perturbation_snr(axes([[2.0, 0.0], [0.0, 5.0]]), 1) == pytest.approx(0.5**0.5)
    assert perturbation_snr(axes([[2.0, 0.0], [-5.0, 0.0]]), 1) == pytest.approx(0)
    assert perturbation_snr(axes([[2.0, 0.0], [0.0, 0.0]]), 1) == pytest.approx(0.5)
    assert perturbation_snr(mlp(), 24) == pytest.approx(1)
    assert perturbation_snr(mlp(), 1) < perturbation_snr(mlp(), 8)


def test_bad_input_is_named():
    still = axes([[0.0, 0.0], [0.0, 0.0]])
    with pytest.raises(BadInputError, match="the gradient is zero: it has no direction"):
        gradient_cosine(still, 0.1)
    with pytest.raises(BadInputError, match="the gradient after the perturbation is zero"):
        gradient_cosine(quadratic(-torch.eye(2)[None], torch.tensor([[0.5, 0.0]]), torch.zeros(2)), 0.5)
    with pytest.raises(BadInputError, match="every micro-batch is zero"):
        perturbation_snr(still, 1)
    with pytest.raises(BadInputError, match="rho = 0"):
        gradient_cosine(mlp(), 0)
    with pytest.raises(BadInputError, match="m = 7"):
        perturbation_snr(mlp(), 7)
