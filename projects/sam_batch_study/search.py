"""Stage `search`: learning rate and strength together, on seeds that no claim is tested on.

Every method has the same number of trials at a batch size: its learning rates times its strengths. If the best
learning rate lies at an end of a seed's grid, the grid goes on there once, by `extension` learning rates at every
strength: as many trials for every method. What is chosen (`choice`) is what a later stage reads out of the trials that
all search seeds have made: an extension counts where they all agree on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from common.errors import BadInputError
from common.files import read_json, write_json
from common.study.model import JobRef, Member, Metrics
from projects.sam_batch_study.plan import Net, Outcome
from projects.sam_batch_study.training import train

Trial = tuple[float, float]
Row = Mapping[str, Any]
TRIALS = "trials.json"
SMALLEST = 64  # the batch at which the base learning rate stands


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Train every trial and leave `trials.json`.

    Metrics, of the trial that is best by validation error among the fitted ones: `best_lr`, `best_rho`,
    `validation_error`; `trials`, and how many of them were `fitted`; `extended`, and `open` (the best learning rate
    still lies at an end).
    """
    cfg, batch = members[0].cfg, int(members[0].axes["batch"])
    options, judged = cfg["search"], str(cfg["train"]["judged"])
    points = trials(options, batch, str(cfg["rule"]["kind"]))
    found = train(members, [nets(i, points) for i in range(len(members))])
    tables = [rows(points, one.outcomes, judged) for one in found]
    more = [beyond(table, int(options["extension"])) for table in tables]
    late = [i for i, rates in enumerate(more) if rates]
    if late:
        added = [list(product(more[i], [float(rho) for rho in options["rhos"]])) for i in late]
        wanted = [nets(place, each) for place, each in enumerate(added)]
        for i, each, one in zip(
            late, added, train([members[i] for i in late], wanted, "extension"), strict=True
        ):
            tables[i] = tables[i] + rows(each, one.outcomes, judged)
    for member, table in zip(members, tables, strict=True):
        write_json(member.out / TRIALS, table)
    return [summary(table, extended=bool(rates)) for table, rates in zip(tables, more, strict=True)]


def nets(owner: int, points: Sequence[Trial]) -> list[Net]:
    """One net a trial."""
    return [Net(owner, 0, lr, rho) for lr, rho in points]


def rows(points: Sequence[Trial], outcomes: Sequence[Outcome], judged: str) -> list[Row]:
    """What is kept of each trial."""
    return [
        {
            "lr": lr,
            "rho": rho,
            "error": out.judged_by(judged),
            "fitted": out.fitted,
            "loss": _finite(out.train_loss),
        }
        for (lr, rho), out in zip(points, outcomes, strict=True)
    ]


def beyond(table: Sequence[Row], count: int) -> list[float]:
    """`count` learning rates more, in the ratio of the last two, where the best one lies at an end of the grid.

    None in the middle of the grid, and none where there is only one learning rate.
    """
    rates = sorted({float(row["lr"]) for row in table})
    at = rates.index(float(table[_best(table)]["lr"]))
    if len(rates) < 2 or 0 < at < len(rates) - 1:
        return []
    last, inner = (rates[0], rates[1]) if at == 0 else (rates[-1], rates[-2])
    return [round(last * (last / inner) ** step, 6) for step in range(1, count + 1)]


def summary(table: Sequence[Row], *, extended: bool) -> dict[str, float]:
    """The metrics of one seed."""
    best, rates = table[_best(table)], [row["lr"] for row in table]
    return {
        "best_lr": best["lr"],
        "best_rho": best["rho"],
        "validation_error": best["error"],
        "trials": len(table),
        "fitted": sum(row["fitted"] for row in table),
        "extended": float(extended),
        "open": float(best["lr"] in (min(rates), max(rates))),
    }


def trials(options: Mapping[str, Any], batch: int, kind: str) -> list[Trial]:
    """(learning rate, rho) of every trial: base · multiplier · scaling(B / 64), times each rho.

    Learning rates that coincide (at B = 64 both scalings are 1) are tried once.

    Raises:
        BadInputError: a rho that is no strength, for any rule but `sgd`, which has none.
    """
    rhos = [float(rho) for rho in options["rhos"]]
    wrong = [rho for rho in rhos if not (math.isfinite(rho) and rho > 0)]
    if wrong and kind != "sgd":
        raise BadInputError(
            f"search.rhos: rule.kind = {kind} needs rho > 0 and finite, not {wrong}; sgd is the one without."
        )
    base, ratio = float(options["lr"]), batch / SMALLEST
    scalings = {"sqrt": math.sqrt(ratio), "linear": ratio}
    rates = {
        round(base * float(times) * scaling, 6)
        for name, scaling in scalings.items()
        for times in options["multipliers"][name]
    }
    return list(product(sorted(rates), rhos))


def choice(inputs: Sequence[JobRef]) -> Trial:
    """(learning rate, rho) with the lowest mean validation error among the trials fitted on every search seed.

    Only trials that every search seed has made count. Where none fitted on every seed, fitting counts for less and
    the lowest error decides among the rest.

    Raises:
        BadInputError: the search seeds have no trial in common.
    """
    tables = [{(row["lr"], row["rho"]): row for row in read_json(one.folder / TRIALS)} for one in inputs]
    points = [point for point in tables[0] if all(point in table for table in tables)]
    if not points:
        raise BadInputError("the jobs of stage search have no trial in common: clean them and run again.")

    def rank(point: Trial) -> tuple[int, float]:
        misses = sum(not table[point]["fitted"] for table in tables)
        return misses, sum(table[point]["error"] for table in tables) / len(tables)

    return min(points, key=rank)


def _best(table: Sequence[Row]) -> int:
    return min(range(len(table)), key=lambda j: (not table[j]["fitted"], table[j]["error"]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
