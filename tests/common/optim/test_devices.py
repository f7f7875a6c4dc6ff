"""The result depends on m and not on the number of processes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@functools.cache
def weights() -> dict[str, list[dict[str, Any]]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.common.optim.processes"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_processes_gives_the_weights_of_one(world: int) -> None:
    (alone,) = weights()["1"]
    for rank in weights()[str(world)]:
        for case, expected in alone.items():
            if case != "refused":
                assert rank[case] == pytest.approx(expected, rel=1e-12), case


def test_an_overflow_on_one_process_skips_the_step_of_all() -> None:
    for ranks in weights().values():
        for rank in ranks:
            assert rank["overflow m=2"][-3:] == rank["overflow m=8"][-3:] == [512.0, 1.0, 1.0]


def test_an_m_that_cannot_be_split_is_refused() -> None:
    assert "m = 3 must divide B = 2" in weights()["1"][0]["refused"]
    for rank in weights()["2"]:
        assert "m = 3 must divide B = 4" in rank["refused"]
