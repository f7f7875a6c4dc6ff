"""A loss as a function of the flat vector of a model's parameters, with its gradient and Hessian products.

L(w) = 1/n Σ_i loss(f_w(x_i), y_i), summed chunk by chunk, so that memory follows the chunk and not n. The Hessian
product is two backward passes, Hv = ∂/∂w ⟨∇L(w), stop(v)⟩ (Pearlmutter 1994, "Fast exact multiplication by the
Hessian").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from common.curvature.frozen import frozen
from common.errors import BadInputError

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Landscape:
    """The mean loss of a model over some examples, seen as a function of its trainable parameters.

    The model is evaluated with frozen statistics (`frozen`), its parameters and buffers are never written: every
    method takes the weights as a vector. The model must be deterministic in evaluation mode and, if n > chunk,
    treat examples one by one (batch norm without running statistics does not).

    Attributes:
        model: one dtype over all trainable parameters; parameters without gradient are constants.
        loss: (outputs, targets) -> the *mean* over the examples, a scalar.
        inputs: the examples, on the model's device.
        targets: one for each example.
        chunk: examples in one forward pass.
    """

    model: nn.Module
    loss: LossFunction
    inputs: Shaped[Tensor, "n ..."]
    targets: Shaped[Tensor, "n ..."]
    chunk: int = 512

    def __post_init__(self) -> None:
        n = len(self.inputs)
        if n == 0 or len(self.targets) != n:
            raise BadInputError(
                f"curvature needs as many targets as inputs: {n} and {len(self.targets)} given"
            )
        if self.chunk < 1:
            raise BadInputError(f"chunk = {self.chunk}: a chunk holds at least one example")
        dtypes = {str(p.dtype) for p in self.model.parameters() if p.requires_grad}
        if len(dtypes) != 1:
            found = ", ".join(sorted(dtypes)) or "no trainable parameter"
            raise BadInputError(f"curvature needs trainable parameters of one dtype, found: {found}")

    def weights(self) -> Float[Tensor, " p"]:
        """A copy of the model's trainable parameters as one vector, in the order of `named_parameters`."""
        with torch.inference_mode(False), torch.no_grad():
            return torch.cat([p.reshape(-1) for p in self.model.parameters() if p.requires_grad]).clone()

    def value(self, w: Float[Tensor, " p"]) -> float:
        """L(w).

        Raises:
            BadInputError: the loss is not finite or not a scalar.
        """
        with frozen(self.model), torch.no_grad():
            return self._finite(math.fsum(share * float(loss) for loss, share in self._losses(w)))

    def gradient(self, w: Float[Tensor, " p"]) -> tuple[float, Float[Tensor, " p"]]:
        """L(w) and ∇L(w).

        Raises:
            BadInputError: the loss or the gradient is not finite.
        """
        with frozen(self.model):
            w = w.detach().clone().requires_grad_()
            total, value = torch.zeros_like(w, requires_grad=False), 0.0
            for loss, share in self._losses(w):
                total += share * torch.autograd.grad(loss, w)[0]
                value += share * float(loss.detach())
        self._finite(value)
        return value, _finite_vector(total, "the gradient")

    def hvp(self, w: Float[Tensor, " p"], v: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        """∇²L(w) v.

        Raises:
            BadInputError: the product is not finite.
        """
        with frozen(self.model):
            w, v = w.detach().clone().requires_grad_(), v.detach().clone()
            total = torch.zeros_like(w, requires_grad=False)
            for loss, share in self._losses(w):
                (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
                if gradient.requires_grad:  # not where the loss is linear in w
                    (product,) = torch.autograd.grad(gradient, w, v, materialize_grads=True)
                    total += share * product
        return _finite_vector(total, "a Hessian product")

    def micro_batches(self, m: int) -> list[Landscape]:
        """The n/m landscapes of m consecutive examples each.

        Raises:
            BadInputError: m does not divide n.
        """
        n = len(self.inputs)
        if m < 1 or n % m:
            raise BadInputError(f"m = {m} does not divide the {n} examples into whole micro-batches")
        return [replace(self, inputs=inputs, targets=targets) for inputs, targets in self._split(m)]

    def _losses(self, w: Tensor) -> Iterator[tuple[Tensor, float]]:
        """Each chunk's mean loss and the chunk's share of the examples."""
        state = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        offset = 0
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                state[name] = w[offset : offset + parameter.numel()].view(parameter.shape)
                offset += parameter.numel()
        n = len(self.inputs)
        for inputs, targets in self._split(self.chunk):
            loss = self.loss(functional_call(self.model, state, (inputs,)), targets)
            if loss.dim():
                raise BadInputError(f"the loss has shape {tuple(loss.shape)}: use its mean, a scalar")
            yield loss, len(inputs) / n

    def _split(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive examples; what was made in inference mode, as in Lightning's validation, is copied."""
        for start in range(0, len(self.inputs), size):
            inputs, targets = self.inputs[start : start + size], self.targets[start : start + size]
            yield (inputs.clone(), targets.clone()) if inputs.is_inference() else (inputs, targets)

    def _finite(self, value: float) -> float:
        if not math.isfinite(value):
            raise BadInputError(f"the loss over {len(self.inputs)} examples is {value}: no curvature there")
        return value


def _finite_vector(vector: Tensor, what: str) -> Tensor:
    if not bool(torch.isfinite(vector).all()):
        raise BadInputError(f"{what} is not finite at these weights: no curvature there")
    return vector
