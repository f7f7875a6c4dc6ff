"""Jobs of OPIRL's stages, run in this process, stopped or broken at a step."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common.study.model import JobRef, Member, Metrics
from common.training import stop
from projects.opirl import demos, training
from projects.opirl.study import STUDY
from tests.projects.opirl import support

AtStep = Callable[[int], None]
VOLATILE = ("checkpoints", "timing.jsonl", "progress.json")


@dataclass
class Stages:
    """Runs stage functions below `root`.

    Attributes:
        checkpoint_steps: also checkpoint at multiples of it.
        at_step: called before each step of a training.
    """

    root: Path
    monkeypatch: pytest.MonkeyPatch
    checkpoint_steps: int = 0
    at_step: AtStep | None = None
    finished: dict[str, list[JobRef]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        real = training.fit

        def fit(module: Any, data: Any, out: Path, *, records: Sequence[Any], **options: Any) -> None:
            step = module.arm.step
            if self.at_step is not None:
                module.arm.step = lambda k: (self.at_step and self.at_step(k), step(k))[1]
            try:
                options["checkpoint_steps"] = self.checkpoint_steps
                real(module, data, out, records=records, **options)
            finally:
                for one in (*records, *module.journals().values()):
                    one.close()

        self.monkeypatch.setattr(training, "fit", fit)

    def members(
        self, stage: str, cfg: Mapping[str, Any], seeds: Sequence[int], folder: str = "", **axes: str
    ) -> list[Member]:
        """One member a seed, with the config sections of its stage; inputs are what ran before."""
        cfg = {name: one for name, one in cfg.items() if name in ("axes", *STUDY.stage(stage).config)}
        result = []
        for i, seed in enumerate(seeds):
            out = self.root / (folder or f"{stage} {axes}") / str(seed)
            out.mkdir(parents=True, exist_ok=True)
            inputs = {name: [refs[i]] for name, refs in self.finished.items()}
            result.append(Member(cfg, inputs, out, {**cfg["axes"], **axes, "seed": seed}))
        return result

    def run(self, stage: str, members: Sequence[Member]) -> Sequence[Metrics]:
        """Run a stage's function; what it leaves is the input of the next."""
        metrics = importlib.import_module(f"projects.opirl.{stage}").run(members)
        self.finished[stage] = [
            JobRef(member.axes, member.out, one) for member, one in zip(members, metrics, strict=True)
        ]
        return metrics

    def given_experts(self, env: str, seeds: Sequence[int]) -> None:
        """Demonstrations of no merit, as if `expert` had left them."""
        self.finished["expert"] = []
        for seed in seeds:
            folder = self.root / f"expert {env}" / str(seed)
            folder.mkdir(parents=True)
            demos.save(support.held(env, seed), folder, {})
            metrics = {"expert_return": 1.0, "random_return": 0.0}
            self.finished["expert"].append(JobRef({"env": env, "seed": seed}, folder, metrics))


def left_by(members: Sequence[Member]) -> dict[str, bytes]:
    """The bytes of every file that a stage promises to reproduce."""
    files: dict[str, bytes] = {}
    for member in members:
        for path in sorted(member.out.rglob("*")):
            name = path.relative_to(member.out)
            if path.is_file() and name.parts[0] not in VOLATILE:
                files[f"{member.axes['seed']}/{name}"] = path.read_bytes()
    return files


def stop_at(step: int) -> AtStep:
    """As a signal that arrives during that step."""

    def flag(k: int) -> None:
        if k == step:
            stop._flag.reason = "a test"

    return flag


def break_at(step: int) -> AtStep:
    """As a crash in that step."""

    def crash(k: int) -> None:
        if k == step:
            raise RuntimeError(f"broken at {k}")

    return crash


def plain(metrics: Sequence[Metrics]) -> str:
    """Every digit of them."""
    return json.dumps(list(metrics), sort_keys=True, default=float)
