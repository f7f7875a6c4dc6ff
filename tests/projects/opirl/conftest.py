"""Arms whose files are closed after the test, and stages whose traces are removed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.training import stop
from tests.projects.opirl import support
from tests.projects.opirl.stages import Stages


@pytest.fixture
def make_arm(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``make_arm(method, env=..., seeds=..., cfg=...)``: ready for its first step, in a folder of its own."""
    made: list[Any] = []

    def make(method: str = "opirl", **options: Any) -> Any:
        made.append(support.arm(tmp_path / str(len(made)), method, **options))
        return made[-1]

    yield make
    for one in made:
        for journal in one.journals().values():
            journal.close()


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stages]:
    """The stage functions, run in this process as jobs are; what a training leaves behind is put back."""
    handlers = {number: signal.getsignal(number) for number in stop.SIGNALS}
    yield Stages(tmp_path, monkeypatch)
    stop.clear()
    torch.use_deterministic_algorithms(False)
    for number, handler in handlers.items():
        signal.signal(number, handler)
