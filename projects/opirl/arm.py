"""What a stage asks of an arm (a method): one stacked program over the seeds of one environment.

An arm's class takes a `Setting` and is found through study.py's map alone. `imitate` calls ``step(k)`` for
k = 0, 1, ..., evaluates ``act`` from time to time, and in the end writes ``policies()`` and ``rewards()``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor

from projects.opirl.artefacts import Policy, Reward
from projects.opirl.demos import Demos
from projects.opirl.envs import EnvSpec
from projects.opirl.rollout import Counters


@dataclass(frozen=True)
class Setting:
    """Where an arm learns.

    Attributes:
        env: name in projects.opirl.envs.SPECS.
        seeds: one per member.
        cfg: the job's config (equal for all members but for axes.seed).
        steps: interactions of one member in the whole run; of an arm that never acts (BC), updates.
        demos: per member, what it may imitate; empty for the expert.
        shift, scale: (n, d) normaliser of observations, (obs + shift) scale.
        out: folder for append-only files (the first member's).
    """

    env: str
    spec: EnvSpec
    seeds: tuple[int, ...]
    cfg: Mapping[str, Any]
    steps: int
    demos: Sequence[Demos]
    shift: Float[Tensor, "n d"]
    scale: Float[Tensor, "n d"]
    out: Path


class Arm(Protocol):
    """A learning method; also an nn.Module, whose parameters and buffers are checkpointed.

    Attributes:
        stride: interactions of one member in one ``step`` (0 for BC).
    """

    stride: int

    @property
    def counters(self) -> list[Counters]:
        """Honest interaction counts, per member; ``step`` counts training."""
        ...

    def step(self, k: int) -> Tensor | None:
        """Step k: interact and update; the losses (n,), to be checked for finiteness, or None."""
        ...

    def act(self, obs: Float[Tensor, "n b d"]) -> Any:
        """Deterministic actions (n, b, a) for raw observations of the learner's own environment."""
        ...

    def diagnostics(self, k: int) -> dict[str, Tensor]:
        """Named values (n,) for the history at an evaluation, after k steps."""
        ...

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """For the checkpoint."""
        ...

    def journals(self) -> Mapping[str, Any]:
        """Append-only files (common.training.append) by name."""
        ...

    def state(self) -> dict[str, Any]:
        """What is neither parameter, optimiser nor journal: environments, accumulators. Plain data, tensors."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``; the journals are cut already."""
        ...

    def policies(self) -> list[Policy]:
        """The deterministic policies, per member."""
        ...

    def rewards(self) -> list[Reward]:
        """The learned rewards, per member; empty where the method learns none."""
        ...


def build(code: str, setting: Setting) -> Arm:
    """The arm that ``"module:name"`` names."""
    module, _, name = code.partition(":")
    return cast(Arm, getattr(importlib.import_module(module), name)(setting))


def code_of(method: str) -> str:
    """``"module:name"`` of a method in study.py's map."""
    study = importlib.import_module("projects.opirl.study").STUDY
    return str(study.stage("imitate").arms["method"][method])
