"""Stacked networks: N members (seeds of one arm) as one program, every tensor with a leading axis N.

The parameters of a stacked multilayer perceptron lie in one flat tensor, so that an optimiser or a target update
is one kernel; each weight is a contiguous view (N, in, out) of it. Under `parallel.strategy=fsdp` a process keeps a
part of that tensor and puts it together for each pass. One perceptron is one autograd node, with its
backward pass written out: at 64 units the bookkeeping of autograd costs more than the arithmetic.

Symbols: n members, b batch, d inputs, o outputs. ReLU between layers, as in Hoshino et al. (2021) and its release.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from common.cluster.ranks import parts, place
from common.errors import BadInputError
from common.processes.cut import Cut

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
FLAT_MULTIPLE = 64
"""The flat tensor is padded to whole vector registers: no element is computed by a kernel's scalar tail, whose
rounding differs, so a member's bits do not depend on how many members are stacked with it."""


VECTOR = 32
"""Elements that torch's elementwise kernels take at once (two registers); what is left over rounds otherwise."""


def whole_vectors(**counts: int) -> None:
    """Refuse batches that leave a remainder: a member's bits would depend on how many are stacked with it.

    Raises:
        BadInputError: a count is no multiple of VECTOR for each process of the training.
    """
    processes = place().size
    for name, count in counts.items():
        if count <= 0 or count % (VECTOR * processes):
            each = "" if processes == 1 else f" for each of {processes} processes"
            raise BadInputError(
                f"{name.replace('__', '.')} is {count}: a multiple of {VECTOR}{each} is needed, so that a seed's "
                "numbers do not depend on the seeds that are stacked with it."
            )


class StackedMLP(nn.Module):
    """N perceptrons of equal shape.

    Args:
        generators: one per member; a member's initial weights depend on its own generator alone.
        sizes: inputs, hidden widths, outputs.
        gain: gain of the output layer's orthogonal initialisation (hidden layers: sqrt 2; biases: 0).
        dtype: of the parameters.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        sizes: Sequence[int],
        gain: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.members = len(generators)
        self.sizes = tuple(sizes)
        self.shapes = _shapes(self.members, self.sizes)
        total = sum(math.prod(shape) for shape in self.shapes)
        padded = -(-total // FLAT_MULTIPLE) * FLAT_MULTIPLE
        self.counts = [*map(math.prod, self.shapes), padded - total]
        self.cut = Cut(padded, *parts())
        self.flat = self.cut.parameter(self._initial(generators, gain, torch.zeros(padded, dtype=dtype)))
        self.cut.keep(self, "flat")
        self._kept: list[Tensor] = []

    def views(self, flat: Tensor) -> list[Tensor]:
        """Weights (n, in, out) and biases (n, out) in turn, as views of a flat tensor."""
        pieces = flat.split_with_sizes(self.counts)
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=False)]

    def kept(self, flat: Tensor) -> list[Tensor]:
        """The views, detached; of the parameters, into which optimisers write, made once."""
        if self.cut.parts > 1:
            return self.views(flat.detach())
        if not self._kept or self._kept[0].data_ptr() != flat.data_ptr():
            self._kept = self.views(flat.detach())
        return self._kept

    def forward(self, x: Float[Tensor, "n b d"], frozen: bool = False) -> Float[Tensor, "n b o"]:
        """Outputs; with `frozen`, gradients reach the input only."""
        flat = self.cut.whole(self.flat.detach() if frozen else self.flat)
        return cast(Tensor, _Perceptron.apply(x, flat, self))

    def input_gradient(self, x: Float[Tensor, "n b d"]) -> Float[Tensor, "n b d"]:
        """The gradient of the (single) output with respect to the input, differentiable in the parameters.

        A ReLU network is piecewise linear: with its masks m fixed, the gradient is W1 m1 W2 m2 ... w, and the
        derivative of that product with respect to the weights is exact almost everywhere. No double backward.
        """
        return cast(Tensor, _InputGradient.apply(x, self.cut.whole(self.flat), self))

    def member(self, index: int) -> list[Tensor]:
        """One member's weights (in, out) and biases (out), copied."""
        return [view[index].clone() for view in self.views(self.cut.whole(self.flat.detach()))]

    def _initial(self, generators: Sequence[torch.Generator], gain: float, flat: Tensor) -> Tensor:
        weights = self.views(flat)[::2]
        for layer, weight in enumerate(weights):
            last = layer == len(weights) - 1
            for matrix, generator in zip(weight, generators, strict=True):
                fresh = torch.empty(matrix.shape[1], matrix.shape[0], dtype=torch.float32)
                nn.init.orthogonal_(fresh, gain if last else math.sqrt(2.0), generator=generator)
                matrix.copy_(fresh.T)
        return flat


def _shapes(members: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    for inputs, outputs in pairwise(sizes):
        shapes += [(members, inputs, outputs), (members, outputs)]
    return shapes


def _hidden(x: Tensor, views: list[Tensor]) -> list[Tensor]:
    """The activations of every hidden layer, after the ReLU."""
    result: list[Tensor] = []
    for weight, bias in zip(views[:-2:2], views[1:-2:2], strict=True):
        x = torch.baddbmm(bias.unsqueeze(1), x, weight).relu_()
        result.append(x)
    return result


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W + b. A single output is a sum: faster, and a product of one column rounds otherwise for one member."""
    if weight.shape[-1] == 1:
        return (x * weight.transpose(1, 2)).sum(-1, keepdim=True) + bias.unsqueeze(1)
    return torch.baddbmm(bias.unsqueeze(1), x, weight)


def _outer(x: Tensor, gradient: Tensor, out: Tensor) -> None:
    """x^T gradient of every member, into `out`; of a single output a sum, for the same reason."""
    if gradient.shape[-1] == 1:
        torch.sum(x * gradient, 1, out=out.squeeze(-1))
    else:
        torch.bmm(x.transpose(1, 2), gradient, out=out)


def _gate(gradient: Tensor, activation: Tensor) -> Tensor:
    """The ReLU's backward pass."""
    return torch.ops.aten.threshold_backward.default(gradient, activation, 0)


def _gate_(gradient: Tensor, activation: Tensor) -> Tensor:
    """The same in place."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, activation, 0, grad_input=gradient)


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, flat: Tensor, net: StackedMLP) -> Tensor:
        views = net.kept(flat)
        hidden = _hidden(x, views)
        ctx.net = net
        ctx.save_for_backward(x, flat, *hidden)
        return _affine(hidden[-1], views[-2], views[-1])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = outputs
        x, flat, *hidden = ctx.saved_tensors
        wants_x, wants_flat, _ = ctx.needs_input_grad
        views = ctx.net.kept(flat)
        result = torch.zeros_like(flat) if wants_flat else None
        slots = ctx.net.views(result) if wants_flat else []
        inputs = [x, *hidden]
        for layer in reversed(range(len(inputs))):
            if wants_flat:
                _outer(inputs[layer], gradient, slots[2 * layer])
                torch.sum(gradient, 1, out=slots[2 * layer + 1])
            if layer == 0 and not wants_x:
                break
            weight = views[2 * layer].transpose(1, 2)
            gradient = gradient * weight if weight.shape[1] == 1 else torch.bmm(gradient, weight)
            if layer > 0:
                gradient = _gate_(gradient, inputs[layer])
        return gradient if wants_x else None, result, None


class _InputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, flat: Tensor, net: StackedMLP) -> Tensor:
        views = net.kept(flat)
        weights = views[::2]
        hidden = _hidden(x, views)
        tangent = _gate(weights[-1].transpose(1, 2).expand_as(hidden[-1]), hidden[-1])
        tangents = [tangent]
        for weight, activation in zip(weights[-2:0:-1], hidden[-2::-1], strict=True):
            tangent = _gate_(torch.bmm(tangent, weight.transpose(1, 2)), activation)
            tangents.insert(0, tangent)
        ctx.net = net
        ctx.layers = len(hidden)
        ctx.save_for_backward(flat, *hidden, *tangents)
        return torch.bmm(tangent, weights[0].transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[None, Tensor, None]:
        (gradient,) = outputs
        flat, *rest = ctx.saved_tensors
        hidden, tangents = rest[: ctx.layers], rest[ctx.layers :]
        weights = ctx.net.kept(flat)[::2]
        result = torch.zeros_like(flat)
        slots = ctx.net.views(result)[::2]
        for layer, (activation, tangent) in enumerate(zip(hidden, tangents, strict=True)):
            torch.bmm(gradient.transpose(1, 2), tangent, out=slots[layer])
            gradient = _gate_(torch.bmm(gradient, weights[layer]), activation)
        torch.sum(gradient, 1, out=slots[-1].squeeze(-1))
        return None, result, None


class TwinCritic(nn.Module):
    """Two critics Q_1, Q_2 per member, folded into the member axis: 2N perceptrons."""

    def __init__(self, generators: Sequence[torch.Generator], sizes: Sequence[int]) -> None:
        super().__init__()
        self.net = StackedMLP([*generators, *generators], (*sizes, 1))

    def forward(self, x: Float[Tensor, "n b d"], frozen: bool = False) -> Float[Tensor, "2 n b"]:
        """Both values of each state-action pair."""
        return self.net(x.repeat(2, 1, 1), frozen).view(2, x.shape[0], x.shape[1])


class Actor(nn.Module):
    """A tanh-Gaussian policy: a = tanh(mu + sigma * eps), log sigma squashed into [-5, 2].

    Source: Haarnoja et al. (2018), appendix C; the release's log sigma = -5 + 3.5 (tanh(.) + 1).
    """

    def __init__(self, generators: Sequence[torch.Generator], sizes: Sequence[int], act_dim: int) -> None:
        super().__init__()
        self.act_dim = act_dim
        self.net = StackedMLP(generators, (*sizes, 2 * act_dim), gain=0.01)

    def moments(self, s: Float[Tensor, "n b d"]) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the tanh, each (n, b, a)."""
        mean, raw = self.net(s).split(self.act_dim, -1)
        return mean, LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw) + 1.0)

    def forward(self, s: Float[Tensor, "n b d"], eps: Float[Tensor, "n b a"]) -> tuple[Tensor, Tensor]:
        """Actions (n, b, a) and their log densities (n, b), reparameterised by standard normal `eps`."""
        mean, log_std = self.moments(s)
        raw = mean + log_std.exp() * eps
        log_prob = -0.5 * eps.square() - log_std - 0.5 * math.log(2.0 * math.pi) - log_jacobian(raw)
        return torch.tanh(raw), log_prob.sum(-1)

    @torch.no_grad()
    def play(
        self, s: Float[Tensor, "n b d"], eps: NDArray[np.float64] | None = None
    ) -> Float[Tensor, "n b a"]:
        """Actions without gradients: the mean's, or a sample with standard normal `eps` (n, b, a).

        In numpy's float64, whose tanh and exp round alike wherever an element lies: torch's differ in the tail of
        a vector, which a few actions are.
        """
        mean, raw = np.split(self.net(s).numpy().astype(np.float64), 2, axis=-1)
        if eps is not None:
            spread = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (np.tanh(raw) + 1.0)
            mean = mean + np.exp(spread) * eps
        return torch.from_numpy(np.tanh(mean).astype(np.float32))

    def log_prob(self, s: Float[Tensor, "n b d"], a: Float[Tensor, "n b a"]) -> Float[Tensor, "n b"]:
        """Log density of given actions; actions at +-1 are clipped inwards, where atanh is finite (trap P6)."""
        mean, log_std = self.moments(s)
        raw = torch.atanh(a.clamp(-1.0 + 1e-6, 1.0 - 1e-6))
        eps = (raw - mean) * (-log_std).exp()
        log_prob = -0.5 * eps.square() - log_std - 0.5 * math.log(2.0 * math.pi) - log_jacobian(raw)
        return log_prob.sum(-1)


def log_jacobian(raw: Tensor) -> Tensor:
    """log (1 - tanh(raw)^2), stable for large |raw|."""
    return 2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))
