"""Power of the whole decision rule, for planning: Student t and sign-flip both, at a place of Holm's procedure.

Both tests are monotone in a common shift of the sample, so each simulated sample z ~ N(0, 1)^n has one critical
shift: it passes at effect d (in SD units of the paired effects) exactly when d exceeds that shift. One pass over
the simulations thus gives the power at every d.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from common.errors import BadInputError
from common.study.statistics import ALPHA, EXACT_TO, Floats

STUDIES = 2_000  # simulated studies
COUNT_TO = 12  # replicates up to which the simulation counts every sign pattern
PATTERNS = 4_095  # random sign patterns above that
POWER = 0.80
LARGEST = 10_000  # more replicates than this are no plan
SEED = 80


def level(place: int = 1, family: int = 1, alpha: float = ALPHA) -> float:
    """One-sided level that the claim at `place` (1 = smallest p) of a Holm family has to pass."""
    return alpha / (family - place + 1)


def critical_shifts(z: Floats, alpha: float) -> Floats:
    """The shift d at which each sample z (studies, n) first passes both tests of "z + d lies above 0".

    Infinite where no shift helps: fewer than two replicates, or 2^-n above alpha. Sign patterns are counted up
    to n = 12 and drawn above.
    """
    from scipy.special import stdtrit

    n = z.shape[1]
    flips, allowed = _patterns(n, alpha)
    if n < 2 or allowed < 1:
        return np.full(len(z), np.inf)
    by_t = float(stdtrit(n - 1, 1 - alpha)) * z.std(axis=1, ddof=1) / math.sqrt(n) - z.mean(axis=1)
    # A subset to flip counts against the sample while its mean plus d is at most 0; `allowed` - 1 may remain.
    means = z @ (flips / flips.sum(axis=1, keepdims=True)).T
    by_sign = -np.partition(means, allowed - 1, axis=1)[:, allowed - 1]
    return np.maximum(by_t, by_sign)


def power(n: int, effect: float, place: int = 1, family: int = 1, alpha: float = ALPHA) -> float:
    """Share of studies of n pairs that support a claim whose paired effect exceeds its margin by `effect` SD.

    Args:
        n: replicates.
        effect: (mean - margin) / standard deviation of the paired effects, normal.
        place: the claim's place in Holm's order, 1 = smallest p-value.
        family: number of primary claims.
        alpha: one-sided level of the family.
    """
    return float(np.mean(_simulated(n, level(place, family, alpha)) < effect))


def detectable(n: int, alpha: float = ALPHA) -> float:
    """The effect, in SD, that n pairs find with 80 % power at one-sided level `alpha`; infinite if none."""
    shifts = np.sort(_simulated(n, alpha))
    return float(shifts[math.ceil(POWER * len(shifts)) - 1])


def needed(n: int, effect: float, sd: float, alpha: float = ALPHA) -> int | None:
    """How many replicates in all would decide with 80 % power, were effect and spread as seen.

    Args:
        n: replicates so far, which did not decide.
        effect: distance of the mean from the bound it is tested against; its sign does not matter.
        sd: standard deviation of the paired effects.
        alpha: one-sided level of the test.

    Returns:
        At least n + 1; None when the effect is zero or 10,000 replicates would not do.
    """
    if effect == 0 or not math.isfinite(effect) or not math.isfinite(sd):
        return None
    d = abs(effect) / sd if sd > 0 else math.inf
    for total in range(n + 1, COUNT_TO + 1):
        if math.isfinite(detectable(total, alpha)) and detectable(total, alpha) <= d:
            return total
    low, high = max(n, COUNT_TO), LARGEST
    if _t_power(high, d, alpha) < POWER:
        return None
    while high - low > 1:  # above 12 pairs the t test is the one that binds
        middle = (low + high) // 2
        low, high = (low, middle) if _t_power(middle, d, alpha) >= POWER else (middle, high)
    return high


def check_family(n: int, k: int, alpha: float = ALPHA) -> None:
    """Refuse a plan in which the sign-flip test can never pass.

    Raises:
        BadInputError: its smallest p-value, 2^-n, is above alpha / k.
    """
    if k > 0 and 2.0**-n > alpha / k:
        least = math.ceil(math.log2(k / alpha))
        raise BadInputError(
            f"{n} replicates cannot support any of {k} primary claim{'s' if k > 1 else ''}: the smallest p-value of "
            f"the sign-flip test is 2^-{n} = {2.0**-n:.2g}, above {alpha:g}/{k}. Use at least {least} replicates, "
            f"or mark fewer claims as primary."
        )


@cache
def _simulated(n: int, alpha: float) -> Floats:
    z = np.random.default_rng((SEED, n)).standard_normal((STUDIES, n))
    return critical_shifts(z, alpha)


def _patterns(n: int, alpha: float) -> tuple[Floats, int]:
    """Non-empty subsets to flip (patterns, n), and how many of all, the empty one included, may count."""
    if n <= COUNT_TO:
        bits = np.unpackbits(np.arange(1, 2**n, dtype=">u2")[:, None].view(np.uint8), axis=1)[:, 16 - n :]
        return bits.astype(np.float64), math.floor(alpha * 2**n + 1e-9)
    flips = np.random.default_rng((SEED, n)).integers(0, 2, size=(PATTERNS, n)).astype(np.float64)
    flips = flips[flips.any(axis=1)]
    return flips, math.floor(alpha * (len(flips) + 1) + 1e-9)


def _t_power(n: int, d: float, alpha: float) -> float:
    from scipy.special import nctdtr, stdtrit

    if n <= EXACT_TO and 2.0**-n > alpha:
        return 0.0
    if d * math.sqrt(n) > 30:  # far in the tail, where the non-central t is one but slow to say so
        return 1.0
    return 1 - float(nctdtr(n - 1, d * math.sqrt(n), stdtrit(n - 1, 1 - alpha)))
