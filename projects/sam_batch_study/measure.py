"""What a net makes of images, batch by batch, and a copy of its weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.processes.parts import whole_state
from projects.sam_batch_study.sources import Chosen, in_order

EXAMPLES = 512  # in one pass without gradient, where net.chunk says nothing


@torch.no_grad()
def measure(
    model: nn.Module, part: Chosen, device: torch.device, batch: int = EXAMPLES, workers: int = 0
) -> tuple[float, float]:
    """Mean cross-entropy, and the share of wrong answers (1 for a net of NaN), in evaluation mode."""
    was, loss, wrong = model.training, 0.0, 0
    model.eval()
    for x, y in in_order(part, batch, workers):
        said, truth = model(x.to(device)), y.to(device)
        loss += float(functional.cross_entropy(said, truth, reduction="sum"))
        wrong += int((said.argmax(-1) != truth).sum())
    model.train(was)
    return loss / len(part), wrong / len(part) if math.isfinite(loss) else 1.0


def copied(model: nn.Module) -> dict[str, Tensor]:
    """Its state dict, whole, in memory of its own, on the CPU."""
    return {name: value.to("cpu", copy=True) for name, value in whole_state(model).items()}
