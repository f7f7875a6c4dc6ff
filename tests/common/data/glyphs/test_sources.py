"""The faces that instances are said to be drawn from, against their pixels."""

from __future__ import annotations

import numpy as np

from common.data.glyphs.faces import FACES, masters
from common.data.glyphs.instances import Look, render
from common.data.glyphs.sources import faces


def test_faces_are_those_that_were_drawn() -> None:
    """Without any variation an instance is its face's master, at half the resolution."""
    still = Look(
        rotation=0.0, shift=0.0, scale=(1.0, 1.0), ground=(0.0, 0.0), ink=(255.0, 255.0), noise=(0.0, 0.0)
    )
    point, size = ord("R"), 24
    drawn = render(5, "test", [point], 30, size, still)[0].astype(float)
    master = masters([point], 2 * size)[0].astype(float).reshape(len(FACES), size, 2, size, 2).mean((2, 4))
    nearest = [int(np.abs(master - image).sum((1, 2)).argmin()) for image in drawn]
    assert nearest == faces(5, "test", [point], 30, size)[0].tolist()
