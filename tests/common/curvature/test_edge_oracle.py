"""Full-batch SAM, written by hand and that of common.optim, settles lambda_max at the edge that the formula names."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import vector_to_parameters

from common.curvature.edge import sam_edge, stability_limit
from common.curvature.lanczos import lambda_max
from common.curvature.landscape import Landscape
from common.optim.rules import SAM
from common.optim.settings import Settings
from common.optim.sharpness import SharpnessAware
from tests.common.curvature.nets import draws

WARM, STEPS, EVERY = 900, 1500, 67  # odd: at the edge the iterate alternates
Base = tuple[float, float, bool]  # learning rate, momentum, whether Nesterov's
Step = Callable[[], float]  # moves the model's weights; ||g|| where they were


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


def by_hand(landscape: Landscape, rho: float, base: Base) -> Step:
    lr, beta, nesterov = base
    w = landscape.weights()
    buffer = torch.zeros_like(w)

    def step() -> float:
        nonlocal w, buffer
        first = landscape.gradient(w)[1]
        length = float(first.norm())
        second = landscape.gradient(w + rho * first / length)[1]
        buffer = beta * buffer + second
        w = w - lr * (second + beta * buffer if nesterov else buffer)
        vector_to_parameters(w, landscape.model.parameters())
        return length

    return step


def by_the_optimiser(landscape: Landscape, rho: float, base: Base) -> Step:
    """The full batch in one perturbation batch, so that g is what the formula's is."""
    lr, beta, nesterov = base
    model, batch = landscape.model, (landscape.inputs, landscape.targets)
    sgd = torch.optim.SGD(model.parameters(), lr, momentum=beta, nesterov=nesterov)
    optimizer = SharpnessAware(sgd, Settings(SAM(), m=len(batch[0]), rho=rho), module=model)
    return lambda: optimizer.step(lambda part: landscape.loss(model(part[0]), part[1]), batch).norm


@pytest.mark.parametrize(
    ("way", "rho", "base"),
    [
        (by_hand, 0.02, (0.08, 0.0, False)),
        (by_hand, 0.1, (0.08, 0.0, False)),
        (by_hand, 0.05, (0.04, 0.9, False)),
        (by_hand, 0.05, (0.04, 0.9, True)),
        (by_the_optimiser, 0.1, (0.08, 0.0, False)),
        (by_the_optimiser, 0.05, (0.04, 0.9, False)),
    ],
    ids=[
        *("gd, rho .02", "gd, rho .1", "heavy ball, rho .05", "nesterov, rho .05"),
        *("SharpnessAware, gd, rho .1", "SharpnessAware, heavy ball, rho .05"),
    ],
)
def test_lambda_max_tracks_the_sam_edge(way, rho, base, request):
    landscape, limit = random_labels(), stability_limit(*base)
    step, ratios, tops = way(landscape, rho, base), [], []
    for number in range(STEPS):
        due = number >= WARM and number % EVERY == 0
        if due:
            tops.append(lambda_max(landscape, tolerance=1e-4).value)
        length = step()
        if due:
            ratios.append(tops[-1] / sam_edge(length, rho, limit))
    print(
        f"measured: lambda_max / SAM edge, {request.node.callspec.id}: {min(ratios):.3f} to {max(ratios):.3f}"
    )
    assert 0.95 < statistics.median(ratios) < 1.05
    assert min(ratios) > 0.9 and max(ratios) < 1.1
    assert max(tops) < 0.75 * limit  # far from where the base optimiser alone would settle
