"""Trained weights from a file into an architecture, or one message that says why they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from common.errors import BadInputError

SHOWN = 3
COUNTER = ".num_batches_tracked"  # of a batch norm: files of torch before 0.4.1 have none


def read_weights(path: Path) -> dict[str, Tensor]:
    """A file of weights, as torch.save wrote them: a state dict, alone or under the key state_dict.

    Raises:
        BadInputError: no such file, or not a file of weights.
    """
    if not path.is_file():
        raise BadInputError(f"no weights at {path}")
    try:
        held: object = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInputError(f"{path} is no file of weights that torch.save wrote: {reason}") from error
    whole = cast("dict[str, object]", held if isinstance(held, dict) else {"": held})
    inner = whole.get("state_dict", whole)
    state = cast("dict[str, object]", inner if isinstance(inner, dict) else {"": inner})
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInputError(f"{path} holds no state dict: save model.state_dict()")
    return cast("dict[str, Tensor]", state)


def put_weights(model: nn.Module, state: Mapping[str, Tensor], source: str = "the weights") -> None:
    """Copies a state dict into a model of the same architecture.

    Raises:
        BadInputError: it belongs to another architecture: what is missing, in excess, or of another shape.
    """
    own = cast("dict[str, Tensor]", model.state_dict())
    state = {name: value for name, value in own.items() if name.endswith(COUNTER)} | dict(state)
    missing = [name for name in own if name not in state]
    excess = [name for name in state if name not in own]
    differ = [
        f"{name} is {list(state[name].shape)} and should be {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or excess or differ:
        problems = [
            _some("lacks", missing),
            _some("has no place for", excess),
            _some("other shapes:", differ),
        ]
        raise BadInputError(
            f"{source} belongs to another architecture than {type(model).__name__}: "
            + "; ".join(problem for problem in problems if problem)
        )
    model.load_state_dict(state)


def load_weights(model: nn.Module, path: Path) -> None:
    """`read_weights` into `put_weights`.

    Raises:
        BadInputError: as these do.
    """
    put_weights(model, read_weights(path), str(path))


def _some(words: str, names: list[str]) -> str:
    if not names:
        return ""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{words} {', '.join(names[:SHOWN])}{rest}"
