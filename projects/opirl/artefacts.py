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

SCHEMA = 2
POLICY, REWARD = "policy.npz", "reward.npz"


@dataclass(frozen=True)
class Policy:
    """Deterministic: a = tanh(first act_dim outputs of a ReLU perceptron on [(obs + shift) scale, 0]).

    Attributes:
        env: where it was trained.
        layers: weights (in, out) and biases (out) in turn.
    """

    env: str
    act_dim: int
    layers: Sequence[Tensor]
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
    """A ReLU perceptron; layers may be stacked, weights (n, in, out) and biases (n, out), for x (n, b, in).

    A single output is a sum: a product of one column rounds otherwise for one member than for several.
    """
    last = len(layers) - 2
    for i in range(0, len(layers), 2):
        weight, bias = layers[i], layers[i + 1].unsqueeze(1) if layers[i].dim() == 3 else layers[i + 1]
        one = weight.shape[-1] == 1
        x = ((x * weight.transpose(-1, -2)).sum(-1, keepdim=True) if one else x @ weight) + bias
        x = x.relu() if i < last else x
    return x


def save_policy(policy: Policy, folder: Path) -> None:
    """Write policy.npz."""
    facts = {"env": policy.env, "act_dim": policy.act_dim}
    _save(folder / POLICY, "policy", facts, {"layers": policy.layers, "norm": (policy.shift, policy.scale)})


def load_policy(folder: Path) -> Policy:
    """Read policy.npz.

    Raises:
        BadInputError: absent, damaged or of another schema.
    """
    facts, parts = _load(folder / POLICY, "policy", ("env", "act_dim"), ("layers", "norm"))
    shift, scale = parts["norm"]
    return Policy(str(facts["env"]), int(facts["act_dim"]), parts["layers"], shift, scale)


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
    names = ("env", "method", "state_only", "absorbing")
    facts, parts = _load(folder / REWARD, "reward", names, ("reward", "value", "norm"))
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
            allow_pickle=False,
            schema=np.int64(SCHEMA),
            kind=np.str_(kind),
            **{k: np.asarray(v) for k, v in facts.items()},
            **arrays,
        )


def _load(
    path: Path, kind: str, facts: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, list[Tensor]]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise BadInputError(f"no {kind} at {path}: run the stage that writes it first") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise BadInputError(
            f"{path} cannot be read ({error}): delete its folder and run its stage again"
        ) from error
    if str(stored.get("kind")) != kind or int(stored.get("schema", -1)) != SCHEMA:
        raise BadInputError(f"{path} is no {kind} of schema {SCHEMA}")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for name in names:
        while (key := f"{name}.{len(parts[name])}") in stored:
            parts[name].append(torch.from_numpy(stored.pop(key)))
    if set(stored) != {"schema", "kind", *facts} or not _whole(parts):
        raise BadInputError(f"{path} is damaged: delete its folder and run its stage again")
    return stored, parts


def _whole(parts: Mapping[str, Sequence[Tensor]]) -> bool:
    """Whether the normaliser is a pair and every perceptron's layers fit one another."""
    if [x.dim() for x in parts["norm"]] != [1, 1] or parts["norm"][0].shape != parts["norm"][1].shape:
        return False
    for name, layers in parts.items():
        if name == "norm" or (name == "value" and not layers):
            continue
        if not layers or [x.dim() for x in layers] != [2, 1] * (len(layers) // 2):
            return False
        widths = [weight.shape for weight in layers[::2]]
        if [shape[1] for shape in widths] != [bias.shape[0] for bias in layers[1::2]]:
            return False
        if [shape[1] for shape in widths[:-1]] != [shape[0] for shape in widths[1:]]:
            return False
    return True
