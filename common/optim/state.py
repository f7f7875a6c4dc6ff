"""The saved state of an optimiser: plain data, refused as a whole when it belongs to another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.errors import BadInputError
from common.optim import base
from common.processes.parts import cut_like, whole

if TYPE_CHECKING:
    from common.optim.sharpness import SharpnessAware


def describe(optimizer: SharpnessAware) -> dict[str, Any]:
    """What a state must have in common with the optimiser that loads it."""
    return {
        "rule": type(optimizer.settings.rule).__name__,
        "base optimiser": type(optimizer.base).__name__,
        "shapes": [list(p.shape) for p in base.parameters(optimizer.base)],
        "groups": [len(group["params"]) for group in optimizer.base.param_groups],
    }


def save(optimizer: SharpnessAware, with_base: bool = True) -> dict[str, Any]:
    """The state; without the base optimiser's where that is saved elsewhere (Lightning)."""
    return {
        "of": describe(optimizer),
        "steps": optimizer.steps,
        "memory": {str(i): whole(v).clone() for i, v in optimizer.memory.items()},
        "scaler": optimizer.scaler.state_dict() if optimizer.scaler else None,
        "base": optimizer.base.state_dict() if with_base else None,
    }


def load(optimizer: SharpnessAware, saved: dict[str, Any], with_base: bool = True) -> None:
    """Take over a state that ``save`` made.

    Raises:
        BadInputError: it belongs to another optimiser; nothing was changed.
    """
    own = describe(optimizer)
    if saved.keys() != {"of", "steps", "memory", "scaler", "base"} or saved["of"].keys() != own.keys():
        raise BadInputError(f"this is no state of {type(optimizer).__name__}: its keys are {sorted(saved)}.")
    for name, value in own.items():
        if saved["of"][name] != value:
            raise BadInputError(
                f"the state is another optimiser's: its {name} is {saved['of'][name]}, not {value}."
            )
    if with_base != (saved["base"] is not None) or (saved["scaler"] is None) != (optimizer.scaler is None):
        raise BadInputError("the state lacks, or has in excess, that of the base optimiser or of the scaler.")
    params = base.parameters(optimizer.base)
    memory = {int(i): v for i, v in saved["memory"].items()}
    if any(i >= len(params) or v.shape != params[i].shape for i, v in memory.items()):
        raise BadInputError("the state's memory has other shapes than the parameters.")
    if with_base:
        optimizer.base.load_state_dict(saved["base"])
    if optimizer.scaler:
        optimizer.scaler.load_state_dict(saved["scaler"])
    optimizer.steps = saved["steps"]
    optimizer.memory = {
        i: cut_like(v.to(params[i].device, params[i].dtype), params[i]).clone() for i, v in memory.items()
    }
