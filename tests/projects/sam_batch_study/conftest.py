"""Stages run in this process as jobs are; what a training leaves behind is put back."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from common.study.model import JobRef, Member, Metrics
from common.training import stop
from projects.sam_batch_study.study import STUDY


class Stages:
    """Runs stage functions below `root`; each run's jobs are the inputs of the next that names them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.finished: dict[str, list[JobRef]] = {}

    def members(
        self,
        stage: str,
        cfg: Mapping[str, Any],
        seeds: Sequence[int],
        needs: Mapping[str, Callable[[JobRef, int], bool]],
        folder: str = "",
        **axes: str | int,
    ) -> list[Member]:
        """One member a seed, with its stage's config; `needs` says which finished jobs each takes, by (job, seed)."""
        cfg = {name: section for name, section in cfg.items() if name in STUDY.stage(stage).config}
        result = []
        for seed in seeds:
            out = self.root / (folder or f"{stage} {sorted(axes.items())}") / str(seed)
            out.mkdir(parents=True, exist_ok=True)
            inputs = {
                name: [ref for ref in self.finished[name] if takes(ref, seed)]
                for name, takes in needs.items()
            }
            result.append(Member(cfg, inputs, out, {**axes, "seed": seed}))
        return result

    def run(self, stage: str, members: Sequence[Member]) -> list[Metrics]:
        """Run a stage's function."""
        metrics = list(importlib.import_module(f"projects.sam_batch_study.{stage}").run(members))
        self.finished.setdefault(stage, []).extend(
            JobRef(member.axes, member.out, one) for member, one in zip(members, metrics, strict=True)
        )
        return metrics


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Stages]:
    """The stage functions."""
    handlers = {number: signal.getsignal(number) for number in stop.SIGNALS}
    yield Stages(tmp_path)
    stop.clear()
    torch.use_deterministic_algorithms(False)
    for number, handler in handlers.items():
        signal.signal(number, handler)
