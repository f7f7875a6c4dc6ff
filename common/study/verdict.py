"""Verdicts on a study's claims, computed and never typed (design §5).

A claim of a kind is a range in which its effect has to lie (`contrast.claimed_range`). Its test is Student t and
sign-flip together, one-sided at 0.05 at every finite end of the range; Holm adjusts the p-values of the primary
claims, those of the opposite side likewise. The verdict is the first that applies:

    not assessed   at smoke, at a scale that the claim does not name, or on a machine that lacks what it requires
    invalid        runs missing, failed, ambiguous, or without a finite number
    inconclusive   more than half of an arm's runs diverged or never arrived (of a control: diverged; a control
                   that never arrives does what a sabotaged arm is for)
    contradicted   the test shows the effect outside the range; for an ordering, one pair reversed (Bonferroni)
    vacuous        the control shows that the test says nothing, see below
    supported      the test shows the effect inside the range; for an ordering, every neighbouring pair
    inconclusive   neither: `needed` is the number of replicates in all that would decide with 80 % power

Controls are gates, each at 0.05 without Holm. superior, ordering: the method has to beat its control, paired on
the same seeds, by the same test with the same margin; if it beats the baseline and not the control: vacuous.
noninferior, equivalent, bound, exponent: the control in the method's place must be contradicted, i.e. the same
two tests must show its effect outside the range (below -margin; beyond either margin; on the bad side of the
bound; a slope outside target ± margin). "Not supported" would not do: noise alone achieves it. If it is not
contradicted: vacuous, whatever the method's own test says, unless that contradicts the method itself.

identity, and bound or exponent without pairing, compare exact numbers: inside the range supported, else
contradicted; a control inside it: vacuous. They have no p-value and are not members of the Holm family.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from common.files import digest
from common.study.contrast import BEATEN, Contrast, Examined, check_claims, examine, is_tested
from common.study.evidence import Row, Sample, Values, WorstOf, matching
from common.study.model import Arm, Claim
from common.study.power import needed
from common.study.statistics import ALPHA, LEVEL, holm

Verdict = Literal["supported", "contradicted", "inconclusive", "not assessed", "vacuous", "invalid"]


@dataclass(frozen=True)
class Finding:
    """What the evidence says of one claim.

    Attributes:
        claim: the claim's id.
        verdict: see the module's docstring.
        reason: one or two sentences.
        effect, ci, pairs: of the decisive comparison; see `Contrast`. ci is the two-sided 90 % interval.
        n: replicates.
        p_t, p_sign, p: of the claimed side; p is the larger. None where exact numbers are compared.
        p_holm: p adjusted over the primary claims that the scale assesses; None for other claims.
        control: the comparison with (BEATEN kinds) or of (other kinds) the control.
        control_passed: whether the control did what it has to.
        parts: ordering: the comparison of every neighbouring pair.
        values: series label -> replicate -> value (a slope for kind exponent).
        diverged: arm label -> runs that diverged or never arrived; they count with their worst value.
        needed: replicates in all that would decide; vacuous: that would let the control do its part.
        baseline_choice: how a best arm was chosen, "" if none was.
    """

    claim: str
    verdict: Verdict
    reason: str
    effect: float | None = None
    ci: tuple[float, float] | None = None
    n: int = 0
    p_t: float | None = None
    p_sign: float | None = None
    p: float | None = None
    p_holm: float | None = None
    control: Contrast | None = None
    control_passed: bool | None = None
    parts: tuple[Contrast, ...] = ()
    pairs: Values = field(default_factory=dict[str, float])
    values: dict[str, Values] = field(default_factory=dict[str, Values])
    diverged: dict[str, int] = field(default_factory=dict[str, int])
    needed: int | None = None
    baseline_choice: str = ""


def judge(claims: Sequence[Claim], rows: Sequence[Row], scale: str, worst_of: WorstOf) -> list[Finding]:
    """One finding for each claim, in the order given.

    Args:
        claims: the study's claims.
        rows: its table, one row a job.
        scale: "laptop", or "laptop+<hash>" for a modified study, which is judged like its scale.
        worst_of: the worst value that a row takes for a metric if its run diverged.

    Raises:
        BadInputError: a claim that its kind cannot test, or two claims of one id.
    """
    check_claims(claims)
    examined = [examine(claim, rows, worst_of) for claim in claims]
    members = [claim.id for claim in family(claims, scale)]
    known = {
        claim.id: found for claim, found in zip(claims, examined, strict=True) if isinstance(found, Examined)
    }
    # A member without evidence keeps its place in the family, which is fixed before the run.
    raw = [(known[name].p, known[name].against) if name in known else (1.0, 1.0) for name in members]
    adjusted = dict(
        zip(members, zip(holm([p for p, _ in raw]), holm([a for _, a in raw]), strict=True), strict=True)
    )
    order = sorted(range(len(members)), key=lambda index: raw[index][0])
    levels = {members[index]: ALPHA / (len(members) - place) for place, index in enumerate(order)}
    return [
        _finding(
            claim,
            found,
            _scale_reason(claim, scale) or _machine_reason(claim, rows),
            adjusted.get(claim.id),
            levels.get(claim.id, ALPHA),
        )
        for claim, found in zip(claims, examined, strict=True)
    ]


def family(claims: Iterable[Claim], scale: str) -> list[Claim]:
    """The Holm family: primary claims that the scale assesses by a test."""
    return [
        claim for claim in claims if claim.primary and is_tested(claim) and not _scale_reason(claim, scale)
    ]


def claim_hash(claim: Claim) -> str:
    """Hex digest of everything that makes the claim what it is; not of `published` and `limits`."""
    return digest(
        {
            entry.name: _plain(getattr(claim, entry.name))
            for entry in fields(claim)
            if entry.name not in ("published", "limits") and (entry.name != "requires" or claim.requires)
        }
    )


def to_json(claim: Claim, finding: Finding) -> dict[str, Any]:
    """The claim's entry in claims.json (design §5): finite numbers, strings, lists; null for what is not known."""
    control = finding.control
    entry: dict[str, Any] = {
        "id": claim.id,
        "hash": claim_hash(claim),
        "statement": claim.statement,
        "source": claim.source,
        "kind": claim.kind,
        "primary": claim.primary,
        "metric": claim.metric.name,
        "unit": claim.metric.unit,
        "effect_kind": claim.effect,
        "margin": claim.margin,
        "alpha": ALPHA,
        "level": LEVEL,
        "method": claim.method.label,
        "baseline": claim.baseline.label if claim.baseline else None,
        "control": {"label": claim.control.label, "passed": finding.control_passed, **_numbers(control)}
        if claim.control
        else None,
        "verdict": finding.verdict,
        "reason": finding.reason,
        "effect": finding.effect,
        "ci": finding.ci,
        "n": finding.n,
        "p_t": finding.p_t,
        "p_sign": finding.p_sign,
        "p": finding.p,
        "p_holm": finding.p_holm,
        "needed": finding.needed,
        "diverged": finding.diverged,
        "baseline_choice": finding.baseline_choice,
        "pairs": [{"replicate": name, "effect": value} for name, value in finding.pairs.items()],
        "parts": [{"label": part.label, **_numbers(part)} for part in finding.parts],
        "values": finding.values,
        "published": [asdict(figure) for figure in claim.published],
    }
    return {key: _finite(value) for key, value in entry.items()}


def _scale_reason(claim: Claim, scale: str) -> str:
    """Why the scale does not assess the claim, "" if it does."""
    base = scale.partition("+")[0]
    if base == "smoke":
        return "The smoke scale only shows that everything runs."
    if base not in claim.scales:
        return f"The {base} scale cannot assess it; these can: {', '.join(claim.scales)}."
    return ""


def _machine_reason(claim: Claim, rows: Sequence[Row]) -> str:
    """Why the machine that ran the study cannot assess the claim, "" if it can."""
    if not claim.requires or not isinstance(claim.method, Arm):
        return ""
    lacking = any(row.get(claim.requires) == 0 for row in matching(claim.method, rows, "study"))
    return f"The machine that ran the study cannot run {claim.method.label}." if lacking else ""


def _finding(
    claim: Claim, found: Examined | str, unassessed: str, adjusted: tuple[float, float] | None, alpha: float
) -> Finding:
    if isinstance(found, str):
        reason = f"{unassessed} {found[:1].upper()}{found[1:]}.".strip()
        return Finding(claim.id, "not assessed" if unassessed else "invalid", reason)
    verdict, reason, more = _decide(claim, found, adjusted or (found.p, found.against), alpha)
    if unassessed:
        verdict, reason, more = "not assessed", unassessed, None
    main, samples = found.main, found.samples.values()
    test = main.test
    return Finding(
        claim.id,
        verdict,
        reason,
        main.effect,
        main.ci,
        len(main.pairs),
        *((test.p_t, test.p_sign, test.p) if test else (None, None, None)),
        adjusted[0] if adjusted else None,
        found.control,
        _control_passed(claim, found.control),
        found.parts if len(found.parts) > 1 else (),
        main.pairs,
        {sample.label: sample.values for sample in samples},
        {label: count + sample.late[label] for sample in samples for label, count in sample.diverged.items()},
        more,
        "; ".join(dict.fromkeys(sample.choice for sample in samples if sample.choice)),
    )


def _decide(
    claim: Claim, found: Examined, adjusted: tuple[float, float], alpha: float
) -> tuple[Verdict, str, int | None]:
    """Verdict, reason and the replicates needed, from adjusted p-values for and against the claim."""
    main, control, exact = found.main, found.control, found.main.test is None
    lost = _lost(claim, found.samples)
    if lost:
        return "inconclusive", f"More than half of the runs of {lost} diverged or never arrived.", None
    holds, fails = (main.inside, not main.inside) if exact else (adjusted[0] <= ALPHA, adjusted[1] <= ALPHA)
    if fails:
        return "contradicted", f"The effect lies outside the claimed range{_say(adjusted[1], exact)}.", None
    if control is not None and not _control_passed(claim, control) and (holds or claim.kind not in BEATEN):
        if claim.kind in BEATEN:
            more = _needed(control, ALPHA, side=1)
            return "vacuous", f"The method does not beat its control {control.label} by the same test.", more
        more = _needed(control, ALPHA, side=-1)
        return "vacuous", f"The test does not reject {control.label}, whose violation is known.", more
    if holds:
        return "supported", f"The effect lies inside the claimed range{_say(adjusted[0], exact)}.", None
    more = _needed(main, alpha)
    reason = f"Neither the claim nor its opposite is shown{_say(adjusted[0], exact)}"
    if len(main.pairs) < 2:
        return "inconclusive", f"{reason}; one replicate shows no spread.", None
    if more is None:
        return "inconclusive", f"{reason}; no affordable number of replicates would decide it.", None
    return "inconclusive", f"{reason}.", more


def _lost(claim: Claim, samples: Mapping[str, Sample]) -> str:
    """The first arm that lost more than half of its runs, "" if none did."""
    for label, sample in samples.items():
        gate = claim.control is not None and label == claim.control.label
        gate = gate and claim.control not in (claim.method, claim.baseline, *claim.order)
        for arm, runs in sample.runs.items():
            if 2 * (sample.diverged[arm] + (0 if gate else sample.late[arm])) > runs:
                return arm
    return ""


def _control_passed(claim: Claim, control: Contrast | None) -> bool | None:
    if control is None:
        return None
    return control.holds() if claim.kind in BEATEN else control.fails()


def _needed(part: Contrast, alpha: float, side: int = 0) -> int | None:
    """Replicates in all that would put `part` inside its range (side 1), outside (-1), or on either side (0).

    None for one that now lies on the wrong side, which more replicates would not help.
    """
    low, high = part.range
    distance = min(part.effect - low, high - part.effect)
    if part.test is None or side * distance < 0 or len(part.x) < 2:
        return None
    ends = (
        1 if distance > 0 else math.isfinite(low) + math.isfinite(high)
    )  # Bonferroni, as in Outcome.against
    return needed(len(part.x), distance, float(part.x.std(ddof=1)), alpha / ends)


def _say(p: float, exact: bool) -> str:
    return "" if exact else f" (p = {p:.2g})"


def _numbers(part: Contrast | None) -> dict[str, Any]:
    if part is None:
        return {"effect": None, "ci": None, "n": 0, "p": None}
    test = part.test
    return {
        "effect": part.effect,
        "ci": part.ci,
        "n": len(part.pairs),
        "p": test.p if test else None,
        "against": test.against if test else None,
    }


def _finite(value: Any) -> Any:
    """JSON without NaN and infinity: null in their place."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]  # pyright: ignore
    return value


def _plain(value: Any) -> Any:
    """A claim's part as JSON; 1 and 1.0 are one number, and a class is part of what it holds."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
        return {"type": type(value).__name__, **parts}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]  # pyright: ignore
    return int(value) if isinstance(value, float) and value.is_integer() else value
