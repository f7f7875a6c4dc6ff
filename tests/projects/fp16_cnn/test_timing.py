"""Timing: what counts as noise is decided on simulated readings, never on the load of the machine that tests run on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from projects.fp16_cnn import timing
from projects.fp16_cnn.compiler import assembly
from projects.fp16_cnn.packing import aligned


def watch(*readings: float) -> timing.Quiet:
    """A watch whose work takes the given times, one after the other."""
    times: Iterator[float] = iter(readings)
    return timing.Quiet(lambda: next(times))


def test_a_steady_machine_is_quiet_after_one_turn() -> None:
    quiet = watch(1.00, 1.04)
    assert list(quiet.attempts(3)) == [0]
    assert not quiet.noisy
    assert quiet.drift == pytest.approx(1.02 / 1.00 - 1)


def test_a_load_that_lasts_makes_the_machine_noisy() -> None:
    quiet = watch(1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5)
    assert list(quiet.attempts(3)) == [0]
    assert list(quiet.attempts(3)) == [0, 1, 2]
    assert quiet.noisy


def test_a_load_that_passes_costs_one_more_turn_and_leaves_no_trace() -> None:
    quiet = watch(1.0, 1.01, 1.0, 1.4, 1.0, 1.02)
    assert list(quiet.attempts(3)) == [0]
    assert list(quiet.attempts(3)) == [0, 1]
    assert not quiet.noisy
    assert quiet.drift == pytest.approx(1.02 / 1.005 - 1)


def test_a_machine_that_was_slow_before_is_noisy_when_it_becomes_fast() -> None:
    quiet = watch(1.3, 1.3, 1.0, 1.0, 1.0, 1.0)
    assert list(quiet.attempts(3)) == [0]
    assert list(quiet.attempts(2)) == [0, 1]
    assert quiet.noisy


def test_a_clock_that_was_lifted_for_a_moment_spoils_one_turn_and_no_later_one() -> None:
    quiet = watch(1.0, 1.0, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert list(quiet.attempts(3)) == [0]
    assert list(quiet.attempts(3)) == [0, 1]
    assert list(quiet.attempts(3)) == [0]
    assert not quiet.noisy


def test_memory_that_is_taken_away_shows_in_a_call_timed_as_two() -> None:
    quiet = watch(*[1.0] * 20)
    for turn in quiet.attempts(3):
        quiet.twins(1.0, 1.5 if turn == 0 else 0.95)
    assert not quiet.noisy
    for _ in quiet.attempts(2):
        quiet.twins(0.5, 1.0)
    assert quiet.noisy
    assert quiet.drift == 0


def test_hot_interleaves_the_calls_and_stops_a_slow_one() -> None:
    order: list[str] = []
    now = [0.0]

    def call(name: str, seconds: float) -> timing.Call:
        def run() -> None:
            order.append(name)
            now[0] += seconds

        return run

    def clock() -> float:
        return now[0]

    calls = {"a": call("a", 1e9), "b": call("b", 1.0)}
    found = timing.hot(calls, 3, 0.0, clock, patience=1.5)
    assert found == {"a": [1e9], "b": [1.0, 1.0]}
    assert order[4:] == ["a", "b", "b"]  # after two calls each that find out how many make a sample


def test_cold_empties_before_every_timed_call_only() -> None:
    order: list[str] = []
    calls: dict[str, timing.Call] = {"a": lambda: order.append("call")}
    empty: dict[str, timing.Call] = {"a": lambda: order.append("empty")}
    found = timing.cold(calls, 2, empty)
    assert order == ["call", "empty", "call"] * 2
    assert len(found["a"]) == 2


def test_emptied_memory_is_read_several_times_slower_and_keeps_its_numbers() -> None:
    numbers = aligned((1 << 16,), np.float32)
    numbers[...] = np.arange(1 << 16)
    empty = timing.emptier([(numbers.ctypes.data, numbers.nbytes)])
    warm, chilled = [], []
    for _ in range(30):
        numbers.max()
        start = time.perf_counter()
        numbers.max()
        warm.append(time.perf_counter() - start)
        empty()
        start = time.perf_counter()
        numbers.max()
        chilled.append(time.perf_counter() - start)
    assert min(chilled) > min(warm)
    assert np.array_equal(numbers, np.arange(1 << 16, dtype=np.float32))


@pytest.mark.parametrize("optimised", [False, True])
def test_flushing_uses_the_instruction(optimised: bool) -> None:
    words = assembly(timing.flush_ir(optimised), "sapphirerapids").split()
    assert ("clflushopt" in words, "clflush" in words) == (optimised, not optimised)
    assert "mfence" in words


def test_repetitions_fill_the_sample() -> None:
    now = [0.0]

    def call() -> None:
        now[0] += 0.25

    assert timing.repetitions(call, 1.0, lambda: now[0]) == 4
    assert timing.repetitions(call, 0.1, lambda: now[0]) == 1
