"""What a stage leaves for the next: a policy and a learned reward, each one npz file of arrays with a schema.

A reward is nothing without its normaliser and the layout of its input: state = [(obs + shift) scale, flag], and
all of them are in the file. It is evaluated by numpy-free torch code in float32, unstacked or stacked.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from common.errors import BadInputError
from common.files import replacing

SCHEMA = 1
POLICY, REWARD = "policy.npz", "reward.npz"


@dataclass(frozen=True)
class Policy:
    """Deterministic: a = squash(first act_dim outputs of a ReLU perceptron on [(obs + shift) scale, 0]).

    Attributes:
        env: where it was trained.
        layers: weights (in, out) and biases (out) in turn.
        squash: "tanh" or "clip" (to [-1, 1]).
    """

    env: str
    act_dim: int
    layers: Sequence[Tensor]
    squash: str
    shift: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]


@dataclass(frozen=True)
class Reward:
    """r_psi and V_phi, ReLU perceptrons on states [(obs + shift) scale, flag].

    Attributes:
        env: where it was learned.
        method: by which arm.
        reward: layers of r; input [s, a], or s where `state_only`.
        value: layers of the shaping V (not part of the reward; for inspection); may be empty.
        state_only: r(s).
        absorbing: absorbing transitions per termination that it was trained with; 0: none, a termination ends.
    """

    env: str
    method: str
    reward: Sequence[Tensor]
    value: Sequence[Tensor]
    state_only: bool
    absorbing: int
    shift: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]


def forward(layers: Sequence[Tensor], x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
    """A ReLU perceptron; layers may be stacked, weights (n, in, out) and biases (n, out), for x (n, b, in)."""
    last = len(layers) - 2
    for i in range(0, len(layers), 2):
        bias = layers[i + 1].unsqueeze(1) if layers[i].dim() == 3 else layers[i + 1]
        x = x @ layers[i] + bias
        x = x.relu() if i < last else x
    return x


def save_policy(policy: Policy, folder: Path) -> None:
    """Write policy.npz."""
    facts = {"env": policy.env, "act_dim": policy.act_dim, "squash": policy.squash}
    _save(folder / POLICY, "policy", facts, {"layers": policy.layers, "norm": (policy.shift, policy.scale)})


def load_policy(folder: Path) -> Policy:
    """Read policy.npz.

    Raises:
        BadInputError: absent, damaged or of another schema.
    """
    facts, parts = _load(folder / POLICY, "policy", ("layers", "norm"))
    shift, scale = parts["norm"]
    return Policy(
        str(facts["env"]), int(facts["act_dim"]), parts["layers"], str(facts["squash"]), shift, scale
    )


def save_reward(reward: Reward, folder: Path) -> None:
    """Write reward.npz."""
    facts = {
        "env": reward.env,
        "method": reward.method,
        "state_only": reward.state_only,
        "absorbing": reward.absorbing,
    }
    parts = {"reward": reward.reward, "value": reward.value, "norm": (reward.shift, reward.scale)}
    _save(folder / REWARD, "reward", facts, parts)


def load_reward(folder: Path) -> Reward:
    """Read reward.npz.

    Raises:
        BadInputError: absent, damaged or of another schema.
    """
    facts, parts = _load(folder / REWARD, "reward", ("reward", "value", "norm"))
    shift, scale = parts["norm"]
    return Reward(
        str(facts["env"]),
        str(facts["method"]),
        parts["reward"],
        parts["value"],
        bool(facts["state_only"]),
        int(facts["absorbing"]),
        shift,
        scale,
    )


def _save(path: Path, kind: str, facts: Mapping[str, Any], parts: Mapping[str, Sequence[Tensor]]) -> None:
    arrays = {f"{name}.{i}": x.detach().numpy() for name, xs in parts.items() for i, x in enumerate(xs)}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"{path.name}: not finite")
    with replacing(path) as file:
        np.savez(
            file,
            schema=np.int64(SCHEMA),
            kind=np.str_(kind),
            **{k: np.asarray(v) for k, v in facts.items()},
            **arrays,
        )


def _load(path: Path, kind: str, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[Tensor]]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise BadInputError(f"no {kind} at {path}: run the stage that writes it first") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInputError(
            f"{path} cannot be read ({error}): delete its folder and run its stage again"
        ) from error
    if str(stored.get("kind")) != kind or int(stored.get("schema", -1)) != SCHEMA:
        raise BadInputError(f"{path} is no {kind} of schema {SCHEMA}")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for name in names:
        while (key := f"{name}.{len(parts[name])}") in stored:
            parts[name].append(torch.from_numpy(stored.pop(key)))
    return stored, parts
