"""The tests behind the verdicts: paired Student t and exact sign-flip, Holm, two one-sided tests, Theil–Sen.

A sample x (n,) holds one number a replicate, already paired: a difference, a log ratio, a slope. No function
here resamples to decide: at n = 5 to 10 the percentile bootstrap covers 84 to 89 % where it says 95 %.

Sources: Student (1908); Fisher (1935), §21, for the sign-flip test; Holm (1979); Schuirmann (1987) for two
one-sided tests; Theil (1950) and Sen (1968) for the slope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
LEVEL = 0.90  # of two-sided intervals: each end is a one-sided test at ALPHA
EXACT_TO = 16  # replicates up to which every sign pattern is counted
DRAWS = 20_000  # random sign patterns above that
SEED = 1935
ROUNDING = 1e-12  # relative size below which a difference of floats counts as zero


@dataclass(frozen=True)
class Outcome:
    """p-values of the whole rule.

    `p` speaks for the claim and is the larger of its two tests; `against` is the same rule's p-value at the
    other side, where the claim is contradicted.
    """

    p_t: float
    p_sign: float
    p: float
    against: float


def shifted(x: Floats, bound: float) -> Floats:
    """x - bound (n,), rounding noise set to zero, so that equal decimals tie exactly."""
    x = np.asarray(x, dtype=np.float64)
    d = x - bound
    scale = max(abs(bound), float(np.abs(x).max(initial=0.0)))
    d[np.abs(d) <= ROUNDING * scale] = 0.0
    return d


def t_interval(
    x: Floats, level: float = LEVEL, side: Literal["both", "lower", "upper"] = "both"
) -> tuple[float, float]:
    """Student t confidence interval of the mean of x (n,); an end that is not bounded is infinite.

    Args:
        x: one number a replicate.
        level: coverage, in (0, 1).
        side: "both" ends, or a bound from one side alone.
    """
    from scipy.special import stdtrit

    n = len(x)
    if n < 2:
        return -math.inf, math.inf
    tail = (1 - level) / 2 if side == "both" else 1 - level
    half = float(stdtrit(n - 1, 1 - tail)) * float(np.std(x, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(x))
    return (-math.inf if side == "upper" else mean - half), (math.inf if side == "lower" else mean + half)


def t_p(x: Floats, bound: float = 0.0) -> float:
    """One-sided p-value of Student's t for "the mean of x (n,) exceeds `bound`"; 1 below two replicates.

    Without spread the p-value is 0 when the common value exceeds the bound, else 1.
    """
    from scipy.special import stdtr

    d = shifted(x, bound)
    n = len(d)
    if n < 2:
        return 1.0
    mean, sd = float(d.mean()), float(d.std(ddof=1))
    if sd <= ROUNDING * abs(mean):
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(n - 1, -mean * math.sqrt(n) / sd))


def sign_flip_p(x: Floats, bound: float = 0.0) -> float:
    """One-sided p-value of the sign-flip test for "x (n,) lies above `bound`".

    Under the null hypothesis x - bound is symmetric about zero, so every pattern of signs is equally likely:
    p is the share of patterns whose sum is at least the observed one, that is, of subsets to flip whose
    sum is not positive. All 2^n are counted up to n = 16; above, 20,000 fixed random ones and the observed one.
    """
    d = shifted(x, bound)
    n = len(d)
    slack = ROUNDING * float(np.abs(d).sum())
    if n <= EXACT_TO:
        sums = np.zeros(1)
        for value in d:
            sums = np.concatenate([sums, sums + value])
        return float(np.mean(sums <= slack))
    flips = np.random.default_rng(SEED).integers(0, 2, size=(DRAWS, n)).astype(np.float64)
    return (1 + int(np.sum(flips @ d <= slack))) / (1 + DRAWS)


def greater(x: Floats, bound: float = 0.0) -> tuple[float, float]:
    """The one-sided bound test, "x (n,) lies above `bound`": p-values of Student t and of sign-flip."""
    return t_p(x, bound), sign_flip_p(x, bound)


def less(x: Floats, bound: float = 0.0) -> tuple[float, float]:
    """The same test for "x (n,) lies below `bound`"."""
    return greater(-np.asarray(x, dtype=np.float64), -bound)


def within(x: Floats, low: float = -math.inf, high: float = math.inf) -> Outcome:
    """The whole rule for "the location of x (n,) lies in (low, high)".

    One finite end is a one-sided test; two are two one-sided tests (TOST), each at the full level. `against`
    tests the outside: the smaller p-value of the finite ends, times their number (Bonferroni).

    Raises:
        ValueError: neither end is finite.
    """
    ends = [
        (end, *sides) for end, *sides in ((low, greater, less), (high, less, greater)) if math.isfinite(end)
    ]
    if not ends:
        raise ValueError("within() needs a finite end")
    inside = [test(x, end) for end, test, _ in ends]
    outside = [max(test(x, end)) for end, _, test in ends]
    p_t, p_sign = max(p for p, _ in inside), max(p for _, p in inside)
    return Outcome(p_t, p_sign, max(p_t, p_sign), min(1.0, len(ends) * min(outside)))


def tost(x: Floats, margin: float) -> Outcome:
    """Two one-sided tests for equivalence: "the location of x (n,) is nearer to zero than `margin`"."""
    return within(x, -margin, margin)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where the adjusted value is at most alpha."""
    adjusted = [0.0] * len(p)
    running = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = running
    return adjusted


def theil_sen(x: Floats, y: Floats) -> float:
    """Median of the slopes between all pairs of points with different x; x and y are (m,).

    Raises:
        ValueError: fewer than two different x.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    first, second = np.triu_indices(len(x), k=1)
    run = x[second] - x[first]
    if not np.any(run != 0):
        raise ValueError("a slope needs at least two different sizes")
    rise = y[second] - y[first]
    return float(np.median(rise[run != 0] / run[run != 0]))


def scaling_slopes(sizes: Floats, values: Floats) -> Floats:
    """Exponent of a power law a replicate: Theil–Sen slope of log values (n, m) on log sizes (m,) -> (n,).

    The replicate is the unit: the slopes are then tested like any other sample (`within`), because points of
    one replicate are not independent.

    Raises:
        ValueError: a size or a value is not positive.
    """
    sizes, values = np.asarray(sizes, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if np.any(sizes <= 0) or np.any(values <= 0):
        raise ValueError("an exponent needs positive sizes and values")
    return np.array([theil_sen(np.log(sizes), row) for row in np.log(values)])
