"""Acting: N members' environments stepped in lock-step, one forward pass a time step, interactions counted
where counters are given (not those of a random policy's returns, nor of the stage `evaluate`).

Starts are streams of (seed, purpose): training, evaluation and demonstration never share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from common.training.seeds import stream
from projects.opirl.envs import make, spec
from projects.opirl.envs.state import get_state, set_state

Policy = Callable[[Float[Tensor, "n b d"]], Any]
"""Raw observations of all members to their actions in [-1, 1], (n, b, a), a tensor or an array."""

Kind = Literal["training", "evaluation", "reward_collection"]


@dataclass
class Counters:
    """Environment steps of one member by purpose; only `training` may be called sample efficiency."""

    training: int = 0
    evaluation: int = 0
    reward_collection: int = 0

    def add(self, kind: Kind, steps: int) -> None:
        """Count `steps` more."""
        setattr(self, kind, getattr(self, kind) + int(steps))

    def metrics(self) -> dict[str, int]:
        """For metrics.json and checkpoints: ``Counters(**...)`` takes the counts, less the prefix."""
        return {f"interactions_{kind}": count for kind, count in asdict(self).items()}


@dataclass(frozen=True)
class Step:
    """What one lock-step gave. `next_obs` is the true successor, also where an episode ended."""

    next_obs: Float[ndarray, "n b d"]
    reward: Float[ndarray, "n b"]
    terminated: Bool[ndarray, "n b"]
    truncated: Bool[ndarray, "n b"]


class EnvBatch:
    """`copies` training environments for each member; episodes that end are reset at once.

    Unlike gymnasium's vector environments it has no bogus reset transition (trap P3): `step` returns the
    true next observations, and `obs` holds what to act on next.
    """

    def __init__(self, name: str, seeds: Sequence[int], copies: int, purpose: str = "training") -> None:
        self.envs = [[make(name, stream(seed, purpose, name, i)) for i in range(copies)] for seed in seeds]
        facts = spec(name)
        self.obs = np.empty((len(seeds), copies, facts.obs_dim), np.float32)
        for n, member in enumerate(self.envs):
            for b, env in enumerate(member):
                self.obs[n, b], _ = env.reset()

    def step(self, actions: Float[ndarray, "n b a"]) -> Step:
        """Step every environment once."""
        size = self.obs.shape[:2]
        step = Step(np.empty_like(self.obs), np.empty(size), np.zeros(size, bool), np.zeros(size, bool))
        for n, member in enumerate(self.envs):
            for b, env in enumerate(member):
                obs, reward, terminated, truncated, _ = env.step(actions[n, b])
                step.next_obs[n, b], step.reward[n, b] = obs, reward
                step.terminated[n, b], step.truncated[n, b] = terminated, truncated
                self.obs[n, b] = env.reset()[0] if terminated or truncated else obs
        return step

    def get_state(self) -> dict[str, Any]:
        """Everything the next step depends on."""
        envs = [[get_state(env) for env in member] for member in self.envs]
        return {"obs": torch.from_numpy(self.obs.copy()), "envs": envs}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from `get_state`."""
        self.obs = state["obs"].numpy().copy()
        for member, saved in zip(self.envs, state["envs"], strict=True):
            for env, one in zip(member, saved, strict=True):
                set_state(env, one)


@dataclass(frozen=True)
class Episodes:
    """Whole episodes of one member, one after the other; t transitions in all.

    `obs` and `next_obs` are raw. An episode's last transition has `terminated` or `truncated`.
    """

    obs: Float[ndarray, "t d"]
    act: Float[ndarray, "t a"]
    next_obs: Float[ndarray, "t d"]
    reward: Float[ndarray, " t"]
    terminated: Bool[ndarray, " t"]
    truncated: Bool[ndarray, " t"]
    episode: Int[ndarray, " t"]

    @property
    def returns(self) -> Float[ndarray, " e"]:
        """The undiscounted return of each episode."""
        return np.bincount(self.episode, weights=self.reward)

    @property
    def lengths(self) -> Int[ndarray, " e"]:
        """The steps of each episode."""
        return np.bincount(self.episode)


def run(
    policy: Policy,
    name: str,
    episodes: int,
    seeds: Sequence[int],
    purpose: str = "evaluation",
    counters: Sequence[Counters] | None = None,
    kind: Kind = "evaluation",
) -> list[Episodes]:
    """`episodes` episodes of each member, all in lock-step, always from the same starts.

    A member's starts depend on its seed, the purpose, the environment and the episode's number only, so an
    evaluation leaves no state behind and members do not influence one another. Of a told task the reward is
    the untold one's.
    """
    envs = [[make(name, stream(seed, purpose, name, i)) for i in range(episodes)] for seed in seeds]
    obs = np.stack([np.stack([env.reset()[0] for env in member]) for member in envs])
    logs: list[list[list[tuple[Any, ...]]]] = [[[] for _ in member] for member in envs]
    alive = [(n, b) for n in range(len(seeds)) for b in range(episodes)]
    while alive:
        actions = _array(policy(torch.from_numpy(obs.copy())))
        for n, b in alive:
            after, reward, terminated, truncated, info = envs[n][b].step(actions[n, b])
            reward = info.get("task_reward", reward)
            logs[n][b].append((obs[n, b].copy(), actions[n, b], after, reward, terminated, truncated))
            obs[n, b] = after
        alive = [(n, b) for n, b in alive if not any(logs[n][b][-1][4:])]
    for n, member in enumerate(logs):
        if counters is not None:
            counters[n].add(kind, sum(map(len, member)))
    return [_episodes(member) for member in logs]


def evaluate(
    policy: Policy,
    name: str,
    episodes: int,
    seeds: Sequence[int],
    counters: Sequence[Counters] | None = None,
) -> Float[ndarray, "n e"]:
    """The true returns of `episodes` evaluation episodes of each member."""
    return np.stack([one.returns for one in run(policy, name, episodes, seeds, counters=counters)])


def _array(actions: Any) -> Float[ndarray, "n b a"]:
    return actions.detach().numpy() if isinstance(actions, Tensor) else np.asarray(actions)


def _episodes(logs: list[list[tuple[Any, ...]]]) -> Episodes:
    obs, act, after, reward, terminated, truncated = zip(*(row for log in logs for row in log), strict=True)
    return Episodes(
        np.stack(obs).astype(np.float32),
        np.stack(act).astype(np.float32),
        np.stack(after).astype(np.float32),
        np.array(reward),
        np.array(terminated),
        np.array(truncated),
        np.repeat(np.arange(len(logs)), [len(log) for log in logs]),
    )
