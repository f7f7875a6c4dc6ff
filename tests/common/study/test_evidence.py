"""Rows in, one number a replicate out; and every way in which rows can be unusable."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from common.study.evidence import Sample, UnusableError, effects, measure, natural, same
from common.study.model import Arm, Best, Claim, Metric, Mix, Scaled

Rows = list[dict[str, Any]]
RETURN = Metric("return", "", "higher", worst=-7.0)
OURS, RIVAL, OTHER = (Arm(name, "evaluate", {"method": name}) for name in ("ours", "rival", "other"))
CLAIM = Claim("c", "ours is better", "p. 1", "superior", RETURN, OURS, RIVAL, OTHER)


def row(method: str, seed: Any, value: Any, **more: Any) -> dict[str, Any]:
    fixed = {
        "stage": "evaluate",
        "status": "done",
        "role": "study",
        "method": method,
        "seed": seed,
        "return": value,
    }
    return fixed | more


def worst(row: Any, metric: Metric) -> float:
    return float(row["cap"]) * metric.worst.times if isinstance(metric.worst, Scaled) else metric.worst


def read(series: Any, rows: Rows, claim: Claim = CLAIM) -> Sample:
    return measure(series, claim, rows, worst)


def test_an_arm_reads_its_rows_and_no_others() -> None:
    rows = [
        row("ours", 10, 2.0),
        row("ours", 9, 1.0),
        row("rival", 9, 5.0),
        row("ours", 900, 8.0, role="validation"),
        row("ours", 9, 3.0, stage="train"),
    ]
    sample = read(OURS, rows)
    assert sample.values == {"9": 1.0, "10": 2.0}
    assert list(sample.values) == ["9", "10"]
    assert (sample.runs, sample.diverged, sample.late) == ({"ours": 2}, {"ours": 0}, {"ours": 0})


def test_cells_are_the_same_however_the_table_was_read() -> None:
    arm = Arm("small", "evaluate", {"batch": 64})
    for batch, seed, value in ((64, 1, 0.5), ("64", "1", "0.5"), (64.0, 1.0, 0.5)):
        assert read(arm, [row("ours", seed, value, batch=batch)]).values == {"1": 0.5}
    assert same("1e-3", 0.001)
    assert not same("ours", "rival")
    assert sorted(["10", "b", "9", "a"], key=natural) == ["9", "10", "a", "b"]


def test_tasks_are_averaged_inside_a_replicate() -> None:
    claim = replace(CLAIM, tasks=("env",))
    rows = [
        row("ours", seed, value, env=env)
        for seed, env, value in ((0, "a", 1.0), (0, "b", 4.0), (1, "a", 2.0), (1, "b", 8.0))
    ]
    assert read(OURS, rows, claim).values == {"0": 2.5, "1": 5.0}
    ratio = read(OURS, rows, replace(claim, effect="log_ratio")).values
    assert ratio == pytest.approx({"0": 2.0, "1": 4.0})
    with pytest.raises(UnusableError, match="do not have the same runs"):
        read(OURS, rows[:3], claim)
    with pytest.raises(UnusableError, match="not run on the same env"):
        effects(
            claim,
            read(OURS, rows, claim),
            read(RIVAL, [row("rival", s, 0.0, env="a") for s in (0, 1)], claim),
        )


def test_a_diverged_run_takes_the_worst_value_and_is_counted() -> None:
    sample = read(OURS, [row("ours", 0, "", status="diverged"), row("ours", 1, 3.0)])
    assert sample.values == {"0": -7.0, "1": 3.0}
    assert sample.diverged == {"ours": 1}


def test_a_run_that_never_arrived_is_counted_when_the_worst_value_is_its_own_cap() -> None:
    claim = replace(CLAIM, metric=replace(RETURN, better="lower", worst=Scaled("cap", 2.0)))
    rows = [
        row("ours", 0, 200.0, cap=100),
        row("ours", 1, 40.0, cap=100),
        row("ours", 2, None, cap=50, status="diverged"),
    ]
    sample = read(OURS, rows, claim)
    assert sample.values == {"0": 200.0, "1": 40.0, "2": 100.0}
    assert (sample.diverged["ours"], sample.late["ours"]) == (1, 1)
    assert read(OURS, [row("ours", 0, -7.0)]).late == {"ours": 0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no runs"),
        ([row("ours", 0, 1.0), row("ours", 1, 1.0, status="missing")], "is missing .*seed 1"),
        ([row("ours", 0, 1.0, status="failed")], "is failed"),
        ([row("ours", 0, math.nan)], "no finite return"),
        ([row("ours", 0, math.inf)], "no finite return"),
        ([row("ours", 0, "")], "no finite return"),
        ([{key: value for key, value in row("ours", 0, 1.0).items() if key != "return"}], "no finite return"),
        ([row("ours", 0, 1.0, env="a"), row("ours", 0, 2.0, env="b")], "several runs for seed 0"),
    ],
)
def test_unusable_rows(rows: Rows, message: str) -> None:
    with pytest.raises(UnusableError, match=message):
        read(OURS, rows)


def test_a_diverged_run_without_a_worst_value_is_unusable() -> None:
    with pytest.raises(UnusableError, match="no finite worst value"):
        measure(OURS, CLAIM, [row("ours", 0, "", status="diverged")], lambda row, metric: math.nan)


def test_effects_are_positive_where_the_method_is_better() -> None:
    ours, rival = read(OURS, [row("ours", 0, 8.0)]), read(RIVAL, [row("rival", 0, 2.0)])
    lower = replace(CLAIM, metric=replace(RETURN, better="lower"))
    assert effects(CLAIM, ours, rival) == {"0": 6.0}
    assert effects(lower, ours, rival) == {"0": -6.0}
    assert effects(replace(lower, effect="log_ratio"), rival, ours)["0"] == pytest.approx(math.log(4))
    assert effects(CLAIM, ours, None) == {"0": 8.0}
    with pytest.raises(UnusableError, match="positive numbers"):
        effects(replace(CLAIM, effect="log_ratio"), ours, read(RIVAL, [row("rival", 0, 0.0)]))
    with pytest.raises(UnusableError, match="without a partner: 1"):
        effects(CLAIM, ours, read(RIVAL, [row("rival", 0, 2.0), row("rival", 1, 2.0)]))


def best_rows() -> Rows:
    study = [row(name, 0, value) for name, value in (("rival", 1.0), ("other", 9.0))]
    held = [
        row(name, seed, value, role="validation")
        for name, value in (("rival", 5.0), ("other", 4.0))
        for seed in (900, 901)
    ]
    return study + held


def test_the_best_arm_is_chosen_on_validation_seeds() -> None:
    best = Best("best rival", (RIVAL, OTHER), "return")
    sample = read(best, best_rows())
    assert (sample.label, sample.values) == ("best rival", {"0": 1.0})
    assert sample.choice == "best rival is rival, by mean return on validation seeds (rival 5, other 4)"
    lower = replace(CLAIM, metric=replace(RETURN, better="lower"))
    assert read(best, best_rows(), lower).values == {"0": 9.0}
    on_study = read(replace(best, seeds="study"), best_rows())
    assert on_study.values == {"0": 9.0}
    assert "the very seeds of the test" in on_study.choice


def test_the_best_arm_needs_complete_validation_rows() -> None:
    best = Best("best rival", (RIVAL, OTHER), "return")
    with pytest.raises(UnusableError, match="'rival' has no validation rows"):
        read(best, best_rows()[:2])
    with pytest.raises(UnusableError, match="not run on the same validation seeds"):
        read(best, best_rows()[:-1])
    with pytest.raises(UnusableError, match="is missing"):
        read(best, [*best_rows()[:-1], row("other", 901, "", role="validation", status="missing")])


def test_a_mix_is_combined_in_each_replicate() -> None:
    gain = Mix("gain over a quarter", ((1.0, OURS), (-0.25, RIVAL)))
    rows = [row("ours", 0, 3.0), row("ours", 1, 5.0), row("rival", 0, 4.0), row("rival", 1, 8.0)]
    sample = read(gain, rows)
    assert sample.values == {"0": 2.0, "1": 3.0}
    assert sample.runs == {"ours": 2, "rival": 2}
    with pytest.raises(UnusableError, match="without a partner"):
        read(gain, rows[:3])


def test_an_exponent_has_one_slope_a_replicate() -> None:
    claim = replace(CLAIM, kind="exponent", axis="size", target=-1.5, margin=0.1)
    rows = [
        row("ours", seed, (seed + 1) * size**-1.5, size=size) for seed in (0, 1) for size in (10, 100, 1000)
    ]
    assert read(OURS, rows, claim).values == pytest.approx({"0": -1.5, "1": -1.5})
    mixed = read(Mix("sum", ((1.0, OURS), (2.0, OURS))), rows, claim)
    assert mixed.values == pytest.approx({"0": -1.5, "1": -1.5})
    with pytest.raises(UnusableError, match="positive"):
        read(OURS, [*rows[:-1], row("ours", 1, 0.0, size=1000)], claim)
    with pytest.raises(UnusableError, match="needs numbers"):
        read(OURS, [row("ours", 0, 1.0, size="big"), row("ours", 0, 1.0, size="small")], claim)
    with pytest.raises(UnusableError, match="same runs"):
        read(OURS, rows[:-1], claim)


def test_a_measurement_without_pairing_is_one_replicate() -> None:
    claim = replace(CLAIM, kind="bound", pairing="")
    assert read(OURS, [row("ours", "", 0.25)], claim).values == {"": 0.25}
    with pytest.raises(UnusableError, match="several runs for the measurement"):
        read(OURS, [row("ours", 0, 0.25), row("ours", 1, 0.25)], claim)
