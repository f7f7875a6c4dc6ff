"""Stage `retrain`: fresh seeds at what the search chose; the only numbers from test images that a claim reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.study.model import Member, Metrics
from projects.sam_batch_study.plan import Net, Outcome
from projects.sam_batch_study.search import choice
from projects.sam_batch_study.trained import save_weights
from projects.sam_batch_study.training import train


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Train `retrain.inits` nets for each seed and leave the weights of the first.

    Metrics, means over the initialisations: `test_error` (a net that did not fit counts with chance's error),
    `stopped_error` (test error at the look with the lowest validation error), `validation_error` and
    `stopped_validation_error` likewise, `train_loss`, `updates`, `norm` (‖g_1‖); `fitted` share; `lr`, `rho`.
    """
    cfg = members[0].cfg
    chosen = [choice(member.inputs["search"]) for member in members]
    inits = int(cfg["retrain"]["inits"])
    found = train(members, [[Net(i, init, *chosen[i]) for init in range(inits)] for i in range(len(members))])
    chance = 1.0 - 1.0 / int(cfg["images"]["classes"])
    for member, one in zip(members, found, strict=True):
        save_weights(one.weights, member.out)
    return [
        {**means(one.outcomes, chance), "lr": lr, "rho": rho}
        for one, (lr, rho) in zip(found, chosen, strict=True)
    ]


def means(outcomes: Sequence[Outcome], chance: float) -> dict[str, float]:
    """The metrics of one seed."""

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    return {
        "test_error": mean([one.test_error if one.fitted else chance for one in outcomes]),
        "stopped_error": mean([one.stopped_error for one in outcomes]),
        "validation_error": mean([one.validation_error for one in outcomes]),
        "stopped_validation_error": mean([one.stopped_validation_error for one in outcomes]),
        "train_loss": mean(
            [min(one.train_loss, 1e6) if np.isfinite(one.train_loss) else 1e6 for one in outcomes]
        ),
        "updates": mean([one.updates for one in outcomes]),
        "norm": mean([one.norm if np.isfinite(one.norm) else 0.0 for one in outcomes]),
        "fitted": mean([float(one.fitted) for one in outcomes]),
    }
