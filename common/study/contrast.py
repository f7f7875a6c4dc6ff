"""One comparison of a claim: the paired effects, their interval, and the test that the claim's kind asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common.errors import BadInputError
from common.study.evidence import Row, Sample, UnusableError, Values, WorstOf, effects, measure
from common.study.model import Arm, Best, Claim, Mix, Series
from common.study.statistics import ALPHA, Floats, Outcome, t_interval, within

BASELINE = ("superior", "noninferior", "equivalent", "identity")  # kinds that need one
CONTROL = ("superior", "noninferior", "equivalent", "bound", "exponent")
BEATEN = ("superior", "ordering")  # kinds whose control is beaten; elsewhere it takes the method's place


@dataclass(frozen=True)
class Contrast:
    """Effects of one comparison and what the test says of them.

    Attributes:
        label: the arm that is compared (for a control: the control).
        effect: mean of the effects; for kind identity the one farthest from zero.
        ci: two-sided 90 % Student t interval, each end a one-sided test at 0.05; not adjusted by Holm. An end
            is infinite when one replicate leaves it open. None where nothing is sampled.
        pairs: replicate -> effect.
        test: p-values; None where nothing is sampled (kind identity, or no pairing).
        inside: whether every single effect lies in the claimed range.
        range: the claimed range of the effect, (low, high), an open end infinite.
    """

    label: str
    effect: float
    ci: tuple[float, float] | None
    pairs: Values
    test: Outcome | None
    inside: bool
    range: tuple[float, float]

    @property
    def x(self) -> Floats:
        """The effects (n,), in the order of the replicates."""
        return np.array(list(self.pairs.values()), dtype=np.float64)

    def holds(self) -> bool:
        """The claim's test passes at one-sided 0.05, without Holm: how a control is judged."""
        return self.inside if self.test is None else self.test.p <= ALPHA

    def fails(self) -> bool:
        """The same test shows the opposite at 0.05: the effect lies outside the claimed range."""
        return not self.inside if self.test is None else self.test.against <= ALPHA


@dataclass(frozen=True)
class Examined:
    """All comparisons of one claim: one, or one for each neighbouring pair of an ordering; and its control's."""

    samples: dict[str, Sample]
    parts: tuple[Contrast, ...]
    control: Contrast | None

    @property
    def main(self) -> Contrast:
        """The comparison that is hardest to support."""
        return max(self.parts, key=lambda part: part.test.p if part.test else 0.0)

    @property
    def p(self) -> float:
        """For the claim: every part has to hold."""
        return max((part.test.p for part in self.parts if part.test), default=1.0)

    @property
    def against(self) -> float:
        """Against the claim: one part reversed is enough, so Bonferroni over the parts."""
        return min(
            1.0, len(self.parts) * min((part.test.against for part in self.parts if part.test), default=1.0)
        )


def is_tested(claim: Claim) -> bool:
    """Whether the claim is decided by p-values; else by comparing exact numbers."""
    return claim.kind != "identity" and bool(claim.pairing)


def claimed_range(claim: Claim) -> tuple[float, float]:
    """Where the effect has to lie: (low, high), an open end infinite."""
    margin = claim.margin
    match claim.kind:
        case "superior" | "ordering":
            return margin, math.inf
        case "noninferior":
            return -margin, math.inf
        case "equivalent" | "identity":
            return -margin, margin
        case "exponent":
            return claim.target - margin, claim.target + margin
        case "bound":
            return (margin, math.inf) if claim.metric.better == "higher" else (-math.inf, margin)


def contrast(claim: Claim, label: str, arm: Sample, other: Sample | None) -> Contrast:
    """Compare `arm` with `other`, or with the claimed range alone (bound, exponent).

    Raises:
        common.study.evidence.UnusableError: the two cannot be paired.
    """
    pairs = effects(claim, arm, other)
    x = np.array(list(pairs.values()), dtype=np.float64)
    low, high = claimed_range(claim)
    if is_tested(claim):
        inside = bool(np.all((low < x) & (x < high)))
        return Contrast(
            label, float(x.mean()), t_interval(x), pairs, within(x, low, high), inside, (low, high)
        )
    exact = claim.kind == "identity"
    inside = bool(np.all((low <= x) & (x <= high) if exact else (low < x) & (x < high)))
    farthest = float(x[np.argmax(np.abs(x))]) if exact else float(x.mean())
    return Contrast(label, farthest, None, pairs, None, inside, (low, high))


def examine(claim: Claim, rows: Sequence[Row], worst_of: WorstOf) -> Examined | str:
    """The claim's comparisons, or why the rows cannot give them."""
    try:
        samples = {label: measure(part, claim, rows, worst_of) for label, part in series_of(claim).items()}
        method = samples[claim.method.label]
        baseline = samples[claim.baseline.label] if claim.baseline else None
        if claim.kind == "ordering":
            chain = [samples[part.label] for part in claim.order]
            parts = tuple(
                contrast(claim, f"{better.label} against {worse.label}", better, worse)
                for better, worse in pairwise(chain)
            )
        else:
            parts = (contrast(claim, method.label, method, baseline),)
        if claim.control is None:
            return Examined(samples, parts, None)
        control = samples[claim.control.label]
        pair = (method, control) if claim.kind in BEATEN else (control, baseline)
        return Examined(samples, parts, contrast(claim, control.label, *pair))
    except UnusableError as error:
        return str(error)


def check_claims(claims: Sequence[Claim]) -> None:
    """Refuse what `check_claim` refuses, and two claims of one id.

    Raises:
        BadInputError: see there.
    """
    if len({claim.id for claim in claims}) < len(claims):
        raise BadInputError("two claims of the study have the same id: rename one in study.py.")
    for claim in claims:
        check_claim(claim)


def check_claim(claim: Claim) -> None:
    """Refuse a claim that its kind cannot test; meant to be called before anything runs.

    Raises:
        BadInputError: a part is missing, or does not fit the kind.
    """
    rules: dict[str, Callable[[], bool]] = {
        "needs a baseline": lambda: claim.kind not in BASELINE or claim.baseline is not None,
        "needs a negative control, an arm that its test must reject or that the method must beat": lambda: (
            claim.kind not in CONTROL or claim.control is not None
        ),
        "needs `order`, at least two arms, best first, of which the first is `method`": lambda: (
            claim.kind != "ordering" or (len(claim.order) > 1 and claim.order[0] == claim.method)
        ),
        "needs `axis`, the axis of sizes": lambda: (claim.kind == "exponent") == bool(claim.axis),
        "needs a margin above zero": lambda: claim.kind not in ("equivalent", "exponent") or claim.margin > 0,
        "needs a margin that is not negative": lambda: claim.kind == "bound" or claim.margin >= 0,
        "compares differences, not log ratios": lambda: (
            claim.kind not in ("bound", "exponent") or claim.effect == "difference"
        ),
        "needs replicates: name the axis of them in `pairing`": lambda: (
            bool(claim.pairing) or claim.kind in ("bound", "exponent", "identity")
        ),
        "may not be primary if the machine decides whether it is assessed": lambda: (
            not (claim.requires and claim.primary)
        ),
        "needs a label for each arm that no other arm of the claim has": lambda: _labels_unique(claim),
    }
    for rule, holds in rules.items():
        if not holds():
            raise BadInputError(f"claim {claim.id!r}, of kind {claim.kind}, {rule}: correct it in study.py.")


def series_of(claim: Claim) -> dict[str, Series]:
    """Every series that the claim reads, by label, in the order method, baseline, control, the rest."""
    parts = (claim.method, claim.baseline, claim.control, *claim.order)
    return {part.label: part for part in parts if part is not None}


def _labels_unique(claim: Claim) -> bool:
    seen: dict[str, Series] = {}
    parts = (claim.method, claim.baseline, claim.control, *claim.order)
    arms: list[Arm | Best] = [arm for part in parts if isinstance(part, Mix) for _, arm in part.terms]
    return all(seen.setdefault(part.label, part) == part for part in (*parts, *arms) if part is not None)
