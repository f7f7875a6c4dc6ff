"""One claim as the pages show it: every number already written, so that Markdown and HTML cannot differ."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from common.study.contrast import BEATEN
from common.study.model import Claim
from common.study.report.data import Json, mapping, natural, objects
from common.study.report.numbers import NONE, count, effect, interval, number, p_value, with_unit
from common.study.report.style import VERDICTS, badge
from common.study.report.words import (
    arm_values,
    claimed,
    control_sentence,
    holds_between,
    how_tested,
    names,
    reason,
    still_needed,
    unit_of,
    with_bracket,
)
from common.study.statistics import LEVEL

KINDS = {"noninferior": "not inferior"}
Values = Mapping[str, Sequence[tuple[str, float]]]  # arm -> its (replicate, value)
SPARK = 100.0  # width of the small interval in the verdict table, in its own units


def claim_view(claim: Json, declared: Claim | None, against: float | None = None) -> dict[str, Any]:
    """Everything that the pages show of one claim, as text.

    Args:
        claim: its entry in claims.json.
        declared: the claim in study.py, None when it is no longer there.
        against: the p value of the opposite, see `common.study.report.against`.
    """
    kind, unit = str(claim.get("effect_kind") or "difference"), unit_of(claim)
    verdict, id_ = str(claim.get("verdict") or "not assessed"), str(claim.get("id", ""))
    values = arm_values(claim, declared)
    arms = _arms(claim, values)
    return {
        "id": id_,
        "anchor": "claim-" + slug(id_),
        "statement": str(claim.get("statement", "")),
        "source": str(claim.get("source") or ""),
        "kind": KINDS.get(str(claim.get("kind")), str(claim.get("kind") or "")),
        "primary": bool(claim.get("primary")),
        "metric": str(claim.get("metric") or "").replace("_", " "),
        "unit": unit,
        "verdict": verdict,
        "slug": slug(verdict),
        "symbol": VERDICTS.get(verdict, ("", ""))[0],
        "badge": badge(verdict),
        "effect": effect(claim.get("effect"), kind, unit),
        "ci": interval(claim.get("ci"), kind),
        "n": count(claim.get("n")),
        "control_short": _control_short(claim),
        "control_name": names(claim)["control"],
        "control": control_sentence(claim),
        "tested": how_tested(claim, declared),
        "claimed": claimed(declared, kind) or NONE,
        "facts": _facts(claim, kind, unit, against),
        "parts": [
            [str(part.get("label")), effect(part.get("effect"), kind, unit), interval(part.get("ci"), kind),
             p_value(part.get("p"))]
            for part in objects(claim.get("parts"))
        ],
        "needed": still_needed(claim, declared),
        "reason": reason(claim, declared),
        "limits": declared.limits if declared else "",
        "choice": str(claim.get("baseline_choice") or ""),
        "published": _published(claim, declared, arms, unit),
        "arms": arms,
        "arm_column": with_bracket("arm", unit),
        "runs": _runs(claim, values, kind),
        "spark": _spark(claim, declared),
        "hash": str(claim.get("hash") or "")[:12],
    }  # fmt: skip


def slug(text: str) -> str:
    """`text` for an id or a class: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def mean_sd(values: Sequence[float]) -> tuple[str, str]:
    """Mean and standard deviation (n − 1) as text; a dash for the deviation of one value."""
    return number(statistics.fmean(values)), number(statistics.stdev(values)) if len(values) > 1 else NONE


def interval_name() -> str:
    """What the interval is called: its level is a decision of common.study.statistics."""
    return f"{number(100 * LEVEL)} % interval"


def _facts(claim: Json, kind: str, unit: str, against: float | None) -> list[tuple[str, str]]:
    """Name and value of each number of the test; those that the file has not are left out."""
    if claim.get("effect") is None:
        return []
    facts = [
        ("Effect", effect(claim["effect"], kind, unit)),
        (interval_name(), interval(claim.get("ci"), kind)),
    ]
    if claim.get("margin"):
        facts.append(("Margin", effect(float(claim["margin"]), kind, unit)))
    facts.append(("Replicates", count(claim.get("n"))))
    tests = (("p_t", "p, t"), ("p_sign", "p, sign-flip"), ("p_holm", "p, Holm"))
    facts += [(name, p_value(claim[key])) for key, name in tests if claim.get(key) is not None]
    if against is not None:
        corrected = ", Holm" if claim.get("p_holm") is not None else ""
        facts.append((f"p of the opposite{corrected}", p_value(against)))
    control = mapping(claim.get("control"))
    if control.get("effect") is not None:
        facts.append(
            ("Control", f"{effect(control['effect'], kind, unit)} {interval(control.get('ci'), kind)}")
        )
    diverged = mapping(claim.get("diverged"))
    if diverged:
        some = [f"{name} {count(times)}" for name, times in sorted(diverged.items()) if times]
        facts.append(("Diverged or late runs", ", ".join(some) or "none"))
    return facts


def _control_short(claim: Json) -> str:
    passed = mapping(claim.get("control")).get("passed")
    if passed is None:
        return NONE
    return ("" if passed else "not ") + ("beaten" if claim.get("kind") in BEATEN else "rejected")


def _arms(claim: Json, values: Values) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    diverged = mapping(claim.get("diverged"))
    for label, pairs in values.items():
        mean, sd = mean_sd([value for _, value in pairs])
        lost = count(diverged.get(label) or 0)
        found.append({"label": label, "mean": mean, "sd": sd, "n": count(len(pairs)), "diverged": lost})
    return found


def _runs(claim: Json, values: Values, kind: str) -> dict[str, Any]:
    """Every replicate's value in every arm, and its paired effect."""
    arms = {arm: dict(pairs) for arm, pairs in values.items()}
    effects = {str(pair.get("replicate")): pair.get("effect") for pair in objects(claim.get("pairs"))}
    keys = sorted({key for each in arms.values() for key in each} | set(effects), key=natural)
    last = ["effect"] if effects else []
    rows = [
        [
            key,
            *(number(each.get(key)) for each in arms.values()),
            *(effect(effects.get(key), kind) for _ in last),
        ]
        for key in keys
    ]
    return {"columns": ["replicate", *arms, *last], "rows": rows}


def _published(claim: Json, declared: Claim | None, arms: list[dict[str, str]], unit: str) -> list[list[str]]:
    """Label, value, source and note: the thesis's figures and peers', then ours."""
    published = [asdict(each) for each in declared.published] if declared else objects(claim.get("published"))
    theirs = [
        [
            str(each["label"]),
            with_unit(NONE if each["value"] is None else f"{each['value']:,.12g}", str(each["unit"])),
            str(each["source"]),
            str(each["note"]),
        ]
        for each in published
    ]
    ours = [
        [
            arm["label"],
            with_unit(f"{arm['mean']} ± {arm['sd']}", unit),
            "this study",
            f"mean ± SD, n = {arm['n']}",
        ]
        for arm in arms
    ]
    return theirs + ours if theirs else []


def _spark(claim: Json, declared: Claim | None) -> dict[str, float | None] | None:
    """Positions (0 to 100) of the interval, the effect, zero and the edges of the claimed range."""
    centre = claim.get("effect")
    if centre is None:
        return None
    ci = claim.get("ci") or (centre, centre)
    holds = holds_between(declared) or (math.nan, math.nan)
    zero = [0.0] if claim.get("kind") not in ("bound", "exponent") else []
    inside = [
        centre,
        *(end for end in ci if end is not None),
        *(end for end in holds if math.isfinite(end)),
        *zero,
    ]
    low, span = min(inside), (max(inside) - min(inside)) or 1.0

    def place(value: float | None, open_end: float) -> float | None:
        if value is None or math.isinf(value):
            return open_end
        return None if math.isnan(value) else round(6 + (SPARK - 12) * (value - low) / span, 1)

    return {
        "low": place(ci[0], 0.0), "high": place(ci[1], SPARK), "centre": place(centre, 0.0),
        "zero": place(0.0, 0.0) if zero else None, "from": place(holds[0], 0.0), "to": place(holds[1], SPARK),
    }  # fmt: skip
