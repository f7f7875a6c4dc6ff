from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from common.data import source

Picture = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all data sets, empty, with a cache of digests of its own."""
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    monkeypatch.setattr(source.require, "__defaults__", (tmp_path / "cache.json",))
    return tmp_path


@pytest.fixture
def picture() -> Picture:
    def write(
        path: Path,
        colour: tuple[int, ...] = (200, 100, 50),
        mode: str = "RGB",
        size: tuple[int, int] = (12, 8),
        kind: str = "JPEG",
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).convert(mode).save(
            path, kind, quality=95
        )

    return write
