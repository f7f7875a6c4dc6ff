"""The arithmetic of the loss: cosines and sums of exponentials that neither overflow nor copy what is large."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Cosines(torch.autograd.Function):
    """Cosines of unit vectors x (b, d) with rows p (c, d) of any length, called by `Cosines.apply(x, p)`.

    With n_c = ‖p_c‖ and upstream gradient g, the gradients are Σ_c g_ic p_c / n_c of x_i and
    (Σ_i g_ic x_i − p_c Σ_i g_ic s_ic / n_c) / n_c of p_c. The same as normalising p, whose gradient by autograd takes
    longer than the products where classes are many: it passes six times over memory of p's size. Can itself be
    differentiated.
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "b d"], p: Float[Tensor, "c d"]) -> Float[Tensor, "b c"]:
        inverse = p.norm(dim=1).clamp_min_(1e-12).reciprocal_()
        s = (x @ p.T).mul_(inverse)
        ctx.save_for_backward(x, p, s, inverse)
        return s

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, p, s, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative needs it as a function of p
            inverse = p.norm(dim=1).clamp_min(1e-12).reciprocal()
        g = grads[0] * inverse
        along = (g * s).sum(0) * inverse
        return g @ p, (g.T @ x).addcmul_(p, along[:, None], value=-1)


def log1p_sum_exp(z: Float[Tensor, "b c"]) -> Float[Tensor, " c"]:
    """log(1 + Σ_i e^{z_ic}) for every column; z is overwritten. An entry of −inf counts as absent."""
    top = z.detach().amax(0).clamp_min_(0.0)  # at least the exponent of the 1
    return top + (z.sub_(top).exp_().sum(0) + torch.exp(-top)).log()


def grouped_log1p_sum_exp(
    z: Float[Tensor, " b"], place: Int64[Tensor, " b"], groups: int
) -> Float[Tensor, " p"]:
    """log(1 + Σ e^z) over the entries of each group.

    Args:
        z: exponents.
        place: the group of each, from 0.
        groups: their number.
    """
    top = torch.zeros(groups, dtype=z.dtype, device=z.device)  # the exponent of the 1
    top = top.scatter_reduce(0, place, z.detach(), "amax")
    return top + torch.exp(-top).index_add(0, place, torch.exp(z - top[place])).log()
