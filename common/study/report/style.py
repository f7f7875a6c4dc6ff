"""Colours and words that the figures, the report and the dashboard share.

Figures are drawn in the light palette. Each colour has a dark twin; a style sheet swaps them where the reader
prefers dark, so a figure is readable on both, and in a viewer that knows no style sheets it is the light one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from common.study.model import Arm, Best, Claim, Mix, Series, Study

INK, MUTED, GRID, PAPER, SHADE = "#24292e", "#6a727b", "#d9dde1", "#fdfdfc", "#eaf1ec"
_BASE_DARK = {INK: "#e4e6e8", MUTED: "#9aa3ad", GRID: "#3a4047", PAPER: "#16191d", SHADE: "#22302a"}
# Ten hues of similar weight, told apart by the common forms of colour blindness in their first six.
_ARMS = {
    "#2b6cb0": "#78b0ee", "#c4531d": "#f0925f", "#23845a": "#62c493", "#8450ab": "#c098e4",
    "#a67408": "#e2b44f", "#12808c": "#54c2cd", "#b93a72": "#ee88b3", "#66751a": "#b6c35a",
    "#566270": "#a9b4c1", "#835138": "#cc9d84",
}  # fmt: skip
ARM_COLOURS = tuple(_ARMS)

VERDICTS: dict[str, tuple[str, str]] = {
    "supported": ("✓", "the data show it, and the control shows that they could have failed to"),
    "contradicted": ("✗", "the data show the opposite"),
    "inconclusive": (
        "?",
        "neither the claim nor its opposite passes its tests, which for primary claims are corrected",
    ),
    "vacuous": (
        "∅",
        "the test does as well without what the claim is about, or cannot reject a known violation: it shows nothing",
    ),
    "invalid": ("!", "runs are missing or failed"),
    "not assessed": ("–", "this scale, or this machine, cannot answer it"),
}


def badge(verdict: str) -> str:
    """The verdict as plain text, e.g. ``✓ supported``: legible without colour."""
    symbol = VERDICTS.get(verdict, ("", ""))[0]
    return f"{symbol} {verdict}".strip()


def figure_css(scope: str = "svg") -> str:
    """Rules that swap the figures' colours in a dark setting."""
    rules = [
        f'{scope} [style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in {**_BASE_DARK, **_ARMS}.items()
        for kind in ("fill", "stroke")
    ]
    return "@media (prefers-color-scheme: dark){" + "".join(rules) + "}"


def palette() -> list[tuple[str, str]]:
    """The arms' colours as (light, dark)."""
    return list(_ARMS.items())


def arms(series: Series | None) -> tuple[Arm, ...]:
    """The arms that a series is made of."""
    match series:
        case Arm():
            return (series,)
        case Best():
            return series.arms
        case Mix():
            return tuple(arm for _, term in series.terms for arm in arms(term))
        case None:
            return ()


def claim_series(claim: Claim) -> tuple[Series, ...]:
    """Every series that a claim names, the method first."""
    named = (claim.method, claim.baseline, claim.control, *claim.order)
    return tuple(series for series in named if series is not None)


class Colours:
    """The colour of each arm: the same in every figure of a project.

    Labels get colours in the order in which the claims name them; the value of an axis (a line of a learning
    curve) takes the colour of the first arm that stands for it.
    """

    def __init__(self, study: Study) -> None:
        self._of: dict[str, str] = {}
        self._axis: dict[tuple[str, str], str] = {}
        for claim in study.claims:
            for series in claim_series(claim):
                for arm in (*arms(series), series):
                    self.label(arm.label)
                for arm in arms(series):
                    for axis, value in arm.where.items():
                        self._axis.setdefault((axis, str(value)), self._of[arm.label])

    def label(self, label: str) -> str:
        """The colour of an arm's label."""
        return self._of.setdefault(label, ARM_COLOURS[len(self._of) % len(ARM_COLOURS)])

    def lines(self, axis: str, values: Iterable[str]) -> Mapping[str, str]:
        """The colours of an axis's values, no two alike while the palette lasts, then each as often as the others."""
        chosen: dict[str, str] = {}
        for value in values:
            used = Counter(chosen.values())
            fewest = min(used[colour] for colour in ARM_COLOURS)
            free = [colour for colour in ARM_COLOURS if used[colour] == fewest]
            own = self._axis.get((axis, value))
            chosen[value] = own if own in free else free[0]
        return chosen
