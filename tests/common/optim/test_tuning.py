from __future__ import annotations

import math

import numpy as np
import pytest

from common.errors import BadInputError
from common.optim.tuning import FEWEST, GRID, TunedRho, lowest, tune_rho


def tune(best: float, noise: float = 0.0, budget: int = 7 * 5 * 10, first_seed: int = 0) -> TunedRho:
    def loss(rho: float, seed: int) -> float:
        shift = noise * np.random.default_rng(seed).normal()
        return 1.0 + (math.log(rho / best) - shift) ** 2 + np.random.default_rng(seed).normal()

    return tune_rho(loss, batch=64, m=16, budget=budget, steps=10, worst=50.0, first_seed=first_seed)


def test_a_parabola_in_log_rho_is_found_exactly() -> None:
    for best in (0.09, 0.15, 0.33, 0.5):
        found = tune(best)
        assert found.rho == pytest.approx(best)
        assert (found.low, found.high) == (pytest.approx(best), pytest.approx(best))
        assert (found.batch, found.m, found.steps) == (64, 16, 5 * 6 * 10)
        assert set(found.losses) == set(GRID)


@pytest.mark.parametrize(("best", "side"), [(0.028, "low"), (1.6, "high")])
def test_the_grid_is_extended_once(best: float, side: str) -> None:
    found = tune(best)
    assert len(found.losses) == len(GRID) + 1
    assert found.steps == 7 * 5 * 10
    assert (min if side == "low" else max)(found.losses) not in GRID


@pytest.mark.parametrize(("best", "open_end"), [(1e-4, ("low", 0.0)), (1e3, ("high", math.inf))])
def test_beyond_the_grid_the_interval_is_open(best: float, open_end: tuple[str, float]) -> None:
    assert getattr(tune(best), open_end[0]) == open_end[1]


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    hits = [
        found.low <= 0.2 <= found.high for found in (tune(0.2, 0.15, first_seed=100 * i) for i in range(200))
    ]
    covered = sum(hits) / len(hits)
    print(
        f"measured: the 95 % interval of tune_rho covered the best rho in {covered:.0%} of 200 studies (5 seeds)"
    )
    assert 0.9 <= covered <= 0.99


def test_a_run_that_diverged_takes_the_worst_loss() -> None:
    def loss(rho: float, seed: int) -> float:
        return math.nan if rho > 0.5 else (math.log(rho / 0.2)) ** 2

    found = tune_rho(loss, batch=8, m=8, budget=210, steps=10, worst=3.0)
    assert found.losses[0.6] == (3.0,) * 3
    assert found.rho == pytest.approx(0.2, rel=0.01)


def test_lowest_of_a_flat_curve_is_on_it() -> None:
    x = np.log([0.1, 0.2, 0.4])
    assert lowest(x, np.ones(3)) == x[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": 24}, "m = 24 must divide B = 64"),
        ({"budget": 100}, f"gives 1 seeds; {FEWEST} need 210"),
        ({"grid": (0.1, 0.0, 0.2)}, "rho must be > 0"),
        ({"grid": (0.1, 0.2)}, "three values"),
        ({"worst": math.nan}, "finite worst"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    options: dict[str, object] = {"batch": 64, "m": 16, "budget": 1000, "steps": 10, "worst": 1.0}
    with pytest.raises(BadInputError, match=message):
        tune_rho(lambda rho, seed: rho, **(options | change))  # type: ignore[arg-type]
