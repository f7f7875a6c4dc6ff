"""Two passes that see the same randomness and leave one trace: generators, buffers, parameters."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.optim import vectors
from common.optim.vectors import Vector


def random_state(generators: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """The states of the global generators of Python, numpy and torch, and of the user's own."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 (libraries still draw from it)
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "own": [each.get_state() for each in generators],
    }


def set_random_state(state: dict[str, Any], generators: Sequence[torch.Generator] = ()) -> None:
    """Put back what ``random_state`` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    for each, own in zip(generators, state["own"], strict=True):
        each.set_state(own)


@contextmanager
def held_buffers(module: nn.Module | None) -> Generator[None]:
    """Every buffer ends as it began, in place: running statistics, their counters, spectral norms."""
    modules = [] if module is None else list(module.modules())
    buffers = [(each, *named) for each in modules for named in each.named_buffers(recurse=False)]
    before = [buffer.clone() for _, _, buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for (each, name, buffer), value in zip(buffers, before, strict=True):
                buffer.copy_(value)
                if getattr(each, name) is not buffer:
                    setattr(each, name, buffer)  # the module had put another tensor there


class Perturbed:
    """Parameters that stand at w + eps inside a ``with``, and bit for bit at w, where they were, after it.

    Adding eps and taking it away again would drift; a new ``data`` would break whatever holds the old one
    (CUDA graphs, flat parameters, averages). So w is copied out and copied back.
    """

    def __init__(self) -> None:
        self._room: dict[Tensor, Tensor] = {}

    @contextmanager
    def __call__(self, w: Vector, eps: Vector) -> Generator[None]:
        """Move `w` by `eps` for a while."""
        room = [self._at(p) for p in w]
        with torch.no_grad():
            vectors.copy_(room, w)
        try:
            with torch.no_grad():
                vectors.add_(w, eps)
            yield
        finally:
            with torch.no_grad():
                vectors.copy_(w, room)
            torch.clear_autocast_cache()  # nothing after the step may see copies of w + eps

    def _at(self, p: Tensor) -> Tensor:
        room = self._room.get(p)
        if room is None or room.dtype != p.dtype or room.device != p.device:
            room = self._room[p] = torch.empty_like(p)
        return room
