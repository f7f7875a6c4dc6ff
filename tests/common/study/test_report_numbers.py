"""How a report writes numbers, and what it says of them in words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.study.contrast import claimed_range
from common.study.report.data import natural, read_rows
from common.study.report.numbers import count, duration, effect, interval, number, p_value
from common.study.report.view import claim_view, slug
from common.study.report.words import axis_label, claimed, control_sentence, how_tested, reason, still_needed
from common.study.verdict import Finding, to_json
from tests.common.study.report_example import RETURN, example_study

CLAIMS = {claim.id: claim for claim in example_study().claims}
NOTHING = Finding("x", "invalid", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.03125, "0.0312"),
        (-12.5, "−12.5"),
        (50.0, "50"),
        (0.2, "0.2"),
        (0.1 + 0.2, "0.300"),
        (999.7, "1,000"),
        (149_999.0, "150,000"),
        (999_999.0, "1.00 × 10⁶"),
        (2e6, "2 × 10⁶"),
        (-1.2e-7, "−1.2 × 10⁻⁷"),
        (1.234e-4, "0.000123"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e300, 1e300, allow_subnormal=False))
def test_a_written_number_is_the_number_to_three_digits(value: float) -> None:
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")
    plain = number(value).replace(",", "").replace(" × 10", "e").translate(digits)
    assert math.isclose(float(plain), value, rel_tol=5.001e-3)
    assert number(-value) == (number(value)[1:] if value < 0 else f"−{number(value)}" if value else "0")


def test_effects_and_intervals() -> None:
    assert effect(12.0, unit="return") == "12 return"
    assert effect(math.log(3), "log_ratio", "steps") == "×3"
    assert effect(-math.log(4), "log_ratio") == "×0.25"
    assert effect(None, unit="return") == "–"
    assert interval((-1.0, 2.5)) == "[−1, 2.5]"
    assert interval((None, 2.0)) == "[−∞, 2]"
    assert interval((None, None), "log_ratio") == "[×0, ×∞]"
    assert interval(None) == "–"


def test_p_values_counts_and_times() -> None:
    assert [p_value(p) for p in (0.00390625, 1e-4, 9.9e-5, None)] == ["0.00391", "0.0001", "< 0.0001", "–"]
    assert [count(n) for n in (1234567, 0, None)] == ["1,234,567", "0", "–"]
    assert [duration(m) for m in (0.7, 31.4, 119.0, 312.0, None)] == [
        "42 s",
        "31.4 min",
        "119 min",
        "5.2 h",
        "–",
    ]


def test_replicates_sort_as_numbers() -> None:
    assert sorted(["10", "b", "9", "a", "-1", "1e1"], key=natural) == ["-1", "9", "10", "1e1", "a", "b"]


def test_cells_of_a_table(tmp_path: Any) -> None:
    path = tmp_path / "table.csv"
    path.write_text("stage,seed,score,fingerprint,name\n1,2,0.50,12e4,nan\n2,,1e-3,0,-\n")
    assert read_rows(path) == [
        {"stage": "1", "seed": 2, "score": 0.5, "fingerprint": "12e4", "name": "nan"},
        {"stage": "2", "score": 1e-3, "fingerprint": "0", "name": "-"},
    ]
    assert read_rows(tmp_path / "none.csv") == []


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """The claim's entry in claims.json, not assessed but for the changes."""
    return to_json(CLAIMS[name], Finding(name, "not assessed", "")) | changes


def test_how_a_claim_was_tested() -> None:
    superior = how_tested(entry("fewer-interactions", n=8), CLAIMS["fewer-interactions"])
    assert superior.startswith("Each of the 8 replicates pairs OPIRL with AIRL (PPO) of the same seed.")
    assert "lie above ×1" in superior
    assert "OPIRL better than the control, OPIRL, buffer cut to the last rollout" in superior
    assert "Holm" not in superior
    assert "Holm" in how_tested(entry("fewer-interactions", p_holm=0.02), None)
    assert "above −40 return" in how_tested(entry("final-return"), None)
    assert "inside ±20 return" in how_tested(entry("harmless"), None)
    assert "Each of the replicates" in how_tested(
        entry("final-return"), None
    )  # nothing ran: no number to state


def test_what_the_control_did() -> None:
    control = {"label": "cut", "effect": 48.0, "p": 0.0078, "against": 0.99, "passed": True}
    assert (
        control_sentence(entry("transfer", control=control))
        == "OPIRL beats it: effect 48 return, p = 0.0078."
    )
    failed = control_sentence(entry("transfer", control=control | {"passed": False}))
    assert failed.startswith("OPIRL does not beat it: effect 48 return")
    rejected = control | {"against": 1e-9}
    assert control_sentence(entry("final-return", control=rejected)) == (
        "The test rejects it: effect 48 return, p < 0.0001."
    )
    assert control_sentence(entry("transfer", control=control | {"passed": None})) == "It was not assessed."
    assert control_sentence(entry("transfer", control=None)) == ""


def test_what_is_still_needed() -> None:
    vacuous = entry("off-policy", verdict="vacuous", needed=21, n=8)
    assert still_needed(vacuous, None).startswith(
        "About 13 more replicates, 21 in all, would let the control"
    )
    assert still_needed(entry("off-policy", verdict="vacuous"), None) == ""
    declared = CLAIMS["fewer-interactions"]
    open_ = entry("fewer-interactions", verdict="inconclusive", needed=1009, n=8, effect=0.1)
    assert still_needed(open_, declared) == (
        "About 1,001 more replicates, 1,009 in all, would show the claim with 80 % power, if effect and spread are as "
        "estimated."
    )
    assert "1 more replicate, 9 in all, would show the opposite" in still_needed(
        open_ | {"needed": 9, "effect": -0.1}, declared
    )


def test_an_open_claim_says_what_the_correction_for_several_claims_did() -> None:
    declared = CLAIMS["fewer-interactions"]
    said = (
        "Neither the claim nor its opposite is shown (p = 0.13); 1 more, 9 replicates in all, would decide."
    )
    open_ = entry("fewer-interactions", verdict="inconclusive", needed=9, p_holm=0.13, reason=said)
    start = "Neither the claim nor its opposite is shown (p = 0.13)."
    told = "The interval, which is not corrected for several claims, lies"
    assert reason(open_ | {"ci": [0.1, 0.5]}, declared) == f"{start} {told} inside the claimed range."
    assert reason(open_ | {"ci": [-0.5, -0.1]}, declared) == f"{start} {told} outside the claimed range."
    assert reason(open_ | {"ci": [-0.5, 0.1]}, declared) == start
    assert reason(open_ | {"ci": [0.1, 0.5], "p_holm": None}, declared) == start
    assert reason(open_ | {"verdict": "invalid"}, declared) == said


def test_where_an_effect_is_claimed_to_lie() -> None:
    def text(**changes: Any) -> str:
        claim = replace(CLAIMS["transfer"], **changes)
        return claimed(claim, claim.effect)

    assert text() == "> 0"
    assert text(kind="noninferior", margin=2.0) == "> −2"
    assert text(kind="equivalent", margin=2.0) == "±2"
    assert text(kind="equivalent", effect="log_ratio", margin=math.log(2)) == "×0.5 to ×2"
    assert text(kind="exponent", axis="size", target=1.0, margin=0.25) == "0.75 to 1.25"
    lower = replace(CLAIMS["transfer"].metric, better="lower")
    assert text(kind="bound", baseline=None, metric=lower, margin=3.0) == "< 3"
    assert claimed(None, "difference") == ""


def test_a_bound_says_its_side_and_a_slope_has_no_unit() -> None:
    bound = replace(CLAIMS["transfer"], kind="bound", baseline=None, margin=3.0)
    assert "final return of OPIRL must lie above 3 return" in how_tested(to_json(bound, NOTHING), bound)
    low = replace(bound, metric=replace(bound.metric, better="lower"))
    assert "must lie below 3 return" in how_tested(to_json(low, NOTHING), low)
    slope = replace(bound, kind="exponent", axis="size", margin=0.1, target=1.0)
    assert "(Theil–Sen) must lie within 0.1 of 1." in how_tested(to_json(slope, NOTHING), slope)
    assert claim_view(to_json(slope, NOTHING), slope)["arm_column"] == "arm"


def test_tasks_are_told_and_how_they_are_averaged() -> None:
    one = replace(CLAIMS["transfer"], tasks=("env",))
    assert "Inside a replicate all values of env are averaged." in how_tested(to_json(one, NOTHING), one)
    ratio = replace(one, effect="log_ratio")
    assert "averaged geometrically, since logarithms are compared." in how_tested(
        to_json(ratio, NOTHING), ratio
    )


def test_axis_labels_say_which_side_is_better() -> None:
    assert axis_label(entry("transfer"), None).endswith("right of 0, OPIRL is better")
    assert axis_label(entry("fewer-interactions"), None).endswith("right of ×1, OPIRL is better")
    bound = replace(CLAIMS["transfer"], kind="bound", baseline=None)
    assert axis_label(to_json(bound, Finding("b", "invalid", "")), bound) == "final return (return)"
    slope = replace(bound, kind="exponent", axis="size", margin=0.1, target=1.0)
    assert (
        axis_label(to_json(slope, Finding("b", "invalid", "")), slope)
        == "slope of log final return against log size"
    )


def test_an_exact_comparison_has_no_interval_and_an_open_one_is_open() -> None:
    exact = replace(CLAIMS["transfer"], kind="identity", control=None, margin=1.0)
    view = claim_view(to_json(exact, Finding("e", "supported", "", effect=0.5, n=8)), exact)
    assert view["ci"] == "–"
    assert view["spark"]["low"] == view["spark"]["high"] == view["spark"]["centre"]
    single = Finding("e", "inconclusive", "", effect=0.5, n=1, ci=(-math.inf, math.inf))
    assert claim_view(to_json(CLAIMS["transfer"], single), None)["ci"] == "[−∞, ∞]"


@pytest.mark.parametrize("kind", ["superior", "noninferior", "equivalent", "bound"])
def test_the_small_interval_is_drawn_to_scale(kind: Any) -> None:
    claim = replace(CLAIMS["transfer"], kind=kind, margin=2.0, metric=RETURN)
    low, high = claimed_range(claim)
    found = Finding("x", "inconclusive", "", effect=3.0, ci=(-1.0, 7.0), n=8)
    spark = claim_view(to_json(claim, found), claim)["spark"]
    scale = (spark["high"] - spark["low"]) / 8

    def place(value: float) -> float:
        return spark["centre"] + (value - 3) * scale

    assert spark["low"] == pytest.approx(place(-1), abs=0.11)
    assert spark["from"] == pytest.approx(place(low), abs=0.11)
    assert spark["to"] == pytest.approx(100.0 if math.isinf(high) else place(high), abs=0.11)
    assert spark["zero"] is None if kind == "bound" else spark["zero"] == pytest.approx(place(0), abs=0.11)
    assert (
        claim_view(to_json(claim, found), None)["spark"]["from"] is None
    )  # study.py no longer says where it holds


def test_slugs_are_safe_names() -> None:
    assert slug("Not assessed!") == "not-assessed"
    assert slug("../é") == "x"
