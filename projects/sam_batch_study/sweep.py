"""Stage `sweep`: the best rho of each seed, at the learning rate that the search chose.

rho* is the lowest point of the parabola, in log rho, through the lowest mean validation error among fitted strengths
and its two neighbours (`common.optim.tuning.lowest`). If the lowest lies at an end of the grid, the grid is extended
there once. A neighbour that did not fit counts with its own error, but with no less than the lowest: nothing that is
under-trained moves rho* its way by looking good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import BadInputError
from common.optim.tuning import lowest
from common.study.model import Member, Metrics
from projects.sam_batch_study.plan import Net
from projects.sam_batch_study.search import choice
from projects.sam_batch_study.trained import Trained
from projects.sam_batch_study.training import train


@dataclass(frozen=True)
class Point:
    """Means over the initialisations at one rho; `fitted` if all of them fitted."""

    error: float
    test_error: float
    norm: float
    fitted: bool


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: `best_rho` (rho*), `lr`, `extended` and `open` (the lowest still lies at an end), `norm` (mean ‖g_1‖,
    interpolated at rho*; not there if every net diverged), and `error_at_<rho>`, `test_error_at_<rho>` and
    `fitted_at_<rho>` of the grid.

    Raises:
        BadInputError: the grid is none, see `grid`.
    """
    cfg = members[0].cfg
    rhos, inits = grid(cfg["sweep"]), int(cfg["sweep"]["inits"])
    judged = str(cfg["train"]["judged"])
    rates = [choice(member.inputs["search"])[0] for member in members]

    def nets(i: int, values: Sequence[float]) -> list[Net]:
        return [Net(i, init, rates[i], rho) for rho in values for init in range(inits)]

    found = train(members, [nets(i, rhos) for i in range(len(members))])
    curves = [points(one, rhos, judged) for one in found]
    more = [beyond(curve) for curve in curves]
    late = [i for i, rho in enumerate(more) if rho is not None]
    if late:
        wanted = [
            [Net(place, net.init, net.lr, net.rho) for net in nets(i, [more[i] or 0.0])]
            for place, i in enumerate(late)
        ]
        for i, one in zip(late, train([members[i] for i in late], wanted, "extension"), strict=True):
            curves[i] = curves[i] | points(one, [more[i] or 0.0], judged)
    return [
        {"lr": rate, "extended": float(rho is not None), **best(curve), **columns(curve, rhos)}
        for rate, rho, curve in zip(rates, more, curves, strict=True)
    ]


def grid(options: Mapping[str, Any]) -> list[float]:
    """The strengths of `sweep.rhos`.

    Raises:
        BadInputError: fewer than two that differ, so that no parabola has a neighbour; or one without a logarithm.
    """
    rhos = [float(rho) for rho in options["rhos"]]
    if len(set(rhos)) < 2 or not all(math.isfinite(rho) and rho > 0 for rho in rhos):
        raise BadInputError(f"sweep.rhos needs at least two different rho > 0 and finite, not {rhos}.")
    return rhos


def points(one: Trained, rhos: Sequence[float], judged: str) -> dict[float, Point]:
    """Rho -> what its initialisations came to."""
    inits = len(one.outcomes) // len(rhos)
    found: dict[float, Point] = {}
    for j, rho in enumerate(rhos):
        mine = one.outcomes[j * inits : (j + 1) * inits]
        found[rho] = Point(
            float(np.mean([out.judged_by(judged) for out in mine])),
            float(np.mean([out.test_error for out in mine])),
            float(np.mean([out.norm for out in mine])),
            all(out.fitted for out in mine),
        )
    return found


def beyond(curve: Mapping[float, Point]) -> float | None:
    """One rho more, in the ratio of the last two, where the lowest error lies at an end of the grid."""
    rhos = sorted(curve)
    at = _lowest(curve, rhos)
    if at == 0:
        return rhos[0] ** 2 / rhos[1]
    return rhos[-1] ** 2 / rhos[-2] if at == len(rhos) - 1 else None


def best(curve: Mapping[float, Point]) -> dict[str, float]:
    """rho*, whether it is open, and the norm there, from those nets that have one."""
    rhos = sorted(curve)
    at = _lowest(curve, rhos)
    floor = curve[rhos[at]].error
    x = np.log(rhos)
    errors = [curve[rho].error if curve[rho].fitted else max(floor, curve[rho].error) for rho in rhos]
    errors[at] = floor
    near = slice(max(0, at - 1), at + 2)
    centre = lowest(x[near], np.array(errors[near]))
    found = {"best_rho": math.exp(centre), "open": float(at in (0, len(rhos) - 1))}
    known = [rho for rho in rhos if math.isfinite(curve[rho].norm)]  # not of a net that diverged
    if known:
        norms = np.log([max(curve[rho].norm, 1e-12) for rho in known])
        found["norm"] = float(np.exp(np.interp(centre, np.log(known), norms)))
    return found


def columns(curve: Mapping[float, Point], rhos: Sequence[float]) -> dict[str, float]:
    """The curve itself, for the table and its figures."""
    found: dict[str, float] = {}
    for rho in rhos:
        point = curve[rho]
        found[f"error_at_{rho:g}"] = point.error
        found[f"test_error_at_{rho:g}"] = point.test_error
        found[f"fitted_at_{rho:g}"] = float(point.fitted)
    return found


def _lowest(curve: Mapping[float, Point], rhos: Sequence[float]) -> int:
    return min(range(len(rhos)), key=lambda j: (not curve[rhos[j]].fitted, curve[rhos[j]].error))
