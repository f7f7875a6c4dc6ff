"""Full-batch SAM, written by hand, settles lambda_max at the edge that the formula names."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import nn
from torch.nn.utils import vector_to_parameters

from common.curvature.edge import sam_edge, stability_limit
from common.curvature.lanczos import lambda_max
from common.curvature.landscape import Landscape
from tests.common.curvature.nets import draws

WARM, STEPS, EVERY = 900, 1500, 67  # odd: at the edge the iterate alternates


def random_labels() -> Landscape:
    """A tanh network of width 20 that has to memorise signs, so that its sharpness rises until something stops it."""
    generator = draws(0)
    model = nn.Sequential(
        *(nn.Linear(5, 20), nn.Tanh()), *(nn.Linear(20, 20), nn.Tanh()), nn.Linear(20, 1)
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64) / p.shape[-1] ** 0.5
            p.copy_(drawn if p.dim() == 2 else torch.zeros_like(p))
    x = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(64, 1, generator=generator, dtype=torch.float64).sign()
    return Landscape(model, nn.functional.mse_loss, x, y)


@pytest.mark.parametrize(
    ("rho", "base"),
    [
        (0.02, (0.08, 0.0, False)),
        (0.1, (0.08, 0.0, False)),
        (0.05, (0.04, 0.9, False)),
        (0.05, (0.04, 0.9, True)),
    ],
    ids=["gd, rho .02", "gd, rho .1", "heavy ball, rho .05", "nesterov, rho .05"],
)
def test_lambda_max_tracks_the_sam_edge(rho, base, request):
    landscape, (lr, beta, nesterov), limit = random_labels(), base, stability_limit(*base)
    w = landscape.weights()
    buffer, ratios, tops = torch.zeros_like(w), [], []
    for step in range(STEPS):
        first = landscape.gradient(w)[1]
        length = float(first.norm())
        if step >= WARM and step % EVERY == 0:
            vector_to_parameters(w, landscape.model.parameters())
            tops.append(lambda_max(landscape, tolerance=1e-4).value)
            ratios.append(tops[-1] / sam_edge(length, rho, limit))
        second = landscape.gradient(w + rho * first / length)[1]
        buffer = beta * buffer + second
        w = w - lr * (second + beta * buffer if nesterov else buffer)
    print(
        f"measured: lambda_max / SAM edge, {request.node.callspec.id}: {min(ratios):.3f} to {max(ratios):.3f}"
    )
    assert 0.95 < statistics.median(ratios) < 1.05
    assert min(ratios) > 0.9 and max(ratios) < 1.1
    assert max(tops) < 0.75 * limit  # far from where the base optimiser alone would settle
