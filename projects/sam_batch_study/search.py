"""Stage `search`: learning rate and strength together, on seeds that no claim is tested on.

Every method has the same number of trials at a batch size: its learning rates times its strengths. What is chosen
(`choice`) is what a later stage reads out of the trials of all search seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from common.errors import BadInputError
from common.files import read_json, write_json
from common.study.model import JobRef, Member, Metrics
from projects.sam_batch_study.plan import Net
from projects.sam_batch_study.training import train

TRIALS = "trials.json"
SMALLEST = 64  # the batch at which the base learning rate stands


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Train every trial and leave `trials.json`.

    Metrics, of the trial that is best by validation error among the fitted ones: `best_lr`, `best_rho`,
    `validation_error`; `trials`, and how many of them were `fitted`.
    """
    cfg, batch = members[0].cfg, int(members[0].axes["batch"])
    points = trials(cfg["search"], batch)
    found = train(members, [[Net(i, 0, lr, rho) for lr, rho in points] for i in range(len(members))])
    judged = str(cfg["train"]["judged"])
    metrics: list[Metrics] = []
    for member, one in zip(members, found, strict=True):
        table = [
            {
                "lr": lr,
                "rho": rho,
                "error": out.judged_by(judged),
                "fitted": out.fitted,
                "loss": _finite(out.train_loss),
            }
            for (lr, rho), out in zip(points, one.outcomes, strict=True)
        ]
        write_json(member.out / TRIALS, table)
        best = min(range(len(table)), key=lambda j: (not table[j]["fitted"], table[j]["error"]))
        metrics.append(
            {
                "best_lr": table[best]["lr"],
                "best_rho": table[best]["rho"],
                "validation_error": table[best]["error"],
                "trials": len(table),
                "fitted": sum(row["fitted"] for row in table),
            }
        )
    return metrics


def trials(options: Mapping[str, Any], batch: int) -> list[tuple[float, float]]:
    """(learning rate, rho) of every trial: base · multiplier · scaling(B / 64), times each rho.

    Learning rates that coincide (at B = 64 both scalings are 1) are tried once.
    """
    base, ratio = float(options["lr"]), batch / SMALLEST
    scalings = {"sqrt": math.sqrt(ratio), "linear": ratio}
    rates = {
        round(base * float(times) * scaling, 6)
        for name, scaling in scalings.items()
        for times in options["multipliers"][name]
    }
    return list(product(sorted(rates), [float(rho) for rho in options["rhos"]]))


def choice(inputs: Sequence[JobRef]) -> tuple[float, float]:
    """(learning rate, rho) with the lowest mean validation error among the trials fitted on every search seed.

    Where no trial fitted on every seed, fitting counts for less and the lowest error decides among the rest.

    Raises:
        BadInputError: the search seeds have not tried the same.
    """
    tables = [read_json(one.folder / TRIALS) for one in inputs]
    points = [(row["lr"], row["rho"]) for row in tables[0]]
    if any([(row["lr"], row["rho"]) for row in table] != points for table in tables):
        raise BadInputError("the jobs of stage search have different trials: clean them and run again.")

    def rank(j: int) -> tuple[int, float]:
        misses = sum(not table[j]["fitted"] for table in tables)
        return misses, sum(table[j]["error"] for table in tables) / len(tables)

    return points[min(range(len(points)), key=rank)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
