"""What a base optimiser must be, and what is read out of it."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from common.errors import BadInputError
from common.optim.precision import NARROW
from common.optim.rules import MSAM
from common.optim.settings import Settings
from common.optim.vectors import Vector

L2 = ("SGD", "ASGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "Adamax", "NAdam", "RAdam", "Lars")
"""Whose weight decay is a gradient, unless their groups say otherwise."""
MOMENTA = ("momentum_buffer", "exp_avg")


def parameters(base: Optimizer) -> Vector:
    """The trainable parameters, in order."""
    return [p for group in base.param_groups for p in group["params"] if p.requires_grad]


def decays(base: Optimizer) -> list[float]:
    """The weight decay of each trainable parameter, in order."""
    groups = base.param_groups
    return [
        float(group.get("weight_decay", 0)) for group in groups for p in group["params"] if p.requires_grad
    ]


def momentum(base: Optimizer) -> list[Tensor | None]:
    """The momentum of each trainable parameter; None where there is none yet."""
    states = [base.state.get(p, {}) for p in parameters(base)]
    return [next((state[key] for key in MOMENTA if state.get(key) is not None), None) for state in states]


def check(base: Optimizer, settings: Settings) -> None:
    """Raise unless `settings` make sense around `base`.

    Raises:
        BadInputError: says what does not fit.
    """
    name = type(base).__name__
    if not parameters(base):
        raise BadInputError(f"the base optimiser {name} has no trainable parameter.")
    for group in base.param_groups:
        if group.get("maximize"):
            raise BadInputError(f"{name}(maximize=True) is not supported: negate the loss.")
        known = any(kind.__name__ in L2 for kind in type(base).__mro__)
        l2 = known and not group.get("decoupled_weight_decay")
        if settings.decay_inside and group.get("weight_decay") and not l2:
            raise BadInputError(
                f"decay_inside needs weight decay that is a gradient (L2); that of {name} is decoupled from it, or not "
                "known to be one."
            )
        has = group.get("momentum") or group.get("betas", (0,))[0]
        if isinstance(settings.rule, MSAM) and not has:
            raise BadInputError(
                f"MSAM perturbs along the base optimiser's momentum, and this {name} has none."
            )
    if settings.fp32 and any(p.dtype in NARROW for p in parameters(base)):
        raise BadInputError(
            "fp32 needs weights in float32 (and autocast for speed): these are stored in 16 bits, and w + eps would "
            "be rounded when it is stored."
        )
