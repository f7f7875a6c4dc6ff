"""Logits of a program under a plan: by the kernels where the CPU has their instructions, else by the reference."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from common.errors import BadInputError
from projects.fp16_cnn import cpu, reference
from projects.fp16_cnn.network import compile_network
from projects.fp16_cnn.program import Plan, Program, precisions

BATCH = 50
"""Images in one call: small enough that activations stay in cache."""


def native(program: Program, plan: Plan) -> bool:
    """Whether this CPU has every instruction that the plan asks for."""
    return {precision.name for precision in precisions(program, plan).values()} <= set(cpu.available())


def logits(program: Program, plan: Plan, x: Float32[Tensor, "n c h w"]) -> Float32[Tensor, "n classes"]:
    """Run all images; the same numbers, but for the order of fp32 sums, whichever way they are computed.

    Raises:
        BadInputError: the plan or the images do not fit the program, or a logit is not finite.
    """
    batch = min(BATCH, len(x))
    if not native(program, plan):
        made = torch.cat([reference.run(program, part, torch.float32, plan) for part in x.split(batch)])
        if not made.isfinite().all():
            raise BadInputError(
                f"logits under the plan {plan} are not finite: values exceed what a layer can store."
            )
        return made
    network = compile_network(program, plan, batch)
    found: list[Tensor] = []
    for part in x.split(batch):
        filled = torch.cat([part, part[:1].expand(batch - len(part), -1, -1, -1)])
        found.append(torch.as_tensor(network.run(filled.numpy()))[: len(part)])
    return torch.cat(found)
