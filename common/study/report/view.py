"""One claim as the pages show it: every number already written, so that Markdown and HTML cannot differ."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from typing import Any

from common.study.model import Claim
from common.study.report.data import Json, natural, replicates
from common.study.report.numbers import NONE, count, effect, interval, number, p_value, with_unit
from common.study.report.style import VERDICTS, badge
from common.study.report.words import control_sentence, holds_between, how_tested, names, still_needed
from common.study.statistics import LEVEL

KINDS = {"noninferior": "not inferior", "superior": "superior", "equivalent": "equivalent"}
SPARK = 100.0  # width of the small interval in the verdict table, in its own units


def claim_view(claim: Json, declared: Claim | None) -> dict[str, Any]:
    """Everything that the pages show of one claim, as text.

    Args:
        claim: its entry in claims.json.
        declared: the claim in study.py, None when it is no longer there.
    """
    kind, unit = str(claim.get("effect_kind") or "difference"), str(claim.get("unit") or "")
    verdict, who = str(claim.get("verdict") or "not assessed"), names(claim, declared)
    ci = claim.get("ci") or (None, None)
    assessed = claim.get("effect") is not None
    arms = _arms(claim)
    return {
        "id": str(claim.get("id", "")),
        "anchor": "claim-" + slug(str(claim.get("id", ""))),
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
        "ci": interval(ci[0], ci[1], kind) if assessed else NONE,
        "n": count(claim.get("n")),
        "control_short": _control_short(claim),
        "control_name": who["control"],
        "control": control_sentence(claim, declared),
        "who": who,
        "tested": how_tested(claim, declared),
        "facts": _facts(claim, kind, unit),
        "needed": still_needed(claim),
        "reason": str(claim.get("reason") or ""),
        "limits": str(claim.get("limits") or ""),
        "choice": _choice(claim.get("baseline_choice")),
        "published": _published(claim, arms, unit),
        "arms": arms,
        "runs": _runs(claim, kind),
        "spark": _spark(claim, declared),
        "hash": str(claim.get("hash") or "")[:12],
    }


def slug(text: str) -> str:
    """`text` for an id or a class: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def mean_sd(values: list[float]) -> tuple[str, str]:
    """Mean and standard deviation (n − 1) as text; a dash for the deviation of one value."""
    return number(statistics.fmean(values)), number(statistics.stdev(values)) if len(values) > 1 else NONE


def interval_name() -> str:
    """What the interval is called: its level is a decision of common.study.statistics."""
    return f"{number(100 * LEVEL)} % interval"


def _facts(claim: Json, kind: str, unit: str) -> list[tuple[str, str]]:
    """Name and value of each number of the test; those that the file has not are left out."""
    if claim.get("effect") is None:
        return []
    ci, control = claim.get("ci") or (None, None), claim.get("control")
    facts = [("Effect", effect(claim["effect"], kind, unit)), (interval_name(), interval(ci[0], ci[1], kind))]
    if claim.get("margin"):
        facts.append(("Margin", effect(float(claim["margin"]), kind, unit)))
    facts.append(("Replicates", count(claim.get("n"))))
    facts += [
        (name, p_value(claim[key]))
        for key, name in (("p", "p"), ("p_holm", "p, Holm"))
        if claim.get(key) is not None
    ]
    if isinstance(control, dict) and control.get("effect") is not None:  # pyright: ignore
        low, high = control.get("ci") or (None, None)  # pyright: ignore
        facts.append(("Control", f"{effect(control['effect'], kind, unit)} {interval(low, high, kind)}"))  # pyright: ignore
    diverged: Mapping[str, Any] = claim.get("diverged") or {}
    if diverged:
        some = [f"{name} {count(times)}" for name, times in sorted(diverged.items()) if times]
        facts.append(("Diverged runs", ", ".join(some) or "none"))
    return facts


def _control_short(claim: Json) -> str:
    control: Any = claim.get("control")
    if not isinstance(control, dict) or control.get("passed") is None:  # pyright: ignore
        return NONE
    beaten = claim.get("kind") in ("superior", "ordering")
    if control["passed"]:
        return "beaten" if beaten else "rejected"
    return "not beaten" if beaten else "not rejected"


def _arms(claim: Json) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    diverged: Mapping[str, Any] = claim.get("diverged") or {}
    for label, values in dict(claim.get("values") or {}).items():
        numbers = [value for _, value in replicates(values)]
        if numbers:
            mean, sd = mean_sd(numbers)
            found.append(
                {
                    "label": str(label),
                    "mean": mean,
                    "sd": sd,
                    "n": count(len(numbers)),
                    "diverged": count(diverged.get(label) or 0),
                }
            )
    return found


def _runs(claim: Json, kind: str) -> dict[str, Any]:
    """Every replicate's value in every arm, and its paired effect."""
    values = {str(arm): dict(replicates(each)) for arm, each in dict(claim.get("values") or {}).items()}
    pairs = {str(pair.get("replicate")): pair.get("effect") for pair in claim.get("pairs") or []}
    keys = sorted({key for each in values.values() for key in each} | set(pairs), key=natural)
    rows = [
        [
            key,
            *(number(each.get(key)) for each in values.values()),
            *([effect(pairs.get(key), kind)] if pairs else []),
        ]
        for key in keys
    ]
    return {"columns": ["replicate", *values, *(["effect"] if pairs else [])], "rows": rows}


def _published(claim: Json, arms: list[dict[str, Any]], unit: str) -> list[dict[str, str]]:
    theirs = [
        {
            "label": str(each.get("label", "")),
            "value": with_unit(number(each.get("value")), str(each.get("unit") or "")),
            "source": str(each.get("source") or ""),
            "note": str(each.get("note") or ""),
        }
        for each in claim.get("published") or []
    ]
    if not theirs:
        return []
    ours = [
        {
            "label": arm["label"],
            "value": with_unit(f"{arm['mean']} ± {arm['sd']}", unit),
            "source": "this study",
            "note": f"mean ± SD, n = {arm['n']}",
        }
        for arm in arms
    ]
    return theirs + ours


def _choice(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value or "")
    chosen: Mapping[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
    return "; ".join(f"{name.replace('_', ' ')}: {_plain(each)}" for name, each in sorted(chosen.items()))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        each: Mapping[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return ", ".join(f"{name} {_plain(item)}" for name, item in sorted(each.items()))
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _spark(claim: Json, declared: Claim | None) -> dict[str, float | None] | None:
    """Positions (0 to 100) of the interval, the effect, zero and the edges of the claimed range."""
    centre = claim.get("effect")
    if centre is None or not math.isfinite(centre):
        return None
    ci = claim.get("ci") or (None, None)
    edges = [edge for edge in holds_between(claim, declared) if math.isfinite(edge)]
    zero = [0.0] if claim.get("kind") not in ("bound", "exponent") else []
    inside = [centre, *(end for end in ci if end is not None), *edges, *zero]
    low, span = min(inside), (max(inside) - min(inside)) or 1.0

    def place(value: float | None, open_end: float) -> float:
        return open_end if value is None else round(6 + (SPARK - 12) * (value - low) / span, 1)

    holds = holds_between(claim, declared)
    return {
        "low": place(ci[0], 0.0), "high": place(ci[1], SPARK), "centre": place(centre, 0.0),
        "zero": place(0.0, 0.0) if zero else None,
        "from": None if math.isnan(holds[0]) else place(holds[0], 0.0) if math.isfinite(holds[0]) else 0.0,
        "to": None if math.isnan(holds[1]) else place(holds[1], 0.0) if math.isfinite(holds[1]) else SPARK,
    }  # fmt: skip
