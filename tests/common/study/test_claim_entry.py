"""What claims.json holds of a claim: its entry and its hash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.study.model import Arm, Claim, Metric, Mix, Published, Scaled
from common.study.verdict import Finding, claim_hash, judge, to_json

ROOT = Path(__file__).parents[3]
RETURN = Metric("return", "points", "higher", worst=-100.0)
OURS, RIVAL, SABOTAGED = (Arm(name, "evaluate", {"method": name}) for name in ("ours", "rival", "sabotaged"))
SUPERIOR = Claim("c", "ours is better", "p. 1", "superior", RETURN, OURS, RIVAL, SABOTAGED)
VALUES = [2.3, 1.8, 2.1, 2.4, 1.7, 2.2, 1.9, 2.05]


def judged(claim: Claim, ours: Sequence[float]) -> Finding:
    rows = [
        {
            "stage": "evaluate",
            "role": "study",
            "status": "done",
            "method": name,
            "seed": seed,
            "return": value,
        }
        for name in ("ours", "rival", "sabotaged")
        for seed, value in enumerate(ours if name == "ours" else [0.0] * len(ours))
    ]
    return judge([claim], rows, "laptop", lambda row, metric: -100.0)[0]


def test_the_entry_of_claims_json() -> None:
    figure = Published("thesis", 12.0, "points", "table 3")
    claim = replace(SUPERIOR, published=(figure,))
    entry = to_json(claim, judged(claim, VALUES))
    assert {
        "id",
        "hash",
        "statement",
        "source",
        "kind",
        "primary",
        "metric",
        "unit",
        "verdict",
        "effect",
        "ci",
        "n",
        "diverged",
        "margin",
        "control",
        "published",
    } <= entry.keys()
    assert entry["published"][0]["value"] == 12.0
    assert entry["control"]["passed"] is True
    assert entry["pairs"][0] == {"replicate": "0", "effect": 2.3}
    assert entry["values"]["ours"]["7"] == 2.05
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    single = to_json(claim, judged(claim, [1.0]))
    assert (single["verdict"], single["ci"], single["needed"]) == ("inconclusive", [None, None], None)
    invalid = to_json(claim, judged(claim, []))
    assert (invalid["effect"], invalid["control"]["effect"]) == (None, None)
    json.dumps([single, invalid], allow_nan=False)


def test_the_hash_is_of_the_test_alone_and_stable() -> None:
    base = claim_hash(SUPERIOR)
    assert claim_hash(replace(SUPERIOR, limits="small", published=(Published("a", 1.0, "", ""),))) == base
    assert claim_hash(replace(SUPERIOR, margin=0)) == base
    reordered = Arm("ours", "evaluate", {"b": 1, "a": 2})
    assert claim_hash(replace(SUPERIOR, method=reordered)) == claim_hash(
        replace(SUPERIOR, method=replace(reordered, where={"a": 2, "b": 1}))
    )
    changes: list[dict[str, Any]] = [
        {"margin": 0.1},
        {"tasks": ("env",)},
        {"requires": "available"},
        {"control": RIVAL},
        {"primary": False},
        {"kind": "noninferior"},
        {"scales": ("paper",)},
        {"statement": "ours wins"},
        {"method": Mix("ours", ((1.0, OURS),))},
        {"metric": replace(RETURN, worst=Scaled("cap", 2.0))},
        {"baseline": replace(RIVAL, where={"method": "third"})},
    ]
    assert len({base, *(claim_hash(replace(SUPERIOR, **change)) for change in changes)}) == len(changes) + 1
    code = (
        "from common.study.model import *; from common.study.verdict import claim_hash; "
        "a, b, c = (Arm(n, 'evaluate', {'method': n}) for n in ('ours', 'rival', 'sabotaged')); "
        "print(claim_hash(Claim('c', 'ours is better', 'p. 1', 'superior', "
        "Metric('return', 'points', 'higher', worst=-100.0), a, b, c)))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "7"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == base
