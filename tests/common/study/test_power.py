"""Power of the whole rule, against a simulation that shares no code with it."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from common.errors import BadInputError
from common.study.power import check_family, critical_shifts, detectable, level, needed, power
from common.study.statistics import sign_flip_p, t_p

ROOT = Path(__file__).parents[3]


def simulated_power(n: int, effect: float, alpha: float, studies: int = 3000) -> float:
    x = np.random.default_rng(777).normal(effect, 1.0, (studies, n))
    signs = np.array(list(itertools.product([1, -1], repeat=n)))
    by_t = stats.ttest_1samp(x, 0.0, axis=1, alternative="greater").pvalue
    by_sign = np.mean(x @ signs.T >= x.sum(axis=1, keepdims=True) - 1e-12, axis=1)
    return float(np.mean((by_t <= alpha) & (by_sign <= alpha)))


@pytest.mark.parametrize(
    ("n", "effect", "family"), [(8, 1.0, 1), (8, 1.6, 5), (8, 0.0, 1), (10, 0.9, 1), (10, 1.25, 5)]
)
def test_power_against_a_simulation(n: int, effect: float, family: int) -> None:
    reference = simulated_power(n, effect, 0.05 / family)
    assert power(n, effect, 1, family) == pytest.approx(reference, abs=0.035)


def test_critical_shift_is_where_both_tests_pass() -> None:
    z = np.random.default_rng(2).standard_normal((200, 7))
    for sample, shift in zip(z, critical_shifts(z, 0.05), strict=True):
        passes = [
            max(t_p(sample + shift + step), sign_flip_p(sample + shift + step)) <= 0.05
            for step in (-1e-6, 1e-6)
        ]
        assert passes == [False, True]


def test_the_figures_that_the_design_states() -> None:
    found = [detectable(n, level(1, k)) for n in (8, 10, 12) for k in (1, 5)]
    assert found == pytest.approx([1.0, 1.6, 0.9, 1.25, 0.8, 1.1], abs=0.06)


def test_power_above_the_enumeration_follows_the_t_test() -> None:
    exact = 1 - stats.nct.cdf(stats.t.ppf(0.95, 19), 19, 0.6 * np.sqrt(20))
    assert power(20, 0.6) == pytest.approx(exact, abs=0.03)


def test_level_of_a_place() -> None:
    assert [level(place, 5) for place in (1, 5)] == [0.01, 0.05]


def test_needed_replicates() -> None:
    assert needed(8, 0.8, 1.0, 0.05) == 12
    assert needed(8, -0.8, 1.0, 0.05) == 12
    assert needed(8, 40.0, 1.0, 0.05) == 9
    assert needed(4, 1.0, 0.0, 0.05) == 5
    total = needed(8, 0.3, 1.0, 0.05)
    assert total is not None
    reference = [
        1 - stats.nct.cdf(stats.t.ppf(0.95, n - 1), n - 1, 0.3 * np.sqrt(n)) for n in (total - 1, total)
    ]
    assert reference[0] < 0.8 <= reference[1]
    assert needed(8, 0.0, 1.0, 0.05) is None
    assert needed(8, 0.01, 1.0, 0.05) is None


def test_a_family_that_cannot_be_supported_is_refused() -> None:
    check_family(8, 5)
    check_family(1, 0)
    with pytest.raises(BadInputError, match="at least 7 replicates"):
        check_family(6, 5)
    assert detectable(6, 0.01) == np.inf
    assert power(6, 99.0, 1, 5) == 0.0
    assert detectable(7, 0.01) < np.inf


def test_planning_is_fast_and_imports_no_heavy_package() -> None:
    code = (
        "import sys; from common.study.power import detectable; from common.study import verdict; "
        "detectable(8, 0.05); detectable(8, 0.01); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'scipy.stats', 'matplotlib')))"
    )
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
    print(f"measured: planning in a fresh process: {time.monotonic() - started:.2f} s")
