"""Arms whose files are closed after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.projects.opirl import support


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
