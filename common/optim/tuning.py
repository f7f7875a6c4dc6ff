"""The best rho for a batch and a perturbation batch, with an interval.

Method: every rho of the grid with every seed (the same seeds: pairs). If the best mean lies at an end of the grid, one
rho is added there. rho* is the lowest point of the parabola through the best mean and its two neighbours, in log rho.
The interval is Student's over the jackknife's pseudo-values of log rho* (one seed left out at a time, the best looked
for anew). If the best still lies at an end, the interval is open there (0 or infinity).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from common.errors import BadInputError
from common.optim.batches import check_divides
from common.optim.schedules import positive

GRID = (0.05, 0.1, 0.2, 0.3, 0.6, 1.0)
FEWEST = 3  # seeds


@dataclass(frozen=True)
class TunedRho:
    """The result of ``tune_rho``.

    Attributes:
        rho: rho*.
        low: lower end of the interval; 0 when the best rho lies at the grid's lower end.
        high: upper end; infinity when it lies at the upper end.
        batch: B.
        m: the perturbation batch.
        losses: rho -> the validation loss of each seed.
        steps: steps that were spent.
    """

    rho: float
    low: float
    high: float
    batch: int
    m: int
    losses: dict[float, tuple[float, ...]]
    steps: int


def tune_rho(
    evaluate: Callable[[float, int], float],
    *,
    batch: int,
    m: int,
    budget: int,
    steps: int,
    worst: float,
    grid: Sequence[float] = GRID,
    first_seed: int = 0,
    level: float = 0.95,
) -> TunedRho:
    """Find the rho with the lowest validation loss.

    Args:
        evaluate: (rho, seed) -> validation loss after a training of `steps` steps.
        batch: B, for which `evaluate` trains.
        m: its perturbation batch.
        budget: steps for everything.
        steps: steps of one training.
        worst: the loss that counts for a training that diverged or ended above it, such as chance's.
        grid: at least three values of rho.
        first_seed: seeds are `first_seed`, `first_seed` + 1, …, as many as the budget allows.
        level: of the interval.

    Raises:
        BadInputError: m does not divide B, a bad grid, or a budget for fewer than three seeds.
    """
    check_divides("m", m, "B", batch)
    rhos = sorted({positive("rho", rho) for rho in grid})
    if len(rhos) < 3 or steps < 1 or not math.isfinite(worst):
        raise BadInputError(
            "tune_rho needs at least three values of rho, steps >= 1 and a finite worst loss."
        )
    seeds = budget // (steps * (len(rhos) + 1))  # one more rho is kept for an end of the grid
    if seeds < FEWEST:
        needed = FEWEST * steps * (len(rhos) + 1)
        raise BadInputError(f"a budget of {budget} steps gives {seeds} seeds; {FEWEST} need {needed}.")

    def curve(rho: float) -> list[float]:
        losses = [evaluate(rho, first_seed + i) for i in range(seeds)]
        return [min(loss, worst) if math.isfinite(loss) else worst for loss in losses]

    table = {rho: curve(rho) for rho in rhos}
    best = int(np.argmin(np.mean([table[rho] for rho in rhos], axis=1)))
    if best in (0, len(rhos) - 1):
        extra = rhos[0] ** 2 / rhos[1] if best == 0 else rhos[-1] ** 2 / rhos[-2]
        table[extra] = curve(extra)
    rhos = sorted(table)
    losses = np.array([table[rho] for rho in rhos])
    centre, low, high = _interval(np.log(rhos), losses, level)
    spent = losses.size * steps
    return TunedRho(centre, low, high, batch, m, {rho: tuple(table[rho]) for rho in rhos}, spent)


def lowest(x: Float[ndarray, " k"], y: Float[ndarray, " k"]) -> float:
    """Where the parabola through the lowest y and its neighbours is lowest; x itself at an end."""
    i = int(np.argmin(y))
    if i in (0, len(x) - 1):
        return float(x[i])
    left, right = x[i] - x[i - 1], x[i + 1] - x[i]
    up_left, up_right = y[i - 1] - y[i], y[i + 1] - y[i]
    below = left * up_right + right * up_left
    shift = 0.5 * (right**2 * up_left - left**2 * up_right) / below if below > 0 else 0.0
    return float(x[i] + shift)


def _interval(
    x: Float[ndarray, " k"], losses: Float[ndarray, "k seeds"], level: float
) -> tuple[float, float, float]:
    from scipy.special import stdtrit

    n = losses.shape[1]
    mean = losses.mean(1)
    whole = lowest(x, mean)
    without = [lowest(x, np.delete(losses, i, axis=1).mean(1)) for i in range(n)]
    pseudo = n * whole - (n - 1) * np.array(without)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * float(pseudo.std(ddof=1)) / math.sqrt(n)
    best = int(np.argmin(mean))
    low = 0.0 if best == 0 else math.exp(whole - half)
    high = math.inf if best == len(x) - 1 else math.exp(whole + half)
    return math.exp(whole), low, high
