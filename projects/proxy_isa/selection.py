"""Stage `selection`: how much higher MAP@R stands when the look is chosen by it.

by_test      chosen on the test classes, as released, over chosen on held-out classes: the optimism
unselected   the mean over all looks, over chosen on held-out classes: the control
"""

from __future__ import annotations

from collections.abc import Sequence

from common.study.model import Member, Metrics


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: `gain` in MAP@R of single models, mean over the folds."""
    return [gain(member) for member in members]


def gain(member: Member) -> Metrics:
    """Of one seed; nothing of one whose rule was inert."""
    metrics = member.inputs["learn"][0].metrics
    name = {"by_test": "selected_by_test", "unselected": "unselected"}[str(member.axes["chosen"])]
    return {} if metrics["inert"] else {"gain": metrics[name] - metrics["selected_by_held"]}
