"""A model held still while it is probed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def frozen(model: nn.Module) -> Generator[None]:
    """Evaluation mode (batch norm uses its running statistics, dropout is off); each module's mode is put back.

    Flags are set directly: `eval()` may be overridden to do more. Gradients are on even inside `no_grad` or inference
    mode, and attention takes its plain kernel: the fused ones have no second derivative.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for module, training in modes:
            module.training = training
