"""The benchmarks of SAM at a tiny size: both arms do the same work, and what is promised is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import sam_replicas, sam_resume
from projects.sam_batch_study.replicas import Replicas
from projects.sam_batch_study.task import Part, Task


def tiny(batch: int) -> Task:
    draw = torch.Generator().manual_seed(0)
    side, classes = sam_replicas.SIDE, sam_replicas.CLASSES
    part = Part(
        torch.randn(batch, 1, side, side, generator=draw), torch.randint(classes, (batch,), generator=draw)
    )
    return Task(0, classes, part, part, part, batch)


@pytest.mark.filterwarnings("ignore")  # a plain Lightning loop: main silences its advice, too
@pytest.mark.parametrize("batch", [64, 512, 2048])
def test_the_stack_makes_as_many_steps_as_the_loop_and_no_look(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacked: list[int] = []
    looped: list[int] = []

    def descend(module: Replicas, which: torch.Tensor, steps: list[int]) -> None:
        stacked.extend(step for step in steps for _ in which)

    def step(module: Any, batch: Any, index: int) -> None:
        looped.append(index)
        module.optimizers().step()

    def look(module: Replicas, j: int, done: int) -> None:
        pytest.fail(f"a look after {done} steps")

    monkeypatch.setattr(sam_replicas, "NETS", 2)
    monkeypatch.setattr(Replicas, "_descend", descend)
    monkeypatch.setattr(Replicas, "_look", look)
    monkeypatch.setattr(sam_replicas.Loop, "training_step", step)
    sam_replicas.stack(tiny(batch), batch, 0.1)()
    sam_replicas.loop(tiny(batch), batch, 0.1)()
    assert len(stacked) == len(looped) == sam_replicas.NETS * sam_replicas.STEPS[batch]


def test_a_resume_costs_what_is_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sam_resume.measure(64, rounds=1, folder=tmp_path)
    assert (out := capsys.readouterr().out).count("kept") == 2 and "broken" not in out
    assert "LookSAM  save" in out


def test_a_resume_that_costs_more_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    base, mine = [sam_resume.Times(1.0, 2.0)], [sam_resume.Times(3.0, 3.0)]
    assert not sam_resume.verdict("x", mine, base, larger=1.6, promised=1.5)
    assert (
        "save   3.00 x, resume   1.50 x, bytes  1.600 x  promised <= 1.5: broken" in capsys.readouterr().out
    )
