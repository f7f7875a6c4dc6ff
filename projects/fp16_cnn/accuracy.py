"""Stage `accuracy`: what a precision does to a network's answers, against torch's fp32 and a float64 reference.

    error of an image = max_c |y_c - y*_c| / max_c |y*_c|           y* in float64
    upper bound of the share p of sources whose top-1 differs, k of n observed: the p with P(X <= k | n, p) = 0.05

(Clopper and Pearson 1934, one-sided). An image is a source, see `letters`; noise images are independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from common.study.model import Member, Metrics
from projects.fp16_cnn import execute, reference
from projects.fp16_cnn.module import logits
from projects.fp16_cnn.program import Layer, Program
from projects.fp16_cnn.subjects import Subject, of_job

ALPHA = 0.05
COARSE = "mantissa1"
"""The arm that must be rejected: fp32, but weights with 1 bit after the leading one (fp16 has 10, bf16 7)."""
BITS = 1
YARDSTICK = "f16e64"


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Judge one network in several precisions.

    Metrics: see `judged`; `accuracy` and `accuracy_f32` where there are labels; `native` (1: by the kernels);
    `error_over_flush64` and `log2_error_over_flush64`: the largest error over that of fp16 sums with flush 64.
    """
    first = members[0]
    learned = first.inputs.get("learn") or ()
    subject = of_job(first.cfg, learned[0].folder if learned else None)
    exact, base = wide(subject), logits(subject.net, subject.held)
    yardstick = answers(subject.program, YARDSTICK, subject.held)
    largest = float(relative_errors(yardstick, exact).max())
    found: list[Metrics] = []
    for member in members:
        name = str(member.axes["precision"])
        made = yardstick if name == YARDSTICK else answers(subject.program, name, subject.held)
        metrics = judged(made, base, exact)
        ratio = metrics["largest_relative_error"] / largest
        metrics |= {"error_over_flush64": ratio, "log2_error_over_flush64": math.log2(ratio)}
        metrics["native"] = float(execute.native(subject.program, "f32" if name == COARSE else name))
        if subject.labels is not None:
            metrics["accuracy"] = share(made.argmax(1) == subject.labels)
            metrics["accuracy_f32"] = share(base.argmax(1) == subject.labels)
        found.append(metrics)
    return found


def answers(program: Program, name: str, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    """Logits in a precision, or of the arm `COARSE`."""
    if name == COARSE:
        return execute.logits(coarse(program, BITS), "f32", x)
    return execute.logits(program, name, x)


def judged(
    found: Float[Tensor, "n classes"], base: Float[Tensor, "n classes"], exact: Float[Tensor, "n classes"]
) -> dict[str, float]:
    """`disagreement` in top-1 with `base`, `disagreement_upper` (exact, one-sided 95 %), `agreement`, `disagreeing`,
    `sources`; `largest_relative_error` and `median_relative_error` from `exact`.
    """
    differ = int((found.argmax(1) != base.argmax(1)).sum())
    errors = relative_errors(found, exact)
    return {
        "disagreement": differ / len(found),
        "disagreement_upper": upper_bound(differ, len(found)),
        "agreement": 1 - differ / len(found),
        "disagreeing": float(differ),
        "sources": float(len(found)),
        "largest_relative_error": float(errors.max()),
        "median_relative_error": float(errors.median()),
    }


def relative_errors(
    found: Float[Tensor, "n classes"], exact: Float[Tensor, "n classes"]
) -> Float[Tensor, " n"]:
    """Of each image."""
    return (found.double() - exact).abs().amax(1) / exact.abs().amax(1)


def upper_bound(k: int, n: int, alpha: float = ALPHA) -> float:
    """Largest share that k of n does not contradict at level alpha: exact, one-sided (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    return 1.0 if k >= n else float(betaincinv(k + 1, n - k, 1 - alpha))


def coarse(program: Program, bits: int) -> Program:
    """The program with its weights rounded to `bits` bits after the leading one; biases stay."""

    def changed(layer: Layer) -> Layer:
        mantissa, exponent = torch.frexp(layer.weight)
        scale = 2.0 ** (bits + 1)
        return replace(layer, weight=torch.ldexp(torch.round(mantissa * scale) / scale, exponent))

    nodes = tuple(changed(node) if isinstance(node, Layer) else node for node in program.nodes)
    return replace(program, nodes=nodes)


def wide(subject: Subject) -> Float[Tensor, "n classes"]:
    """The logits of the held-out images in float64."""
    return torch.cat([reference.run(subject.program, part) for part in subject.held.split(execute.BATCH)])


def share(right: Tensor) -> float:
    """Of True."""
    return float(right.float().mean())
