"""Whether rounding leaves anything of a perturbation."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from common.optim import vectors
from common.optim.vectors import Vector

NARROW = (torch.bfloat16, torch.float16)
MATMUL = cast(Any, torch.backends.mkldnn).matmul
"""Its ``fp32_precision`` says how oneDNN multiplies float32 matrices."""


def narrow_dtype(w: Sequence[Tensor], device: str) -> torch.dtype | None:
    """The 16-bit type to which weights are rounded in a forward pass here, or None.

    It looks at the weights themselves, at autocast, and at the switch that lets oneDNN compute float32 in bf16.
    """
    for p in w:
        if p.dtype in NARROW:
            return p.dtype
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) in NARROW:
        return torch.get_autocast_dtype(device)
    if device == "cpu" and MATMUL.fp32_precision == "bf16":
        return torch.bfloat16
    return None


@torch.no_grad()
def rounding_noise(w: Vector, eps: Vector, dtype: torch.dtype) -> float:
    """||round(w + eps) - round(w) - eps|| / ||eps||: above 1 the perturbation is mostly rounding.

    Args:
        w: weights.
        eps: perturbation.
        dtype: what they are rounded to.
    """
    noise = [(a + b).to(dtype).float() - a.to(dtype).float() - b.float() for a, b in zip(w, eps, strict=True)]
    length = vectors.norm(eps)
    return vectors.norm(noise) / length if length > 0 else 0.0


@contextmanager
def full_precision(device: str) -> Generator[None]:
    """Without autocast, and with true float32 products in oneDNN."""
    before = MATMUL.fp32_precision
    try:
        if before == "bf16":
            MATMUL.fp32_precision = "ieee"
        with torch.autocast(device, enabled=False):
            yield
    finally:
        if MATMUL.fp32_precision != before:
            MATMUL.fp32_precision = before
