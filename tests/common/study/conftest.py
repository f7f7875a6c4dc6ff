"""Toy repositories for tests that run the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from house import House, make_house


@pytest.fixture
def new_house(tmp_path: Path) -> Callable[[], House]:
    """Make toy repositories (several, to compare an interrupted with an uninterrupted one)."""
    numbers: Iterator[int] = count()
    return lambda: make_house(tmp_path / f"house{next(numbers)}")


@pytest.fixture
def house(new_house: Callable[[], House]) -> House:
    """One toy repository."""
    return new_house()
