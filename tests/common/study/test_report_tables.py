"""The tables of results by arm, and the p values of the opposites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.study.evidence import Row
from common.study.model import Arm, Claim, Metric, Scaled, Stage, Study
from common.study.report.against import against
from common.study.report.data import Result
from common.study.report.tables import WIDE, stage_tables
from common.study.statistics import less
from common.study.verdict import judge, to_json

SCORE = Metric("score", "points", "higher", 0.0)


def study(*claims: Claim, **more: Any) -> Study:
    return Study(
        "demo",
        "",
        "",
        "",
        (Stage("train", "x:y", ("arm", "seed")), Stage("drawn", "x:y", ())),
        claims,
        **more,
    )


def claim(name: str, arm: str = "a", **more: Any) -> Claim:
    given: dict[str, Any] = {
        "metric": SCORE,
        "method": Arm("A", "train", {"arm": arm}),
        "baseline": Arm("B", "train", {"arm": "b"}),
        "control": Arm("C", "train", {"arm": "c"}),
    }
    return Claim(name, "", "", "superior", **given | more)


def row(stage: str, arm: str, seed: int, **metrics: float) -> Row:
    fixed = {"project": "demo", "scale": "laptop", "stage": stage, "status": "done", "role": "study"}
    return {**fixed, "fingerprint": "f", "arm": arm, "seed": seed, **metrics}


def wide(count: int) -> dict[str, float]:
    return {f"value_{i}": float(i) for i in range(count)}


def test_a_wide_table_keeps_what_claims_read_and_names_the_rest() -> None:
    rows = [row("train", arm, seed, score=1.0, **wide(WIDE)) for arm in "ab" for seed in (0, 1)]
    (table,) = stage_tables(study(claim("x")), rows)
    assert table["short"]["columns"] == ["arm", "n", "diverged", "score"]
    assert table["short"]["rows"] == [["a", "2", "0", "1 ± 0"], ["b", "2", "0", "1 ± 0"]]
    assert table["short"]["left_out"] == [f"value {i}" for i in range(WIDE)]
    assert len(table["whole"]["columns"]) == WIDE + 4 and table["arms"] == 2
    (narrow,) = stage_tables(study(claim("x")), [row("train", "a", 0, score=1.0)])
    assert narrow["short"]["left_out"] == [] and narrow["short"]["rows"] == narrow["whole"]["rows"]


def test_one_wide_row_stands_upright() -> None:
    (table,) = stage_tables(study(claim("x")), [row("train", "a", 0, **wide(WIDE + 1))])
    assert table["short"]["columns"] == ["", "value"] and table["short"]["left_out"] == []
    assert table["short"]["rows"][:4] == [["arm", "a"], ["n", "1"], ["diverged", "0"], ["value 0", "0"]]


def test_what_only_figures_read_is_left_to_the_file() -> None:
    rows = [row("train", "a", 0, score=1.0), row("drawn", "a", 0, place=1776.0)]
    assert [table["stage"] for table in stage_tables(study(claim("x")), rows)] == ["train", "drawn"]
    assert [table["stage"] for table in stage_tables(study(claim("x"), drawn=("drawn",)), rows)] == ["train"]


def test_what_a_run_that_never_arrived_counts_as_is_said() -> None:
    late = replace(SCORE, worst=Scaled("imitate.steps", 2.0))
    rows = [row("train", "a", 0, score=8000.0)]
    (table,) = stage_tables(study(claim("x"), claim("y", metric=late)), rows)
    assert table["notes"] == [
        "score: a run that never arrived, or diverged, counts as 2 times its own imitate.steps."
    ]
    assert stage_tables(study(claim("x")), rows)[0]["notes"] == []


def test_the_p_of_an_opposite_is_the_one_that_decided() -> None:
    """Three primary claims, all contradicted: the largest p of an opposite is that of the test, Holm puts 3 on it."""
    drawn = np.random.default_rng(3)
    rows = [
        row("train", arm, seed, score=level + float(drawn.normal(0, 0.3)))
        for arm, level in {"a": 0.0, "b": 1.0, "c": -2.0, "d": 0.2, "e": 0.4}.items()
        for seed in range(8)
    ]
    claims = (claim("x"), claim("y", "d"), claim("z", "e"), claim("w", primary=False))
    findings = judge(claims, rows, "laptop", lambda *_: 0.0)
    entries = [to_json(each, found) for each, found in zip(claims, findings, strict=True)]
    found = against(study(*claims), Result(Path("laptop"), {}, entries, {}))
    for entry in entries:
        assert entry["verdict"] == "contradicted"
        assert f"(p = {found[entry['id']]:.2g})" in entry["reason"]
    alone = max(less(np.array([pair["effect"] for pair in entries[3]["pairs"]])))
    assert found["w"] == pytest.approx(alone), "a secondary claim is not corrected"
    assert found["x"] > found["w"]


def test_no_opposite_without_a_test_or_a_claim_of_today() -> None:
    rows = [row("train", arm, seed, score=float(seed)) for arm in "abc" for seed in range(3)]
    exact = replace(claim("exact"), kind="identity", control=None)
    gone, empty = claim("gone"), claim("empty", "nowhere")
    claims = (exact, gone, empty)
    entries = [
        to_json(each, found)
        for each, found in zip(claims, judge(claims, rows, "laptop", lambda *_: 0.0), strict=True)
    ]
    assert against(study(exact, empty), Result(Path("laptop"), {}, entries, {})) == {}
