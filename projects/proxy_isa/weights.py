"""The schedule of Proxy-ISA: the weight of every pair as a pure function of the state of the classes.

Of class c: n_c samples counted so far, h_c its hardness level (1 before the memory opens). s_ic is the cosine of
embedding i and proxy c, y_i the class of i. Source: Li, Sato, Yokota (arXiv 2211.10382) as released, `losses.py` of
github.com/rioyokotalab/ProxyISA, restated:

    (1) E_c = (1 − b^{n_c}) / (1 − b),  b = (V − 1)/V                  effective number: 0, rising to V
    (2) b_c = 1 / (1 + log(1 + E_c))                                   base weight
    (3) w_c = 1 + (1 + e^{−tau}) (b_c − 1) / (1 + e^{V − tau − E_c})   1 until E_c is near V, then b_c
    (4) r_c = width ((1 + k (1 − h_c)) b_c + lambda)                   half-width of the region; as released width = 1
    (5) t_c = h_c − r_c                                                threshold
    (6) m_ic, c = y_i:   w_c where s > h_c (easy) or s < t_c (hard);  1 + w_c between (informative)
    (7) m_ic, c != y_i:  1 / max(1, E_c) where s < t_c (easy);  else 1

(6) holds once the filter is open and is 1 before; (7) holds from the first step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from common.errors import BadInputError, unknown

Weight = Literal["exponent", "coefficient"]
Weighting = Literal["both", "positives", "negatives", "none"]
Down = Literal["both", "hard", "easy", "neither"]
Control = Literal["none", "permuted", "mean"]


@dataclass(frozen=True)
class Rule:
    """What the loss does; the defaults are the released ones, except that `start` and `filter` count steps.

    Attributes:
        alpha: scale of the exponents.
        delta: margin.
        volume: V, above 1. As released it suits 60 images a class: w_c stays 1 until about 4 V samples were counted.
        k: how far hardness widens the region.
        lam: lambda, the least half-width.
        width: what the half-width is multiplied by. As released 1, with which a pair may never be hard.
        hardness: factor of the mean similarity in h_c.
        tau: how long before saturation the gate of (3) opens.
        start: training batches before the memory opens; as released two epochs.
        filter: training batches before (6) holds and hard samples are neither counted nor remembered; as released
            an epoch after `start`.
        capacity: features in the memory; 0 is no memory: h_c stays 1. A batch's size is hardness from that batch.
        weight: m multiplies the exponent (as released: a temperature of each pair) or the pair's term.
        weighting: the signs that are weighted; the others have m = 1. `none` is Proxy-Anchor.
        down: which positives and negatives are weighted down; those that are not count as informative, which is
            1 + w_c of (6) and 1 of (7). `hard` leaves all negatives at 1. Counting and memory are not touched.
        control: weights permuted among the pairs of the same sign and class, or each sign's batch mean.
    """

    alpha: float = 32.0
    delta: float = 0.1
    volume: float = 100.0
    k: float = 0.9
    lam: float = 0.1
    width: float = 1.0
    hardness: float = 0.15
    tau: float = 1.5
    start: int = 0
    filter: int = 0
    capacity: int = 55_000
    weight: Weight = "exponent"
    weighting: Weighting = "both"
    down: Down = "both"
    control: Control = "none"

    def __post_init__(self) -> None:
        names = {"weight": Weight, "weighting": Weighting, "down": Down, "control": Control}
        for name, valid in names.items():
            if getattr(self, name) not in get_args(valid):
                raise unknown(f"rule.{name}", str(getattr(self, name)), get_args(valid))
        for name, low, strict in BOUNDS:
            value = getattr(self, name)
            if not (value > low if strict else value >= low) or value == float("inf"):
                raise BadInputError(f"rule.{name} = {value}: give a number {'>' if strict else '>='} {low}.")


BOUNDS = (
    ("alpha", 0, True), ("volume", 1, True), ("k", 0, False), ("lam", 0, False), ("width", 0, True),
    ("hardness", 0, False), ("tau", 0, False), ("start", 0, False), ("filter", 0, False), ("capacity", 0, False),
)  # fmt: skip


def rule_of(options: Mapping[str, Any]) -> Rule:
    """The rule of a config section.

    Raises:
        BadInputError: an unknown name or a value out of range.
    """
    names = [each.name for each in fields(Rule)]
    for name in options:
        if name not in names:
            raise unknown("rule option", name, names)
    return Rule(**options)


class Schedule(NamedTuple):
    """Equations (1)-(5), and the h_c they came from; each (classes,) in the dtype of h_c."""

    effective: Float[Tensor, " c"]
    base: Float[Tensor, " c"]
    weight: Float[Tensor, " c"]
    half_width: Float[Tensor, " c"]
    threshold: Float[Tensor, " c"]
    hardness: Float[Tensor, " c"]


def schedule(rule: Rule, counted: Int64[Tensor, " c"], hardness: Float[Tensor, " c"]) -> Schedule:
    """Equations (1)-(5) from n_c and h_c."""
    effective = effective_number(counted, rule.volume).to(hardness.dtype)
    base = base_weight(effective)
    weight = class_weight(effective, base, rule.volume, rule.tau)
    width = rule.width * half_width(base, hardness, rule.k, rule.lam)
    return Schedule(effective, base, weight, width, hardness - width, hardness)


def effective_number(counted: Int64[Tensor, " c"], volume: float) -> Float[Tensor, " c"]:
    """Equation (1), in float64: 1 − b^n cancels in float32 where V is large."""
    return torch.expm1(counted.double() * math.log1p(-1.0 / volume)) * -volume


def base_weight(effective: Float[Tensor, " c"]) -> Float[Tensor, " c"]:
    """Equation (2)."""
    return 1.0 / (1.0 + torch.log1p(effective))


def class_weight(
    effective: Float[Tensor, " c"], base: Float[Tensor, " c"], volume: float, tau: float
) -> Float[Tensor, " c"]:
    """Equation (3); the gate 1/(1 + e^{V − tau − E}) as a sigmoid, since e^V overflows."""
    return 1.0 + (1.0 + math.exp(-tau)) * (base - 1.0) * torch.sigmoid((effective - volume) + tau)


def half_width(
    base: Float[Tensor, " c"], hardness: Float[Tensor, " c"], k: float, lam: float
) -> Float[Tensor, " c"]:
    """Equation (4) with width = 1; the threshold (5) is h_c less the half-width."""
    return (1.0 + k * (1.0 - hardness)) * base + lam


def positive_weights(
    s: Float[Tensor, " b"], labels: Int64[Tensor, " b"], state: Schedule, down: Down = "both"
) -> Float[Tensor, " b"]:
    """Equation (6) for each sample's own proxy; `down` as in `Rule`."""
    w = state.weight.index_select(0, labels)
    informative = torch.ones_like(s, dtype=torch.bool)
    if down in ("both", "easy"):
        informative &= s <= state.hardness.index_select(0, labels)
    if down in ("both", "hard"):
        informative &= s >= state.threshold.index_select(0, labels)
    return w + informative


def negative_weights(s: Float[Tensor, "b c"], state: Schedule, down: Down = "both") -> Float[Tensor, "b c"]:
    """Equation (7) for every pair; the columns of the samples' own classes mean nothing."""
    if down in ("hard", "neither"):
        return torch.ones_like(s)
    return torch.where(s < state.threshold, 1.0 / state.effective.clamp_min(1.0), 1.0)


def permuted(
    m: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], draw: torch.Generator
) -> Float[Tensor, "b c"]:
    """Weights permuted within each column, among the positives and among the negatives: a control.

    Args:
        m: the weights of all pairs.
        labels: class of each row.
        draw: a CPU generator; the same one gives the same permutation on every device.
    """
    positive = torch.zeros(m.shape, device=m.device).scatter_(1, labels[:, None], 2.0)
    keys = torch.rand(m.shape, generator=draw).to(m.device)
    before = (positive + keys).argsort(
        dim=0
    )  # each column: its negatives in random order, then its positives
    after = positive.argsort(dim=0, stable=True)  # each column: its negatives, then its positives
    return torch.empty_like(m).scatter_(0, after, m.gather(0, before))
