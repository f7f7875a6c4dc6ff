"""Every estimator against an independent reference: scipy, enumeration, simulation, a worked example."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.study.statistics import (
    greater,
    holm,
    less,
    scaling_slopes,
    sign_flip_p,
    t_interval,
    t_p,
    theil_sen,
    tost,
    within,
)

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True, database=None)
eighths = st.integers(-40, 40).map(lambda i: i / 8)  # exact in binary, so that sums tie as in arithmetic


def samples(seed: int, n: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, n)


def draw(kind: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, float]:
    """Studies (4000, n) of paired differences, and their true mean."""
    if kind == "exponential":
        return rng.exponential(size=(4000, n)), 1.0
    x = rng.standard_normal((4000, n))
    if kind == "diverged":
        return np.where(rng.random(x.shape) < 0.1, -5.0, x), -0.5
    return x, 0.0


@pytest.mark.parametrize("n", [5, 8, 10, 20])
@pytest.mark.parametrize("kind", ["normal", "exponential", "diverged"])
def test_coverage_of_the_t_interval(kind: str, n: int) -> None:
    studies, mean = draw(kind, np.random.default_rng(n), n)
    intervals = np.array([t_interval(x, 0.95) for x in studies])
    coverage = float(np.mean((intervals[:, 0] <= mean) & (mean <= intervals[:, 1])))
    print(f"measured: coverage of the 95 % t interval, {kind} differences, n = {n}: {coverage:.3f}")
    if kind == "normal":
        assert 0.94 <= coverage <= 0.96
    else:
        assert 0.80 <= coverage <= 0.95


@pytest.mark.parametrize("n", [2, 5, 8, 30])
def test_t_against_scipy(n: int) -> None:
    x = samples(n, n, 0.4)
    reference = stats.ttest_1samp(x, 0.1, alternative="greater")
    assert t_p(x, 0.1) == pytest.approx(reference.pvalue, rel=1e-9)
    assert less(x, 0.1)[0] == pytest.approx(1 - reference.pvalue, rel=1e-9)
    both = stats.ttest_1samp(x, 0.0).confidence_interval(0.9)
    assert t_interval(x) == pytest.approx((both.low, both.high))
    assert t_interval(x, 0.95, "lower") == pytest.approx((both.low, np.inf))
    assert t_interval(x, 0.95, "upper") == pytest.approx((-np.inf, both.high))


def test_interval_and_test_agree_at_the_bound() -> None:
    x = samples(3, 8, 1.0)
    low, high = t_interval(x)
    assert t_p(x, low) == pytest.approx(0.05)
    assert less(x, high)[0] == pytest.approx(0.05)


def test_without_spread_or_replicates() -> None:
    assert t_p(np.full(5, 0.3)) == 0.0
    assert t_p(np.zeros(5)) == t_p(np.full(5, -0.3)) == 1.0
    # 0.1 + 0.2 exceeds 0.3 by a rounding error: no evidence.
    assert greater(np.full(8, 0.1 + 0.2), 0.3) == (1.0, 1.0)
    assert t_p(np.array([3.0])) == 1.0
    assert t_interval(np.array([3.0])) == (-np.inf, np.inf)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_sign_flip_against_enumeration(n: int) -> None:
    x = np.round(samples(n, n, 0.3), 1)
    signs = np.array(list(itertools.product([1, -1], repeat=n)))
    assert sign_flip_p(x) == np.mean(signs @ x >= x.sum() - 1e-9)
    assert sign_flip_p(np.abs(x) + 0.1) == 2.0**-n


def test_sign_flip_against_scipy() -> None:
    x = samples(1, 10, 0.3)
    reference = stats.permutation_test(
        (x,),
        lambda v, axis: np.mean(v, axis=axis),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_p(x) == pytest.approx(reference.pvalue, abs=1e-12)


def test_drawn_sign_flip_is_near_the_enumeration_and_repeats() -> None:
    x = samples(9, 17, 0.4)
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums, sums + 2 * value])
    exact = np.mean(sums <= 1e-12)
    assert sign_flip_p(x) == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))
    assert sign_flip_p(x) == sign_flip_p(x.copy())
    assert sign_flip_p(np.full(20, 1.0)) == 1 / 20_001


@PROPERTY
@given(st.lists(eighths, min_size=1, max_size=19), st.data())
def test_sign_flip_p_never_falls_when_one_pair_gets_worse(values: list[float], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(values) - 1))
    worse = list(values)
    worse[index] -= data.draw(st.integers(0, 80)) / 8
    assert sign_flip_p(np.array(worse)) >= sign_flip_p(np.array(values))


def test_sign_flip_holds_its_level_for_symmetric_differences() -> None:
    heavy = np.random.default_rng(0).standard_t(2, size=(3000, 8))
    # 12 of 256 patterns is the largest share below 0.05; three standard errors of 3000 studies.
    assert np.mean([sign_flip_p(x) <= 0.05 for x in heavy]) == pytest.approx(12 / 256, abs=0.012)


def test_holm_by_hand() -> None:
    # Sorted 0.005 0.01 0.03 0.04 times 4 3 2 1 = 0.02 0.03 0.06 0.04; the last is raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("mean", [0.0, 0.8, 1.6])
def test_tost_against_scipy(mean: float) -> None:
    x = samples(4, 10, mean)
    lower = stats.ttest_1samp(x, -1.2, alternative="greater").pvalue
    upper = stats.ttest_1samp(x, 1.2, alternative="less").pvalue
    outcome = tost(x, 1.2)
    assert outcome.p_t == pytest.approx(max(lower, upper))
    assert outcome.p_sign == max(sign_flip_p(x, -1.2), sign_flip_p(-x, -1.2))
    assert outcome.p == max(outcome.p_t, outcome.p_sign)
    below, above = max(less(x, -1.2)), max(greater(x, 1.2))
    assert outcome.against == pytest.approx(min(1.0, 2 * min(below, above)))


def test_within_needs_an_end() -> None:
    assert within(np.ones(8), low=0.0).against == 1.0
    assert within(-np.ones(8), low=0.0).against == 2.0**-8
    with pytest.raises(ValueError, match="finite end"):
        within(np.ones(8))


def test_theil_sen_against_scipy() -> None:
    rng = np.random.default_rng(5)
    x = np.repeat([1.0, 2.0, 4.0, 8.0, 16.0], 2)
    y = 3 * x + rng.normal(size=x.size)
    y[3] += 100
    assert theil_sen(x, y) == pytest.approx(stats.theilslopes(y, x).slope, rel=1e-12)
    with pytest.raises(ValueError, match="two different sizes"):
        theil_sen(np.ones(3), np.arange(3.0))


def test_scaling_slopes_recover_an_exponent_in_spite_of_an_outlier() -> None:
    sizes = np.array([16.0, 32, 64, 128, 256])
    values = np.outer(np.arange(1.0, 9), sizes**1.5)
    values[0, 2] *= 50
    slopes = scaling_slopes(sizes, values)
    assert slopes[1:] == pytest.approx(np.full(7, 1.5))
    assert slopes[0] == pytest.approx(1.5, abs=0.05)
    assert within(slopes, 1.4, 1.6).p <= 0.05
    with pytest.raises(ValueError, match="positive"):
        scaling_slopes(sizes, values - 1e9)
