"""What a claim's numbers mean, in plain English: how it was tested, what was compared, what is still open."""

from __future__ import annotations

import math
from typing import Any

from common.study.model import Claim
from common.study.report.data import Json
from common.study.report.numbers import count, effect, number, p_value, with_unit

# claims.json carries labels; an older file without them falls back on the study's own.
_TESTED = {
    "superior": "Each of the {n} replicates pairs {method} with {baseline}: same seed, hence the same "
    "initialisation and data order. The claim needs the paired effect to lie above {margin}, by the "
    "one-sided Student t interval and by the exact sign-flip test, each at 5 %.",
    "noninferior": "Each of the {n} replicates pairs {method} with {baseline} on the same seed. The claim needs "
    "the paired effect to lie above {minus_margin}, by the one-sided Student t interval and by "
    "the exact sign-flip test, each at 5 %: worse by less than the margin is not worse.",
    "equivalent": "Each of the {n} replicates pairs {method} with {baseline} on the same seed. Two one-sided "
    "tests at 5 % must show the paired effect inside ±{margin}.",
    "ordering": "Each neighbouring pair of arms in the claimed order is tested as a superiority claim over the "
    "same {n} seeds; all of them must hold.",
    "exponent": "The slope of log {metric} against log {axis} (Theil–Sen) must lie within {margin} of "
    "{target}.",
    "bound": "{metric} of {method} must lie on the good side of {margin}, by the one-sided Student t interval "
    "over {n} replicates at 5 %.",
    "identity": "{method} and {baseline} must agree within {margin} in every one of the {n} replicates.",
}
_CONTROL = {
    "superior": "The same test must also show {method} better than {control}, which lacks the method's key term: "
    "otherwise the verdict is vacuous.",
    "ordering": "The first arm must also beat {control} by the same test: otherwise the verdict is vacuous.",
}
_ASSAY = (
    "The same test, with {control} in the method's place, must reject the claim, which that arm is known to "
    "violate: otherwise the verdict is vacuous."
)


def label(value: Any, fallback: str) -> str:
    """A series' label, whether the file has it as a string or as an object with a label."""
    if isinstance(value, dict):
        value = value.get("label")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return str(value) if value else fallback  # pyright: ignore[reportUnknownArgumentType]


def names(claim: Json, declared: Claim | None) -> dict[str, str]:
    """The labels of method, baseline and control; "" for one that the claim has not."""

    def declared_label(part: str) -> str:
        series = getattr(declared, part, None) if declared else None
        return series.label if series else ""

    return {
        "method": label(claim.get("method"), declared_label("method") or "the method"),
        "baseline": label(claim.get("baseline"), declared_label("baseline")),
        "control": label(claim.get("control"), declared_label("control")),
    }


def how_tested(claim: Json, declared: Claim | None) -> str:
    """How the verdict was reached, in two or three sentences."""
    who = names(claim, declared)
    kind, unit = str(claim.get("effect_kind") or "difference"), str(claim.get("unit") or "")
    margin = float(claim.get("margin") or 0.0)
    words = {
        **who,
        "n": count(claim.get("n")),
        "metric": str(claim.get("metric") or "the metric"),
        "margin": effect(margin, kind, unit),
        "minus_margin": effect(-margin, kind, unit),
        "axis": declared.axis if declared else "size",
        "target": number(declared.target) if declared else "the claimed exponent",
    }
    sentences = [_TESTED.get(str(claim.get("kind")), "").format(**words)]
    if who["control"]:
        sentences.append(_CONTROL.get(str(claim.get("kind")), _ASSAY).format(**words))
    if claim.get("p_holm") is not None:
        sentences.append(
            "As a primary claim its p value is corrected by Holm's method over the primary claims."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def holds_between(claim: Json, declared: Claim | None) -> tuple[float, float]:
    """The range of effects for which the claim holds; NaN where the file does not say."""
    margin = float(claim.get("margin") or 0.0)
    match claim.get("kind"):
        case "superior" | "ordering":
            return margin, math.inf
        case "noninferior":
            return -margin, math.inf
        case "equivalent" | "identity":
            return -margin, margin
        case "exponent" if declared:
            return declared.target - margin, declared.target + margin
        case "bound" if declared:
            return (margin, math.inf) if declared.metric.better == "higher" else (-math.inf, margin)
        case _:
            return math.nan, math.nan


def axis_label(claim: Json, declared: Claim | None) -> str:
    """The abscissa of a forest plot, with its unit and which side is better."""
    metric, unit = str(claim.get("metric") or "effect"), str(claim.get("unit") or "")
    method = names(claim, declared)["method"]
    match claim.get("kind"):
        case "bound":
            return with_bracket(metric, unit)
        case "exponent":
            return f"slope of log {metric} against log {declared.axis if declared else 'size'}"
        case _ if claim.get("effect_kind") == "log_ratio":
            return f"ratio in {with_bracket(metric, unit)}: right of ×1, {method} is better"
        case _:
            return f"difference in {with_bracket(metric, unit)}: right of 0, {method} is better"


def with_bracket(text: str, unit: str) -> str:
    """``text (unit)``, or the text alone."""
    return f"{text.replace('_', ' ')} ({unit})" if unit else text.replace("_", " ")


def still_needed(claim: Json) -> str:
    """How many more replicates would probably decide an inconclusive claim, "" when it is decided."""
    if claim.get("verdict") != "inconclusive":
        return ""
    needed, n = claim.get("needed"), claim.get("n")
    if needed is None:
        return "No affordable number of further replicates is expected to decide it, if the effect is as estimated."
    # `needed` is the total that the power calculation asks for, never fewer than one more.
    more = max(1, round(float(needed)) - round(float(n or 0)))
    return (
        f"About {count(more)} more replicates ({count(float(n or 0) + more)} in all) would decide it with "
        "80 % power, if the effect and its spread are as estimated."
    )


def control_sentence(claim: Json, declared: Claim | None) -> str:
    """What the negative control did."""
    control = claim.get("control")
    if not isinstance(control, dict):
        return ""
    kind = str(claim.get("effect_kind") or "difference")
    passed: object = control.get("passed")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if passed is None:
        return "The control was not assessed."
    superior = claim.get("kind") in ("superior", "ordering")
    value = effect(control.get("effect"), kind, str(claim.get("unit") or ""))  # pyright: ignore
    p = p_value(control.get("p"))  # pyright: ignore
    did = "beats" if passed else "does not beat"
    if superior:
        return f"{names(claim, declared)['method']} {did} it by {value} (p {_equals(p)})."
    return f"The test {'rejects' if passed else 'does not reject'} it: effect {value} (p {_equals(p)})."


def unit_text(value: float | None, unit: str) -> str:
    """A value of the metric with its unit."""
    return with_unit(number(value), unit)


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"
