"""What came of trained nets, and their weights on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.files import replacing
from projects.sam_batch_study.plan import Outcome

State = Mapping[str, Tensor]
WEIGHTS = "weights.pt"


@dataclass(frozen=True)
class Trained:
    """What came of the nets of one member.

    Attributes:
        outcomes: of each net, in the order asked for.
        weights: of the first net, state dicts of `models.build`: "last", and "loss 0.5" where it came so low; and
            "steps": when that was.
    """

    outcomes: Sequence[Outcome]
    weights: Mapping[str, State]


def save_weights(weights: Mapping[str, State], out: Path) -> None:
    """Leave them for the stage that measures curvature."""
    with replacing(out / WEIGHTS) as file:
        torch.save({name: dict(state) for name, state in weights.items()}, file)


def load_weights(folder: Path) -> dict[str, dict[str, Tensor]]:
    """What `save_weights` left."""
    return torch.load(folder / WEIGHTS, weights_only=True)
