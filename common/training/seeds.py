"""Randomness as a pure function of (seed, key), and the states of the global generators.

A sampler or an augmentation that draws from ``generator(seed, "augment", step, index)`` needs no state in a
checkpoint: it gives the same numbers after a resume, in any worker process and in any order.
"""

from __future__ import annotations

import hashlib
import operator
import random
from typing import Any

import numpy as np
import torch

Key = int | str


def stream(seed: int, *key: Key) -> int:
    """A 63-bit integer that depends on the seed and every part of the key, and on nothing else."""
    parts = [part if isinstance(part, str) else operator.index(part) for part in (seed, *key)]
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


def generator(seed: int, *key: Key, device: str = "cpu") -> torch.Generator:
    """A torch generator seeded by ``stream(seed, *key)`` (torch's CPU generator uses the low 32 bits of it)."""
    return torch.Generator(device).manual_seed(stream(seed, *key))


def numpy_generator(seed: int, *key: Key) -> np.random.Generator:
    """A numpy generator (Philox, counter-based) keyed by ``stream(seed, *key)``."""
    return np.random.Generator(np.random.Philox(key=stream(seed, *key)))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (all devices); once, at the start of a job."""
    random.seed(seed)
    np.random.seed(stream(seed, "numpy") & 0xFFFFFFFF)  # noqa: NPY002 (libraries still draw from it)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The states of the global generators of Python, numpy, torch and, where one is in use, CUDA."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()]
        if torch.cuda.is_initialized()
        else [],  # of this process's device
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what ``rng_state`` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])
