"""Demonstrations: one artefact, demos.npz (arrays only, no pickle), and a card beside it that says how it was made.

The traps of the released code are checked at both ends: next_obs is truly the next observation (P1), the last
transition of an episode is there and says why it is the last (P2), and no action stands at +-1, where the
log density of a tanh policy is infinite (P6).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from common.errors import BadInputError
from common.files import replacing, write_json
from common.training.seeds import numpy_generator
from projects.opirl.absorbing import features, transitions
from projects.opirl.envs import SPECS, spec, task_observation
from projects.opirl.rollout import Counters, Episodes, Policy, run

SCHEMA = 1
FILE, CARD = "demos.npz", "demos.json"
ACTION_LIMIT = np.float32(1.0 - 1e-6)
STD_FLOOR = 1e-3
ARRAYS = {
    "obs": np.float32, "act": np.float32, "next_obs": np.float32, "reward": np.float64,
    "terminated": np.bool_, "truncated": np.bool_, "episode": np.int64, "returns": np.float64,
    "shift": np.float32, "scale": np.float32,
}  # fmt: skip


@dataclass(frozen=True)
class Demos:
    """Expert episodes of environment `env`, and the normaliser ``(obs + shift) scale`` of its observations."""

    env: str
    episodes: Episodes
    shift: Float[ndarray, " d"]
    scale: Float[ndarray, " d"]


def record(
    policy: Policy, env: str, episodes: int, seeds: Sequence[int], counters: Sequence[Counters] | None = None
) -> list[Demos]:
    """Demonstrations of task `env` by each member, acting in the task's demonstrator environment."""
    where = spec(env).demonstrator or env
    kind = "reward_collection"
    return [
        demos_of(env, one) for one in run(policy, where, episodes, seeds, "demonstration", counters, kind)
    ]


def demos_of(env: str, episodes: Episodes) -> Demos:
    """Episodes as demonstrations of `env`: seen as the task shows them, actions clipped inwards, normalised."""
    seen = replace(
        episodes,
        obs=task_observation(env, episodes.obs),
        next_obs=task_observation(env, episodes.next_obs),
        act=episodes.act.clip(-ACTION_LIMIT, ACTION_LIMIT),
    )
    mean, std = seen.obs.mean(0, dtype=np.float64), seen.obs.std(0, dtype=np.float64)
    shift, scale = (-mean).astype(np.float32), (1.0 / (std + STD_FLOOR)).astype(np.float32)
    return Demos(env, seen, shift, scale)


def choose(demos: Demos, count: int, seed: int) -> Demos:
    """`count` whole episodes drawn without replacement; the normaliser stays that of all.

    Raises:
        BadInputError: there are not so many.
    """
    held = len(demos.episodes.returns)
    if not 1 <= count <= held:
        raise BadInputError(
            f"{count} demonstrations asked for, the artefact holds {held}: record more or ask for fewer"
        )
    picks = numpy_generator(seed, "demonstrations").permutation(held)[:count]
    rows = np.concatenate([np.flatnonzero(demos.episodes.episode == pick) for pick in picks])
    parts = {key: getattr(demos.episodes, key)[rows] for key in Episodes.__dataclass_fields__}
    parts["episode"] = np.repeat(np.arange(count), demos.episodes.lengths[picks])
    return replace(demos, episodes=Episodes(**parts))


def rows(
    demos: Demos, absorbing: int, shift: Float[Tensor, " d"], scale: Float[Tensor, " d"]
) -> Float[Tensor, "m w"]:
    """Demonstrations as rows of a replay buffer (see `absorbing.transitions`), in the learner's normalisation.

    That is not always the artefact's: a learner may bound the scale, or speak in another task's units.
    """
    e = demos.episodes
    s, s2 = (features(torch.from_numpy(obs), shift, scale) for obs in (e.obs, e.next_obs))
    reward = torch.from_numpy(e.reward).float()
    return transitions(s, torch.from_numpy(e.act), s2, reward, torch.from_numpy(e.terminated), absorbing)


def save(demos: Demos, folder: Path, made: Mapping[str, Any]) -> None:
    """Write the artefact and its card; `made` says how (seed, algorithm, steps, ...)."""
    arrays = {key: np.asarray(value, ARRAYS[key]) for key, value in _arrays(demos).items()}
    problem = _problem(demos.env, arrays)
    if problem:
        raise ValueError(f"not demonstrations: {problem}")
    with replacing(folder / FILE) as file:
        np.savez(file, allow_pickle=False, schema=np.int64(SCHEMA), env=np.str_(demos.env), **arrays)
    returns = demos.episodes.returns
    card = {
        "schema": SCHEMA, "env": demos.env, "made": dict(made), "episodes": len(returns),
        "transitions": len(demos.episodes.obs), "returns": returns.tolist(),
        "return_mean": float(returns.mean()), "return_std": float(returns.std()),
        "terminated": int(demos.episodes.terminated.sum()), "truncated": int(demos.episodes.truncated.sum()),
        "normaliser": f"(obs + shift) * scale; shift = -mean, scale = 1 / (std + {STD_FLOOR})",
    }  # fmt: skip
    write_json(folder / CARD, card)


def load(folder: Path) -> Demos:
    """Read and check the artefact.

    Raises:
        BadInputError: it is absent, damaged, of another schema, or breaks a rule of the module docstring.
    """
    path = folder / FILE
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise BadInputError(f"no demonstrations at {path}: run the stage `expert` first") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise BadInputError(
            f"{path} cannot be read ({error}): delete its folder and run `expert` again"
        ) from error
    problem = _schema_problem(stored) or _problem(str(stored["env"]), stored)
    if problem:
        raise BadInputError(f"{path} holds no valid demonstrations: {problem}")
    episodes = Episodes(**{key: stored[key] for key in Episodes.__dataclass_fields__})
    return Demos(str(stored["env"]), episodes, stored["shift"], stored["scale"])


def _arrays(demos: Demos) -> dict[str, Any]:
    parts = {key: getattr(demos.episodes, key) for key in Episodes.__dataclass_fields__}
    return {**parts, "returns": demos.episodes.returns, "shift": demos.shift, "scale": demos.scale}


def _schema_problem(stored: Mapping[str, ndarray]) -> str:
    missing = {"schema", "env", *ARRAYS} - set(stored)
    if missing:
        return f"missing {', '.join(sorted(missing))}"
    if int(stored["schema"]) != SCHEMA:
        return f"schema {int(stored['schema'])}, this code reads {SCHEMA}"
    return next(
        (f"{key} is {stored[key].dtype}" for key, kind in ARRAYS.items() if stored[key].dtype != kind), ""
    )


def _problem(env: str, x: Mapping[str, ndarray]) -> str:
    """What is wrong with the arrays, or nothing."""
    if env not in SPECS:
        return f"unknown environment {env!r}"
    d, a, t = SPECS[env].obs_dim, SPECS[env].act_dim, len(x["obs"])
    shapes = {"obs": (t, d), "next_obs": (t, d), "act": (t, a), "shift": (d,), "scale": (d,)}
    shapes |= dict.fromkeys(("reward", "terminated", "truncated", "episode"), (t,))
    for key, shape in shapes.items():
        if x[key].shape != shape:
            return f"{key} has shape {x[key].shape}, expected {shape}"
        if not np.isfinite(x[key]).all():
            return f"{key} is not finite"
    if t == 0:
        return "no transition"
    if np.abs(x["act"]).max() > ACTION_LIMIT:
        return "an action outside +-(1 - 1e-6)"
    return _order_problem(x)


def _order_problem(x: Mapping[str, ndarray]) -> str:
    episode = x["episode"]
    if episode[0] != 0 or not np.isin(np.diff(episode), (0, 1)).all():
        return "episodes are not numbered 0, 1, 2, ... in order"
    inside = np.diff(episode) == 0
    if not (x["next_obs"][:-1] == x["obs"][1:])[inside].all():
        return "next_obs is not the observation that follows"
    ended = x["terminated"] | x["truncated"]
    if (ended != np.append(~inside, True)).any() or (x["terminated"] & x["truncated"]).any():
        return "an episode's last transition, and only it, must be terminated or truncated, not both"
    if not np.allclose(np.bincount(episode, weights=x["reward"]), x["returns"]):
        return "returns are not the sums of the rewards"
    return ""
