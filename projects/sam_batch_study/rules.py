"""How a stack of nets takes its gradient: the rules of `common.optim.rules`, for all rows at once.

With g_1 the gradient at w and rho the row's strength:

    sgd     g_1
    sam     mean over the B/m perturbation batches of ∇L(w + rho g_1/‖g_1‖), g_1 that batch's own
    random  ∇L(w + rho z/‖z‖), z normal, the same for all rows of a seed: the control
    penalty (1 − a) g_1 + a ∇L(w + rho g_1/‖g_1‖), a < 1: the gradient of L + a rho ‖∇L‖ (Zhao et al. 2022)

The first `sub` examples of each perturbation batch may stand for all in g_1. Over several processes each perturbation
batch is spread over all of them, and every gradient is their mean: `Rule.part`. tests/projects/sam_batch_study checks
each against `common.optim.sharpness`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from common.errors import BadInputError, unknown
from common.processes.shares import mean_
from common.training.seeds import generator
from projects.sam_batch_study.mlp import backprop

Kind = Literal["sgd", "sam", "random", "penalty"]
ROWS = 2048  # examples of all nets in one pass, at most: its activations stay in a core's cache


@dataclass(frozen=True)
class Rule:
    """A rule and its batches.

    Attributes:
        kind: see above.
        batch: B.
        m: the perturbation batch, a divisor of B.
        sub: of each m examples only the first so many give g_1.
        share: a of the gradient-norm penalty.
    """

    kind: Kind
    batch: int
    m: int
    sub: int
    share: float = 1.0

    def part(self, processes: int) -> Rule:
        """Of one of so many processes, which holds an equal part of each perturbation batch.

        Raises:
            BadInputError: the examples that perturb cannot be dealt out.
        """
        if self.sub % processes or self.m % processes:
            raise BadInputError(
                f"rule: {processes} processes must divide m = {self.m} and the {self.sub} examples of it that "
                "perturb; take fewer, or train by jobs."
            )
        return replace(self, batch=self.batch // processes, m=self.m // processes, sub=self.sub // processes)


@dataclass(frozen=True)
class Stack:
    """What a stack of nets trains on.

    Attributes:
        widths: of the layers, input first.
        rho: (k,) the strength of each row.
        seeds: (seed, initialisation) of each row.
    """

    widths: tuple[int, ...]
    rho: Float[Tensor, " k"]
    seeds: tuple[tuple[int, int], ...]


def gradient(
    rule: Rule,
    stack: Stack,
    rows: Float[Tensor, "k p"],
    x: Float[Tensor, "k b d"],
    y: Int64[Tensor, "k b"],
    step: int,
) -> tuple[Float[Tensor, "k p"], Float[Tensor, " k"]]:
    """The gradient that the base optimiser gets; ‖g_1‖, its mean over the perturbation batches.

    Of `random` it is the norm of the gradient at w + eps: there is no other.
    """
    return RULES[rule.kind](rule, stack, rows, x, y, step)


def rule_of(options: Mapping[str, Any], batch: int) -> Rule:
    """The rule of a config section `rule` at a batch size: m examples, or B / `parts` where m is null.

    Raises:
        BadInputError: an unknown kind, a size below 1, or sizes that do not divide each other.
    """
    kind = str(options["kind"])
    if kind not in get_args(Kind):
        raise unknown("rule.kind", kind, get_args(Kind))
    for name in ("m", "parts", "sub_parts"):
        if options[name] is not None and int(options[name]) < 1:
            raise BadInputError(f"rule.{name} must be at least 1, not {options[name]}.")
    m, rest = (int(options["m"]), 0) if options["m"] is not None else divmod(batch, int(options["parts"]))
    sub, over = divmod(m, int(options["sub_parts"]))
    if rest or over or batch % m:
        raise BadInputError(
            f"rule: m = {m} and its {options['sub_parts']} parts must divide batch = {batch}."
        )
    return Rule(cast("Kind", kind), batch, m, sub, float(options["share"]))


def _sgd(rule: Rule, stack: Stack, rows: Tensor, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
    g = _mean(backprop(rows, stack.widths, x, y))
    return g, g.norm(dim=1)


def _sam(rule: Rule, stack: Stack, rows: Tensor, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
    k, groups, m, sub = len(rows), rule.batch // rule.m, rule.m, rule.sub
    x, y = x.reshape(k * groups, m, -1), y.reshape(k * groups, m)
    head = x[:, :sub].reshape(k, groups * sub, -1), y[:, :sub].reshape(k, groups * sub)
    g1 = _mean(backprop(rows, stack.widths, *head, groups))
    norms = g1.norm(dim=1)
    base = rows if groups == 1 else rows.repeat_interleave(groups, 0)
    reach = stack.rho.repeat_interleave(groups) / norms.clamp_min(1e-30)
    g = _mean(backprop(torch.addcmul(base, g1, reach[:, None]), stack.widths, x, y))
    if rule.kind == "penalty":
        g = torch.lerp(g1, g, rule.share)
    return g if groups == 1 else g.view(k, groups, -1).mean(1), norms.view(k, groups).mean(1)


def _random(rule: Rule, stack: Stack, rows: Tensor, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
    units = {key: _direction(*key, step, rows) for key in dict.fromkeys(stack.seeds)}
    z = torch.stack([units[key] for key in stack.seeds])
    g = _mean(backprop(torch.addcmul(rows, z, stack.rho[:, None]), stack.widths, x, y))
    return g, g.norm(dim=1)


def _mean(found: tuple[Tensor, Tensor]) -> Tensor:
    """The gradients of loss and gradients, over all processes."""
    mean_(found[1:])
    return found[1]


def _direction(seed: int, init: int, step: int, like: Tensor) -> Tensor:
    z = torch.randn(like.shape[1], generator=generator(seed, "direction", init, step), dtype=like.dtype)
    return z / z.norm()


RULES: Mapping[Kind, Callable[..., tuple[Tensor, Tensor]]] = {
    "sgd": _sgd,
    "sam": _sam,
    "random": _random,
    "penalty": _sam,
}


def blocks(nets: int, batch: int) -> Sequence[slice]:
    """Nets in groups that share one pass; no result depends on it."""
    size = max(1, ROWS // batch)
    return [slice(i, min(i + size, nets)) for i in range(0, nets, size)]
