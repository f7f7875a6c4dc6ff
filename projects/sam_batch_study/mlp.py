"""Stacked multilayer perceptrons: K nets with ReLU and cross-entropy, each one row of a matrix.

Row k holds W_1, b_1, W_2, b_2, ... of net k, so that a step of all nets, its norms and its perturbations are a few
operations on one matrix. Every product is a batched one in which a net's part does not depend on the others': a
stack gives the bits of its members alone. The backward pass is written out, because autograd would neither give a
gradient for each perturbation batch nor write into rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from common.training.seeds import generator

Layers = list[tuple[Tensor, Tensor]]


def parameters(widths: Sequence[int]) -> int:
    """P: weights and biases of one net with layers of these widths, input first."""
    return sum(a * b + b for a, b in pairwise(widths))


def initial(widths: Sequence[int], seed: int, number: int = 0) -> Float[Tensor, " p"]:
    """He's normal weights (He et al. 2015, equation 10), biases zero; a pure function of (seed, number)."""
    draw = generator(seed, "initial weights", number)
    parts: list[Tensor] = []
    for a, b in pairwise(widths):
        parts += [torch.randn(a * b, generator=draw) * (2.0 / a) ** 0.5, torch.zeros(b)]
    return torch.cat(parts)


def layers(rows: Float[Tensor, "k p"], widths: Sequence[int]) -> Layers:
    """Weights (k, in, out) and biases (k, 1, out) of each layer, as views of the rows."""
    found: Layers = []
    start, k = 0, len(rows)
    for a, b in pairwise(widths):
        bias = start + a * b
        found.append((rows[:, start:bias].view(k, a, b), rows[:, bias : bias + b].view(k, 1, b)))
        start = bias + b
    return found


def logits(
    rows: Float[Tensor, "k p"], widths: Sequence[int], x: Float[Tensor, "k b d"]
) -> Float[Tensor, "k b classes"]:
    """What each net says of its own examples."""
    return _forward(layers(rows, widths), x)[-1]


def backprop(
    rows: Float[Tensor, "k p"],
    widths: Sequence[int],
    x: Float[Tensor, "k b d"],
    y: Int64[Tensor, "k b"],
    groups: int = 1,
) -> tuple[Float[Tensor, " k"], Float[Tensor, "kc p"]]:
    """Mean losses, and the gradient over each of the `groups` equal parts of a net's batch, in order.

    Returns:
        losses (k,), and gradients (k · groups, p): rows of net 0 first.
    """
    nets = layers(rows, widths)
    *inputs, out = _forward(nets, x)
    k, b = y.shape
    parts, size = k * groups, b // groups
    log_p = out.log_softmax(-1)
    losses = -log_p.gather(-1, y[..., None]).mean((1, 2))
    delta = log_p.exp_()
    delta.scatter_add_(-1, y[..., None], torch.full_like(y[..., None], -1, dtype=delta.dtype))
    delta /= size
    gradients = torch.empty(parts, rows.shape[1], dtype=rows.dtype)
    found = layers(gradients, widths)
    for i in reversed(range(len(nets))):
        mine = delta.view(parts, size, -1)
        found[i][0].copy_(torch.bmm(inputs[i].reshape(parts, size, -1).transpose(1, 2), mine))
        found[i][1].copy_(mine.sum(1, keepdim=True))
        if i:
            delta = torch.bmm(delta, nets[i][0].transpose(1, 2)).mul_(inputs[i] > 0)
    return losses, gradients


def module(row: Float[Tensor, " p"], widths: Sequence[int]) -> nn.Sequential:
    """One net as a torch module, for whatever wants one; input (n, d) or images of d values."""
    parts: list[nn.Module] = [nn.Flatten()]
    for w, b in layers(row[None].clone(), widths):
        linear = nn.Linear(w.shape[1], w.shape[2])
        linear.weight.data, linear.bias.data = w[0].T.contiguous(), b[0, 0].contiguous()
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _forward(nets: Layers, x: Tensor) -> list[Tensor]:
    """The inputs of each layer, and the logits."""
    found = [x]
    for i, (w, b) in enumerate(nets):
        h = torch.baddbmm(b, found[-1], w)
        found.append(h.relu_() if i < len(nets) - 1 else h)
    return found
