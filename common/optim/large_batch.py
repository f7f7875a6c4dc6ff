"""LARS and LAMB for large batches: those of timm, with the settings of the papers.

timm's LARS leaves out the adaptation where there is no weight decay, which is what is wanted for biases and norms; its
learning rate stands outside the momentum, as torch's does, and not inside as in the paper: the same for a constant
rate. timm's LAMB clips the gradient to norm 1 unless told not to; clipping is ``Settings.clip`` here.
(pytorch_optimizer's LARS is right too, but overwrites the gradient.)
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer


def groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and kernels with weight decay; biases, norms and other vectors without."""
    params = [p for p in module.parameters() if p.requires_grad]
    decayed = {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay}
    free = {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0}
    return [group for group in (decayed, free) if group["params"]]


def lars(
    module: nn.Module, lr: float, *, momentum: float = 0.9, weight_decay: float = 1e-4, trust: float = 1e-3
) -> Optimizer:
    """v <- momentum v + r (g + decay w), w <- w - lr v, r = trust ||w|| / (||g|| + decay ||w||) for each tensor.

    You et al., 2017 (arXiv 1708.03888); biases and norms by plain momentum (r = 1, no decay).
    """
    from timm.optim.lars import Lars

    make: Any = Lars  # its annotations are those of its defaults: momentum an int
    return make(groups(module, weight_decay), lr, momentum=momentum, trust_coeff=trust, eps=0.0)


def lamb(
    module: nn.Module,
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.01,
) -> Optimizer:
    """w <- w - lr (||w|| / ||u||) u, u = m^ / (sqrt(v^) + eps) + decay w for each tensor, m^ and v^ as in Adam.

    You et al., ICLR 2020, with phi the identity; biases and norms by Adam (ratio 1, no decay).
    """
    from timm.optim.lamb import Lamb

    return Lamb(groups(module, weight_decay), lr, betas=betas, eps=eps, max_grad_norm=None)
