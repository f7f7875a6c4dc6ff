"""What a claim's numbers mean, in plain English: how it was tested, what was compared, what is still open."""

from __future__ import annotations

import math

from common.study.contrast import BEATEN, claimed_range
from common.study.model import Claim
from common.study.power import POWER
from common.study.report.data import Json, mapping, replicates
from common.study.report.numbers import count, effect, number, p_value

_TESTED = {
    "superior": "Each of the {n}replicates pairs {method} with {baseline} of the same {pairing}. The claim needs "
    "the paired effect to lie above {margin}, by the one-sided Student t interval and by the exact sign-flip test, "
    "each at 5 %.",
    "noninferior": "Each of the {n}replicates pairs {method} with {baseline} of the same {pairing}. The claim needs "
    "the paired effect to lie above {minus_margin}, by the one-sided Student t interval and by "
    "the exact sign-flip test, each at 5 %: worse by less than the margin is not worse.",
    "equivalent": "Each of the {n}replicates pairs {method} with {baseline} of the same {pairing}. Two one-sided "
    "tests at 5 % must show the paired effect inside ±{margin}.",
    "ordering": "Each neighbouring pair of arms in the claimed order is tested as a superiority claim over the "
    "same {n}replicates; all of them must hold. The effect shown is that of the pair that is hardest to support.",
    "exponent": "The slope of log {metric} against log {axis} (Theil–Sen) must lie within {margin} of {target}{by}.",
    "bound": "{metric} of {method} must lie {side} {margin}{by}.",
    "identity": "{method} and {baseline} must agree within {margin} in every one of the {n}replicates.",
}
_BY = ", by the one-sided Student t interval and by the exact sign-flip test over {n}replicates, each at 5 %"
_CONTROL = {
    "superior": "The same test must also show {method} better than the control, {control}: otherwise the verdict is "
    "vacuous.",
    "ordering": "The first arm must also beat {control} by the same test: otherwise the verdict is vacuous.",
}
_ASSAY = (
    "The same test, with {control} in the method’s place, must reject the claim, which that arm is known to "
    "violate: otherwise the verdict is vacuous."
)


_TASKS = "Inside a replicate all {tasks} are averaged{how}."


def unit_of(claim: Json) -> str:
    """The unit of a claim's effect: the metric's, but a slope of logarithms has none."""
    return "" if claim.get("kind") == "exponent" else str(claim.get("unit") or "")


def names(claim: Json) -> dict[str, str]:
    """The labels of method, baseline and control; "" for one that the claim has not."""
    return {
        "method": str(claim.get("method") or "the method"),
        "baseline": str(claim.get("baseline") or ""),
        "control": str(mapping(claim.get("control")).get("label") or ""),
    }


def arm_values(claim: Json, declared: Claim | None) -> dict[str, list[tuple[str, float]]]:
    """Every arm's (replicate, value): the method first, then what it is compared with, the control last."""
    who, found = names(claim), mapping(claim.get("values"))
    chain = [part.label for part in declared.order] if declared else []
    others = [name for name in found if name != who["control"]]
    order = dict.fromkeys([who["method"], *chain, who["baseline"], *others, who["control"]])
    arms = {name: replicates(mapping(found[name])) for name in order if name in found}
    return {name: values for name, values in arms.items() if values}


def how_tested(claim: Json, declared: Claim | None) -> str:
    """How the verdict was reached, in two or three sentences."""
    who = names(claim)
    kind, unit = str(claim.get("effect_kind") or "difference"), unit_of(claim)
    margin = float(claim.get("margin") or 0.0)
    n = f"{count(claim['n'])} " if claim.get("n") else ""
    words = {
        **who,
        "n": n,
        "by": _BY.format(n=n) if claim.get("p") is not None else "",
        "metric": str(claim.get("metric") or "the metric").replace("_", " "),
        "margin": effect(margin, kind, unit),
        "minus_margin": effect(-margin, kind, unit),
        "pairing": declared.pairing if declared else "seed",
        "side": "above" if declared and declared.metric.better == "higher" else "below",
        "axis": declared.axis if declared else "size",
        "target": number(declared.target) if declared else "the claimed exponent",
    }
    tested = _TESTED.get(str(claim.get("kind")), "").format(**words)
    sentences = [tested.replace("Each of the 1 replicates", "The one replicate")]
    if declared and declared.tasks:
        logs = declared.effect == "log_ratio" or declared.kind == "exponent"
        how = " geometrically, since logarithms are compared" if logs else ""
        sentences.append(
            _TASKS.format(tasks=" and ".join(f"values of {axis}" for axis in declared.tasks), how=how)
        )
    if who["control"]:
        sentences.append(_CONTROL.get(str(claim.get("kind")), _ASSAY).format(**words))
    if claim.get("p_holm") is not None:
        sentences.append(
            "As a primary claim its p value is corrected by Holm’s method over the primary claims."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def holds_between(declared: Claim | None) -> tuple[float, float] | None:
    """The range of effects for which the claim holds; None for a claim that study.py no longer states."""
    return claimed_range(declared) if declared else None


def axis_label(claim: Json, declared: Claim | None) -> str:
    """The abscissa of a forest plot, with its unit and which side is better."""
    metric = with_bracket(str(claim.get("metric") or "effect"), str(claim.get("unit") or ""))
    better = f"{names(claim)['method']} is better"
    match claim.get("kind"):
        case "bound":
            return metric
        case "exponent":
            return slope_label(claim, declared)
        case "ordering":
            return f"difference in {metric}: right of 0, the order is as claimed"
        case _ if claim.get("effect_kind") == "log_ratio":
            return f"ratio in {metric}: right of ×1, {better}"
        case _:
            return f"difference in {metric}: right of 0, {better}"


def slope_label(claim: Json, declared: Claim | None) -> str:
    """What an exponent is the slope of."""
    metric = str(claim.get("metric") or "the metric").replace("_", " ")
    return f"slope of log {metric} against log {declared.axis if declared else 'size'}"


def with_bracket(text: str, unit: str) -> str:
    """``text (unit)``, or the text alone; a unit that stands in brackets gets no second pair."""
    bracket = unit if unit.startswith("(") or not unit else f"({unit})"
    return f"{text.replace('_', ' ')} {bracket}".strip()


def claimed(declared: Claim | None, kind: str) -> str:
    """Where a claim says that its effect lies: ``> 0``, ``±0.15``, ``×0.952 to ×1.05``; "" for one no longer stated."""
    low, high = holds_between(declared) or (-math.inf, math.inf)
    if math.isfinite(low) and math.isfinite(high):
        if kind != "log_ratio" and low == -high:
            return f"±{effect(high, kind)}"
        return f"{effect(low, kind)} to {effect(high, kind)}"
    if math.isfinite(low):
        return f"> {effect(low, kind)}"
    return f"< {effect(high, kind)}" if math.isfinite(high) else ""


def reason(claim: Json, declared: Claim | None) -> str:
    """Why the verdict is what it is; what more replicates would do is said by `still_needed`."""
    text = str(claim.get("reason") or "")
    if claim.get("verdict") != "inconclusive" or claim.get("needed") is None:
        return text
    text, ci = text.partition(";")[0].rstrip(".") + ".", claim.get("ci")
    side = _side(declared, ci[0], ci[1]) if ci and None not in ci else ""
    if side and claim.get("p_holm") is not None:
        text += f" The interval, which is not corrected for several claims, lies {side} the claimed range."
    return text


def still_needed(claim: Json, declared: Claim | None) -> str:
    """How many more replicates would decide an inconclusive claim, or let a vacuous one's control do its part."""
    needed, n = claim.get("needed"), claim.get("n") or 0
    if needed is None:
        return ""
    if claim.get("verdict") == "vacuous":
        what = "let the control do its part"
    else:
        side = _side(declared, claim["effect"], claim["effect"])
        what = {"inside": "show the claim", "outside": "show the opposite"}.get(side, "decide")
    more = max(1, needed - n)
    return (
        f"About {count(more)} more replicate{'' if more == 1 else 's'}, {count(n + more)} in all, would {what} with "
        f"{count(100 * POWER)} % power, if effect and spread are as estimated."
    )


def _side(declared: Claim | None, low: float, high: float) -> str:
    """Whether an interval lies ``inside`` or ``outside`` the claimed range; "" where it lies across an edge."""
    holds = holds_between(declared)
    if holds is None:
        return ""
    if holds[0] < low and high < holds[1]:
        return "inside"
    return "outside" if high < holds[0] or holds[1] < low else ""


def control_sentence(claim: Json) -> str:
    """What the negative control did."""
    control = mapping(claim.get("control"))
    if not control:
        return ""
    passed, who = control.get("passed"), names(claim)
    if passed is None:
        return "It was not assessed."
    value = effect(control.get("effect"), str(claim.get("effect_kind") or ""), unit_of(claim))
    told = f"effect {value}{_with_p(control.get('p'))}"
    if claim.get("kind") in BEATEN:
        return f"{who['method']} {'beats' if passed else 'does not beat'} it: {told}."
    against = control.get("against")
    return f"The test {'rejects' if passed else 'does not reject'} it: effect {value}{_with_p(against)}."


def _with_p(p: float | None) -> str:
    if p is None:
        return ""
    text = p_value(p)
    return f", p {text}" if text.startswith("<") else f", p = {text}"
