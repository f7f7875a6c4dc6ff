"""Stage `probe`: the curvature where a net ended, and on the way there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.curvature.alignment import gradient_cosine, perturbation_snr
from common.curvature.edge import sam_edge, stability_limit
from common.curvature.lanczos import lambda_max
from common.curvature.landscape import Landscape
from common.curvature.sharpness import m_sharpness
from common.curvature.trace import hessian_trace
from common.errors import BadInputError
from common.study.model import Member, Metrics
from common.tracking.record import Recorder
from projects.sam_batch_study.models import build
from projects.sam_batch_study.plan import LEVELS, WORST_LAMBDA, plan_of
from projects.sam_batch_study.rules import rule_of
from projects.sam_batch_study.sources import splits, tensors
from projects.sam_batch_study.trained import load_weights


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """One seed after the other."""
    return [measure(member) for member in members]


def measure(member: Member) -> Metrics:
    """Of the first net of a seed, over its whole training set.

    Metrics at the last weights: `lambda_max`, `trace`, `m_sharpness` (batches of `probe.m`, radius `probe.rho`: the
    same for all arms), `gradient_norm`, `cosine` of g_1 and g_2, `snr` of the perturbation; `middle_lambda` and
    `middle_norm` (geometric means over the levels of training loss that it crossed).

    The history has a row for each level: `train_loss`, `lambda_max`, `gradient_norm`, and for SAM whose m is the
    training set also `full_batch_edge` and `full_batch_edge_ratio`, of the decayed Hessian.

    One bad net costs its stack nothing. Where it diverged, `lambda_max` is the worst that a claim knows, and nothing
    else is told of the last weights. Where it crossed no level there is no `middle_...`, and where it crossed one at
    the last look, after which no learning rate is left, no edge.
    """
    options, done = member.cfg["probe"], member.inputs["retrain"][0]
    data = splits(int(member.axes["seed"]), member.cfg["images"])
    x, y = tensors(data.train)
    weights = load_weights(done.folder)
    model = build(member.cfg["net"], data.shape, data.classes)
    landscape = Landscape(model, nn.functional.cross_entropy, x, y, chunk=int(options["chunk"]))
    middle: list[tuple[float, float]] = []
    with Recorder(member.out) as record:
        for level in levels(options):
            if f"loss {level:g}" in weights:
                model.load_state_dict(weights[f"loss {level:g}"])
                middle.append(
                    _on_the_way(member, landscape, record, level, int(weights["steps"][f"loss {level:g}"]))
                )
    model.load_state_dict(weights["last"])
    return {**_at_the_end(landscape, options), **_middle(middle)}


def _at_the_end(landscape: Landscape, options: Mapping[str, Any]) -> dict[str, float]:
    g = _gradient(landscape)
    if g is None:
        return {"lambda_max": WORST_LAMBDA}
    rho, m = float(options["rho"]), int(options["m"])
    top = lambda_max(landscape, tolerance=1e-2, steps=int(options["lanczos"])).value
    return {
        # nothing is worse than the worst; 0 beside a gradient is that of a dead net
        "lambda_max": top if 0 < top < WORST_LAMBDA else WORST_LAMBDA,
        "trace": hessian_trace(landscape, products=int(options["products"])).value,
        "m_sharpness": m_sharpness(landscape, rho, m, steps=int(options["ascent"])),
        "gradient_norm": float(g.norm()),
        "cosine": gradient_cosine(landscape, rho),
        "snr": perturbation_snr(landscape, m),
    }


def _gradient(landscape: Landscape) -> Tensor | None:
    """At the model's weights; None where loss, gradient or the curvature along it is not finite."""
    w = landscape.weights()
    try:
        g = landscape.gradient(w)[1]
        landscape.hvp(w, g)  # overflows first: at finite losses of some 1e20, too
    except BadInputError:
        return None
    return g


def _middle(found: Sequence[tuple[float, float]]) -> dict[str, float]:
    if not found:
        return {}
    way = torch.tensor(found).log().mean(0).exp()
    return {"middle_lambda": float(way[0]), "middle_norm": float(way[1])}


def levels(options: Mapping[str, Any]) -> list[float]:
    """The training losses of `probe.levels`.

    Raises:
        BadInputError: one at which training keeps no weights.
    """
    wanted = [float(level) for level in options["levels"]]
    strange = sorted(set(wanted) - set(LEVELS))
    if strange:
        raise BadInputError(f"probe.levels: weights are kept at training losses {LEVELS}, not at {strange}.")
    return wanted


def _on_the_way(
    member: Member, landscape: Landscape, record: Recorder, level: float, step: int
) -> tuple[float, float]:
    value, g = landscape.gradient(landscape.weights())
    norm = float(g.norm())
    top = lambda_max(landscape, tolerance=1e-2, steps=int(member.cfg["probe"]["lanczos"])).value
    row = {"train_loss": value, "level": level, "lambda_max": top, "gradient_norm": norm}
    done, batch = member.inputs["retrain"][0], int(member.axes["batch"])
    rule, plan = rule_of(member.cfg["rule"], batch), plan_of(member.cfg, batch)
    rate = done.metrics["lr"] * plan.rate(step)
    if rule.kind == "sam" and rule.m == len(landscape.inputs) and done.metrics["rho"] > 0 and rate > 0:
        limit = stability_limit(rate, plan.momentum)
        edge = sam_edge(norm, done.metrics["rho"], limit, plan.decay, decay_inside=False)
        row |= {"full_batch_edge": edge, "full_batch_edge_ratio": (top + plan.decay) / edge}
    record.log(step, **row)
    return top, norm
