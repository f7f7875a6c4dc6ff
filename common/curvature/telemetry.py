"""Every probe of this folder at once, as numbers for a curve.

What is meaningful only where the training itself is full-batch, SAM's edge and lambda's ratio to it, is named
`full_batch_…`: at a smaller batch the edge is not a limit, and the ratio explains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor, nn

from common.curvature.alignment import gradient_cosine, perturbation_snr, positive_norm
from common.curvature.edge import check_radius, sam_edge, stability_limit
from common.curvature.lanczos import lambda_max
from common.curvature.landscape import Landscape, LossFunction
from common.curvature.sharpness import m_sharpness
from common.curvature.trace import hessian_trace


@dataclass(frozen=True)
class Probes:
    """What is measured and how; the first six describe the training that is watched.

    Attributes:
        rho: SAM's radius, also that of the sharpness.
        lr: learning rate η.
        momentum: β.
        nesterov: momentum as in torch.optim.SGD(nesterov=True).
        weight_decay: wd; the Hessian's eigenvalues rise by it.
        decay_inside: whether the perturbation's gradient holds the decay (common.curvature.edge).
        m: size of the micro-batches of sharpness and signal-to-noise, a divisor of n; None: the whole batch.
        chunk: examples in one forward pass.
        seed: of the own generators.
        tolerance: of lambda_max, relative residual.
        lanczos_steps: Hessian products for lambda_max at most.
        trace_products: Hessian products for the trace.
        ascent_steps: gradients a micro-batch for the sharpness.
    """

    rho: float
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_inside: bool = True
    m: int | None = None
    chunk: int = 512
    seed: int = 0
    tolerance: float = 1e-3
    lanczos_steps: int = 80
    trace_products: int = 60
    ascent_steps: int = 20


def telemetry(
    model: nn.Module,
    loss: LossFunction,
    inputs: Shaped[Tensor, "n ..."],
    targets: Shaped[Tensor, "n ..."],
    probes: Probes,
) -> dict[str, float]:
    """The curvature at the model's weights over the given examples; the model is left as it was, to the bit.

    Args:
        model: evaluated with frozen statistics.
        loss: (outputs, targets) -> mean over the examples, without weight decay.
        inputs: the examples; the full training set, where the `full_batch_…` entries are to mean something.
        targets: one for each example.
        probes: what to measure and how.

    Returns:
        loss, gradient_norm (both without decay), lambda_max (without decay) and lambda_max_residual, trace and
        trace_standard_error, m_sharpness, gradient_cosine, perturbation_snr; full_batch_sam_edge, the edge of the
        decayed Hessian's eigenvalue, and full_batch_edge_ratio = (lambda_max + wd)/full_batch_sam_edge.

    Raises:
        BadInputError: a setting is out of range, a loss is not finite, or the gradient is zero.
    """
    check_radius(probes.rho)
    limit = stability_limit(probes.lr, probes.momentum, probes.nesterov)
    landscape = Landscape(model, loss, inputs, targets, probes.chunk)
    m = len(inputs) if probes.m is None else probes.m
    w = landscape.weights()
    value, gradient = landscape.gradient(w)
    decayed = gradient + probes.weight_decay * w if probes.decay_inside else gradient
    edge = sam_edge(positive_norm(decayed), probes.rho, limit, probes.weight_decay, probes.decay_inside)
    top = lambda_max(landscape, seed=probes.seed, tolerance=probes.tolerance, steps=probes.lanczos_steps)
    trace = hessian_trace(landscape, products=probes.trace_products, seed=probes.seed)
    return {
        "loss": value,
        "gradient_norm": positive_norm(gradient),
        "lambda_max": top.value,
        "lambda_max_residual": top.residual,
        "trace": trace.value,
        "trace_standard_error": trace.standard_error,
        "m_sharpness": m_sharpness(landscape, probes.rho, m, steps=probes.ascent_steps, seed=probes.seed),
        "gradient_cosine": gradient_cosine(landscape, probes.rho),
        "perturbation_snr": perturbation_snr(landscape, m),
        "full_batch_sam_edge": edge,
        "full_batch_edge_ratio": (top.value + probes.weight_decay) / edge,
    }
