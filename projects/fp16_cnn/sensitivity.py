"""How much each layer's precision changes the logits, and how many answers a change of that size turns.

    e_l(p) = |Y_l(p) - Y| / |Y|      Frobenius norms over images and classes; only layer l is in precision p

One forward per layer and precision, from that layer on: what lies before it is kept. The share of answers that an error
e turns is modelled by independent normal noise on the logits of image i, of deviation s_i = e |y_i| / sqrt(classes):

    D(e) = mean_i Phi(-m_i / (sqrt(2) s_i))      m_i: margin between the two largest logits
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from common.errors import BadInputError
from projects.fp16_cnn import reference
from projects.fp16_cnn.precision import PRECISIONS, Precision
from projects.fp16_cnn.program import Layer, Program

RANGE = (1e-9, 10.0)  # of errors that `error_for` looks at
HALVINGS = 60


@torch.no_grad()
def sensitivities(
    program: Program, x: Float[Tensor, "n c h w"], names: Sequence[str], batch: int = 100
) -> dict[str, dict[str, float]]:
    """Layer -> precision -> e_l(p), in fp32 arithmetic; f32 is 0, infinity where the logits are not finite.

    Raises:
        BadInputError: the logits are not finite in fp32 either.
    """
    lowered = [PRECISIONS[name] for name in names if name != "f32"]
    changed = {(layer.name, each.name): 0.0 for layer in program.layers for each in lowered}
    total = 0.0
    for part in x.split(batch):
        held = reference.values(program, part, torch.float32)
        exact = held[program.output]
        if not exact.isfinite().all():
            raise BadInputError(
                "the logits are not finite in fp32 either: look at the images and the weights."
            )
        total += float(exact.double().square().sum())
        for layer in program.layers:
            for each in lowered:
                off = _output(program, held, layer, each) - exact
                changed[layer.name, each.name] += float(off.double().square().sum())
    table: dict[str, dict[str, float]] = {layer.name: {"f32": 0.0} for layer in program.layers}
    for (layer, precision), squares in changed.items():
        table[layer][precision] = math.sqrt(squares / total) if math.isfinite(squares) else math.inf
    return table


def _output(program: Program, held: dict[str, Tensor], lowered: Layer, precision: Precision) -> Tensor:
    """The output with one layer in another precision; `held`: every value without that."""
    changed: dict[str, Tensor] = {}
    for node in program.nodes:
        if node is lowered:
            changed[node.name] = reference.compute(node, [held[name] for name in node.inputs], precision)
        elif any(name in changed for name in node.inputs):
            inputs = [changed.get(name, held[name]) for name in node.inputs]
            changed[node.name] = reference.compute(node, inputs, None)
    return changed.get(program.output, held[program.output])


def relative_error(found: Float[Tensor, "n classes"], exact: Float[Tensor, "n classes"]) -> float:
    """Relative change of logits, in the Frobenius norm."""
    return float((found.double() - exact).norm() / exact.double().norm())


def disagreement_at(error: float, logits: Float[Tensor, "n classes"]) -> float:
    """D(e): the expected share of answers that a relative error of the logits turns."""
    y = logits.double()
    largest = y.topk(2).values
    deviation = math.sqrt(2 / y.shape[1]) * error * y.norm(dim=1)
    return float(torch.special.ndtr(-(largest[:, 0] - largest[:, 1]) / deviation).mean())


def error_for(disagreement: float, logits: Float[Tensor, "n classes"]) -> float:
    """The largest error whose D(e) is within a share of answers.

    Raises:
        BadInputError: the share is not between 0 and 1/2.
    """
    if not 0 < disagreement < 0.5:
        raise BadInputError(
            f"a budget of changed answers must be a share between 0 and 0.5, not {disagreement}."
        )
    low, high = (math.log(end) for end in RANGE)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if disagreement_at(math.exp(middle), logits) <= disagreement:
            low = middle
        else:
            high = middle
    return math.exp(low)
