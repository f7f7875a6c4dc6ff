"""What the card says of the committed laptop study, computed from its table again."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import projects.proxy_isa
from common.study.config import ROOT, compose
from common.study.model import Best, Claim
from common.study.report.data import read_rows
from common.study.verdict import Finding, judge
from projects.proxy_isa.claims import CLAIMS

ROWS = read_rows(ROOT / "results" / "proxy_isa" / "laptop" / "table.csv")


def text() -> str:
    (folder,) = projects.proxy_isa.__path__
    return (Path(folder) / "README.md").read_text(encoding="utf-8")


def separated(claim: Claim) -> Claim:
    """The same claim of the means over single models; the gain is one already."""
    if claim.metric.name == "gain":
        return claim
    name = f"separated_{claim.metric.name}"
    best = claim.baseline
    baseline = dataclasses.replace(best, metric=name) if isinstance(best, Best) else best
    return dataclasses.replace(claim, metric=dataclasses.replace(claim.metric, name=name), baseline=baseline)


def findings(claims: tuple[Claim, ...]) -> dict[str, Finding]:
    return {found.claim: found for found in judge(claims, ROWS, "laptop", lambda *_: 0.0)}


def cell(found: Finding) -> str:
    """Effect and seeds below 0, as the card has them."""
    assert found.effect is not None
    below = sum(value < 0 for value in found.pairs.values())
    return f"{found.effect:.4f}".replace("-", "−") + f" {below} of {len(found.pairs)}"


def test_the_separated_scores_have_the_verdicts_and_effects_of_the_card() -> None:
    whole, apart = findings(CLAIMS), findings(tuple(separated(claim) for claim in CLAIMS))
    assert {name: found.verdict for name, found in whole.items()} == {
        name: found.verdict for name, found in apart.items()
    }
    lines = re.findall(r"^\| ([a-z-]+) \| (−.*?) \| (−.*?) \|$", text(), re.MULTILINE)
    said = {name: [re.sub(r" MAP@R| R@1|,| \(.*\)", "", part) for part in parts] for name, *parts in lines}
    assert said == {
        name: [cell(whole[name]), cell(apart[name])]
        for name, found in whole.items()
        if found.verdict == "contradicted" and name != "optimism"
    }
    differ = {name for name, found in whole.items() if found.control_passed != apart[name].control_passed}
    assert differ == {"over-rivals", "down-both"} and all(apart[name].control_passed for name in differ)
    assert "Multi-Similarity" in apart["over-rivals"].baseline_choice.split("(")[0]


def test_where_the_searches_ended_is_as_the_card_says() -> None:
    searches = [row for row in ROWS if row["stage"] == "tune"]
    space = compose("proxy_isa", "laptop")["tune"]["space"]

    def place(row: dict[str, Any], name: str, low: float, high: float) -> float:
        return math.log(row[f"tuned_{name}"] / low) / math.log(high / low)

    ((lr, count),) = Counter(float(row["tuned_lr"]) for row in searches).most_common(1)
    assert f"There `lr` is {lr:.4f}" in text() and (count, len(searches)) == (12, 17)
    same = [row for row in searches if row["tuned_lr"] == lr]
    assert len({row["tuned_proxy_lr"] for row in same}) == 4  # the same trial, and another draw of it
    for row in same:
        assert place(row, "lr", *space["all"]["lr"]) == pytest.approx(0.78, abs=0.01)
        names = {"memory_anchor": "proxy_anchor", "narrow": "proxy_isa"}
        for name, (low, high) in space[names.get(row["loss"], row["loss"])].items():
            if row["loss"] == "multi_similarity" and name == "proxy_lr":
                assert place(row, name, low, high) == pytest.approx(0.85, abs=0.01)
            else:
                assert 0.06 <= place(row, name, low, high) <= 0.1
