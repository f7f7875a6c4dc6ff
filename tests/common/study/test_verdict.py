"""The verdict machine: each rule by example, its laws by property tests, its error rate by simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInputError
from common.study.model import Arm, Best, Claim, Metric, Mix, Scaled
from common.study.verdict import Finding, family, judge

PROPERTY = settings(max_examples=100, deadline=None, derandomize=True, database=None)
RETURN = Metric("return", "points", "higher", worst=-100.0)
NAMES = ("ours", "rival", "sabotaged", "third")
OURS, RIVAL, SABOTAGED, THIRD = (Arm(name, "evaluate", {"method": name}) for name in NAMES)
SUPERIOR = Claim("c", "ours is better", "p. 1", "superior", RETURN, OURS, RIVAL, SABOTAGED)
KINDS = {
    "superior": SUPERIOR,
    "noninferior": replace(SUPERIOR, kind="noninferior", margin=1.0),
    "equivalent": replace(SUPERIOR, kind="equivalent", margin=1.0),
    "bound": replace(SUPERIOR, kind="bound", baseline=None, margin=1.0),
    "identity": replace(SUPERIOR, kind="identity", margin=0.0),
    "ordering": replace(SUPERIOR, kind="ordering", baseline=None, control=None, order=(OURS, RIVAL, THIRD)),
}
RANK = {"contradicted": 0, "inconclusive": 1, "vacuous": 1, "supported": 2}
NOISE = np.array([0.3, -0.2, 0.1, 0.4, -0.3, 0.2, -0.1, 0.05])
eighths = st.integers(-24, 24).map(lambda i: i / 8)


def table(**arms: Sequence[float] | np.ndarray) -> list[dict[str, Any]]:
    """Rows of arms with one value a seed; NaN is a diverged run."""
    return [
        {
            "stage": "evaluate",
            "role": "study",
            "method": name,
            "seed": seed,
            "return": value,
            "status": "diverged" if math.isnan(value) else "done",
        }
        for name, values in arms.items()
        for seed, value in enumerate(values)
    ]


def worst(row: Any, metric: Metric) -> float:
    return 200.0 if isinstance(metric.worst, Scaled) else metric.worst


def judged(claim: Claim, rows: list[dict[str, Any]], scale: str = "laptop") -> Finding:
    (finding,) = judge([claim], rows, scale, worst)
    return finding


@pytest.mark.parametrize(
    ("kind", "ours", "sabotaged", "verdict"),
    [
        ("superior", 2.0, 1.0, "supported"),
        ("superior", 2.0, 2.0, "vacuous"),
        ("superior", 0.1, 5.0, "inconclusive"),
        ("superior", -2.0, -9.0, "contradicted"),
        ("noninferior", -0.2, -3.0, "supported"),
        ("noninferior", 2.0, -0.9, "vacuous"),
        ("noninferior", -1.1, -3.0, "inconclusive"),
        ("noninferior", -3.0, 0.0, "contradicted"),
        ("equivalent", 0.1, 3.0, "supported"),
        ("equivalent", 0.1, -3.0, "supported"),
        ("equivalent", 0.1, 0.1, "vacuous"),
        ("equivalent", 0.9, 3.0, "inconclusive"),
        ("equivalent", 3.0, 3.0, "contradicted"),
        ("equivalent", -3.0, 3.0, "contradicted"),
        ("bound", 2.0, 0.0, "supported"),
        ("bound", 2.0, 2.0, "vacuous"),
        ("bound", 1.1, 0.0, "inconclusive"),
        ("bound", 0.0, 0.0, "contradicted"),
        ("ordering", 4.0, 0.0, "supported"),
        ("ordering", 0.1, 0.0, "inconclusive"),
        ("ordering", -2.0, 0.0, "contradicted"),
    ],
)
def test_the_verdict_of_each_kind(kind: str, ours: float, sabotaged: float, verdict: str) -> None:
    rival = np.zeros(8)
    rows = table(
        ours=ours + NOISE, rival=rival, sabotaged=sabotaged + NOISE[::-1], third=rival - 3 + NOISE[::-1]
    )
    finding = judged(KINDS[kind], rows)
    assert (finding.verdict, finding.n) == (verdict, 8), finding.reason
    assert finding.effect == pytest.approx(float(np.mean(ours + NOISE)))
    assert finding.p == max(finding.p_t or 0.0, finding.p_sign or 0.0)
    assert (finding.needed is not None and finding.needed > 8) == (verdict == "inconclusive")


def test_an_exponent_and_its_control() -> None:
    claim = replace(KINDS["bound"], kind="exponent", axis="size", target=1.0, margin=0.1)

    def rows(ours: float, sabotaged: float) -> list[dict[str, Any]]:
        return [
            {
                "stage": "evaluate",
                "role": "study",
                "status": "done",
                "method": name,
                "seed": seed,
                "size": size,
                "return": size ** (slope + NOISE[seed] / 10),
            }
            for name, slope in (("ours", ours), ("sabotaged", sabotaged))
            for seed in range(8)
            for size in (8, 64, 512)
        ]

    found = judged(claim, rows(1.0, 2.0))
    assert found.verdict == "supported"
    assert found.values["ours"]["3"] == pytest.approx(1.04)
    assert judged(claim, rows(1.0, 1.0)).verdict == "vacuous"
    assert judged(claim, rows(1.5, 2.0)).verdict == "contradicted"
    assert judged(claim, rows(1.09, 2.0)).verdict == "inconclusive"


def test_exact_numbers_are_compared_without_a_test() -> None:
    identity = KINDS["identity"]
    same, off = np.arange(8.0), np.arange(8.0) + 1e-9
    assert judged(identity, table(ours=same, rival=same, sabotaged=off)).verdict == "supported"
    assert judged(identity, table(ours=same, rival=same, sabotaged=same)).verdict == "vacuous"
    found = judged(identity, table(ours=off, rival=same, sabotaged=off))
    assert (found.verdict, found.p, found.p_holm, found.ci) == ("contradicted", None, None, None)
    bound = replace(KINDS["bound"], pairing="")
    assert judged(bound, table(ours=[2.0], sabotaged=[0.0])).verdict == "supported"
    assert judged(bound, table(ours=[0.5], sabotaged=[0.0])).verdict == "contradicted"
    assert judged(bound, table(ours=[2.0], sabotaged=[2.0])).verdict == "vacuous"
    assert family([identity, bound], "laptop") == []


def test_a_bound_from_above() -> None:
    claim = replace(KINDS["bound"], metric=replace(RETURN, better="lower"))
    assert judged(claim, table(ours=NOISE, sabotaged=NOISE + 3)).verdict == "supported"
    assert judged(claim, table(ours=NOISE + 3, sabotaged=NOISE + 3)).verdict == "contradicted"


def test_log_ratios_and_their_orientation() -> None:
    claim = replace(
        SUPERIOR, metric=replace(RETURN, better="lower"), effect="log_ratio", margin=math.log(1.5)
    )
    slow = 100 * np.exp(NOISE)
    rows = table(ours=np.full(8, 20.0), rival=slow, sabotaged=slow)
    found = judged(claim, rows)
    assert found.verdict == "supported"
    assert found.effect == pytest.approx(math.log(5) + NOISE.mean())
    assert judged(claim, table(ours=np.zeros(8), rival=slow, sabotaged=slow)).verdict == "invalid"


def test_the_control_of_an_ordering_must_be_beaten_by_the_first() -> None:
    claim = replace(KINDS["ordering"], control=SABOTAGED)
    arms = {"ours": 4 + NOISE, "rival": np.zeros(8), "third": -2 + NOISE}
    found = judged(claim, table(**arms, sabotaged=np.ones(8)))
    assert (found.verdict, found.control_passed, len(found.parts)) == ("supported", True, 2)
    assert judged(claim, table(**arms, sabotaged=4 + NOISE[::-1])).verdict == "vacuous"


def test_an_ordering_is_contradicted_by_one_reversed_pair_after_bonferroni() -> None:
    reversed_pair = {"rival": np.zeros(8), "third": 0.75 + 5 * NOISE}  # against: p between 0.025 and 0.05
    assert judged(
        SUPERIOR, table(ours=np.zeros(8), rival=reversed_pair["third"], sabotaged=np.zeros(8))
    ).verdict == ("contradicted")
    assert judged(KINDS["ordering"], table(ours=np.full(8, 5.0), **reversed_pair)).verdict == "inconclusive"
    reversed_pair["third"] += 2
    found = judged(KINDS["ordering"], table(ours=np.full(8, 5.0), **reversed_pair))
    assert (found.verdict, found.parts[1].label) == ("contradicted", "rival against third")


def test_smoke_and_foreign_scales_are_not_assessed() -> None:
    rows = table(ours=2 + NOISE, rival=np.zeros(8), sabotaged=np.zeros(8))
    everywhere = replace(SUPERIOR, scales=("smoke", "laptop"))
    found = judged(everywhere, rows, "smoke")
    assert (found.verdict, found.p_holm, found.effect) == ("not assessed", None, pytest.approx(2.05625))
    assert judged(SUPERIOR, rows[:1], "smoke").verdict == "not assessed"
    assert judged(replace(SUPERIOR, scales=("paper",)), rows).verdict == "not assessed"
    assert judged(SUPERIOR, rows, "laptop+0a1b2c3d").verdict == "supported"


def test_a_machine_that_lacks_what_the_claim_requires_does_not_assess_it() -> None:
    claim = replace(SUPERIOR, primary=False, requires="available")
    rows = table(ours=NOISE + 3, rival=NOISE, sabotaged=NOISE)
    lacking = [row | ({"available": 0} if row["method"] == "ours" else {}) for row in rows]
    for row in lacking:
        if row["method"] == "ours":
            del row["return"]
    assert judged(claim, lacking).verdict == "not assessed"
    assert "cannot run ours" in judged(claim, lacking).reason
    assert judged(claim, [row | {"available": 1} for row in rows]).verdict == "supported"
    assert judged(replace(claim, requires=""), lacking).verdict == "invalid"
    with pytest.raises(BadInputError, match="may not be primary"):
        judged(replace(claim, primary=True), rows)


@pytest.mark.parametrize(
    ("arm", "diverged", "verdict"),
    [
        ("ours", 5, "inconclusive"),
        ("rival", 5, "inconclusive"),
        ("sabotaged", 5, "inconclusive"),
        ("rival", 4, "supported"),
        ("ours", 4, "inconclusive"),
    ],
)
def test_more_than_half_of_an_arm_diverged(arm: str, diverged: int, verdict: str) -> None:
    arms = {"ours": 2 + NOISE, "rival": np.zeros(8), "sabotaged": NOISE[::-1]}
    arms[arm] = np.where(np.arange(8) < diverged, np.nan, arms[arm])
    found = judged(SUPERIOR, table(**arms))
    assert found.verdict == verdict
    assert found.diverged == {"ours": 0, "rival": 0, "sabotaged": 0} | {arm: diverged}
    assert found.values[arm]["0"] == -100.0
    assert ("More than half" in found.reason) == (diverged == 5)


def test_runs_that_never_arrive_count_in_method_and_baseline_and_not_in_the_control() -> None:
    claim = replace(SUPERIOR, metric=Metric("return", "steps", "lower", Scaled("steps", 2.0)))
    late, quick = np.full(8, 200.0), 20 + NOISE
    assert judged(claim, table(ours=quick, rival=50 + NOISE, sabotaged=late)).verdict == "supported"
    found = judged(claim, table(ours=quick, rival=late, sabotaged=late))
    assert (found.verdict, found.diverged["rival"]) == ("inconclusive", 8)


def test_missing_failed_and_unreadable_runs_are_invalid() -> None:
    rows = table(ours=2 + NOISE, rival=np.zeros(8), sabotaged=np.zeros(8))
    assert "without a partner: 0" in judged(SUPERIOR, rows[1:]).reason
    for index, change in ((0, {"status": "missing"}), (9, {"status": "failed"}), (20, {"return": math.nan})):
        broken = [row | change if place == index else row for place, row in enumerate(rows)]
        found = judged(SUPERIOR, broken)
        assert (found.verdict, found.effect) == ("invalid", None)
    best = replace(SUPERIOR, baseline=Best("best", (RIVAL, SABOTAGED), "return"))
    assert "no validation rows" in judged(best, rows).reason


def test_holm_over_the_primary_claims_that_the_scale_assesses() -> None:
    rows = table(ours=0.75 + 5 * NOISE, rival=np.zeros(8), sabotaged=np.full(8, -9.0))
    alone = judged(SUPERIOR, rows)
    assert alone.verdict == "supported"
    assert 0.025 < (alone.p or 0) <= 0.05
    others = [
        replace(SUPERIOR, id="d"),
        replace(SUPERIOR, id="e", primary=False),
        replace(SUPERIOR, id="f", scales=("paper",)),
        replace(KINDS["identity"], id="g"),
    ]
    found = judge([SUPERIOR, *others], rows, "laptop", worst)
    assert [each.id for each in family([SUPERIOR, *others], "laptop")] == ["c", "d"]
    assert found[0].p_holm == found[1].p_holm == pytest.approx(2 * (alone.p or 0))
    assert [each.verdict for each in found[:4]] == [
        "inconclusive",
        "inconclusive",
        "supported",
        "not assessed",
    ]
    # A member without evidence keeps its place.
    absent = replace(SUPERIOR, id="d", baseline=THIRD)
    assert judge([SUPERIOR, absent], rows, "laptop", worst)[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": None}, "needs a baseline"),
        ({"control": None}, "needs a negative control"),
        ({"margin": -1.0}, "not negative"),
        ({"pairing": ""}, "needs replicates"),
        ({"kind": "equivalent"}, "margin above zero"),
        ({"kind": "ordering"}, "needs `order`"),
        ({"kind": "exponent", "margin": 0.1}, "needs `axis`"),
        ({"kind": "bound", "effect": "log_ratio"}, "not log ratios"),
        ({"control": replace(SABOTAGED, label="ours")}, "needs a label"),
        ({"control": Mix("mix", ((1.0, replace(THIRD, label="ours")),))}, "needs a label"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        judged(replace(SUPERIOR, **change), [])


def test_two_claims_of_one_id_are_refused() -> None:
    with pytest.raises(BadInputError, match="same id"):
        judge([SUPERIOR, SUPERIOR], [], "laptop", worst)


@PROPERTY
@given(
    st.sampled_from(["superior", "noninferior", "bound", "ordering"]),
    st.lists(eighths, min_size=6, max_size=10),
    st.lists(eighths, min_size=10, max_size=10),
    st.integers(0, 32),
)
def test_a_common_shift_for_the_worse_never_improves_a_verdict(
    kind: str, ours: list[float], noise: list[float], steps: int
) -> None:
    n, method = len(ours), np.array(ours)
    others = {
        "rival": np.array(noise[:n]) / 2,
        "sabotaged": np.array(noise[:n]) - 2,
        "third": np.full(n, -4.0),
    }
    before = judged(KINDS[kind], table(ours=method, **others))
    after = judged(KINDS[kind], table(ours=method - steps / 8, **others))
    assert RANK[after.verdict] <= RANK[before.verdict]


@PROPERTY
@given(
    st.sampled_from([kind for kind in KINDS if kind != "ordering"]),
    st.lists(eighths, min_size=2, max_size=10),
    st.integers(-16, 16),
)
def test_a_vacuous_control_always_shows(kind: str, ours: list[float], shift: int) -> None:
    values = np.array(ours) + shift
    rows = table(ours=values, rival=np.zeros(len(ours)), sabotaged=values)
    assert judged(KINDS[kind], rows).verdict in ("vacuous", "contradicted", "inconclusive")
    if kind in ("noninferior", "equivalent", "bound"):
        assert judged(KINDS[kind], rows).verdict in ("vacuous", "contradicted")


@PROPERTY
@given(st.lists(eighths, min_size=2, max_size=10), st.integers(0, 29))
def test_a_missing_replicate_is_always_invalid(ours: list[float], index: int) -> None:
    rows = table(ours=ours, rival=[0.0] * len(ours), sabotaged=[0.0] * len(ours))
    del rows[index % len(rows)]
    assert judged(SUPERIOR, rows).verdict == "invalid"


@pytest.mark.parametrize("gain", [0.0, 1.0, 20.0])
def test_an_inert_method_is_certified_in_at_most_one_study_in_twenty(gain: float) -> None:
    # The method is its own sabotaged control; both beat the baseline by `gain` SD.
    rng = np.random.default_rng(int(gain))
    certified = 0
    for _ in range(1000):
        arms = rng.standard_normal((3, 8)) + np.array([[gain], [0.0], [gain]])
        certified += (
            judged(SUPERIOR, table(ours=arms[0], rival=arms[1], sabotaged=arms[2])).verdict == "supported"
        )
    print(
        f"measured: inert method, {gain:g} SD above the baseline: certified in {certified / 10:.1f} % of studies"
    )
    assert certified <= 0.05 * 1000
