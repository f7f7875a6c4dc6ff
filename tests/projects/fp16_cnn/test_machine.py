"""A machine is measured whole, whatever its speed."""

from __future__ import annotations

import gc
import math
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from projects.fp16_cnn import cpu, machine

pytestmark = pytest.mark.skipif(not cpu.has("f16c"), reason="the CPU has no F16C")


def numbers(value: Any) -> list[float]:
    """Every number in nested mappings and tuples."""
    if isinstance(value, dict):
        return [each for part in value.values() for each in numbers(part)]
    if isinstance(value, tuple | list):
        return [each for part in value for each in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_everything_is_measured_and_finite(tmp_path: Path) -> None:
    found = machine.measure(1, 1e-4, 1 << 20)
    assert all(math.isfinite(each) and each >= 0 for each in numbers(astuple(found)))
    assert set(found.peaks) == set(machine.arithmetics()) >= {"float32"}
    assert ("bfloat16" in found.peaks) == cpu.has("avx512bf16")
    assert min(*found.peaks.values(), *found.loads.values(), *found.stores.values()) > 1e6
    for name in machine.CURVES:
        sizes = [size for size, _ in getattr(found, name)]
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == 1 << 20
    assert all(0 <= share <= 1 for share in (found.unhidden, *found.sharing.values()))
    machine.save(found, tmp_path)
    assert machine.load(tmp_path) == found


def test_the_fixed_work_takes_about_as_long_as_asked() -> None:
    assert 1e-5 < machine.quiet_work(0.001)() < 1.0


def test_the_fixed_work_writes_into_nobody_elses_memory() -> None:
    work = machine.quiet_work(0.0005)
    gc.collect()
    others = [np.zeros(size // 4, np.float32) for size in (256, 320, 384) for _ in range(200)]
    work()
    assert not any(other.any() for other in others)
