"""Threads that share work: every part is done, once, before `run` returns, whether they were awake or asleep."""

from __future__ import annotations

import ctypes
import os
import threading
import time

import pytest

from projects.fp16_cnn.crew import Crew, Jobs

FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)


def jobs(record: list[tuple[int, int]], parts: int) -> tuple[Jobs, list]:
    def note(part: int, value: int) -> None:
        record.append((part, value))

    functions = [FUNCTION(note) for _ in range(parts)]
    addresses = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]
    return Jobs([(address, (part, part * part)) for part, address in enumerate(addresses)]), functions


@pytest.mark.parametrize("pause", [0.0, 0.02])  # longer than a worker stays awake
def test_every_part_is_done_before_the_run_ends(pause: float) -> None:
    crew, record = Crew(2), []
    all_jobs, kept = jobs(record, 3)
    two_jobs, also_kept = jobs(record, 2)
    for _ in range(20):
        for work in (all_jobs, two_jobs, all_jobs):  # the third thread misses one in the middle
            record.clear()
            crew.run(work)
            assert sorted(record) == [(part, part * part) for part in range(work.count)]
            time.sleep(pause)
    del kept, also_kept


def test_callers_from_several_threads_wait_for_each_other() -> None:
    crew, done = Crew(1), []

    def call() -> None:
        record: list[tuple[int, int]] = []
        work, kept = jobs(record, 2)
        for _ in range(30):
            record.clear()
            crew.run(work)
            assert sorted(record) == [(0, 0), (1, 1)]
        done.append(len(kept))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [2, 2, 2]


def test_the_caller_keeps_its_cores() -> None:
    before = os.sched_getaffinity(0)
    record: list[tuple[int, int]] = []
    work, kept = jobs(record, len(before) if len(before) < 9 else 2)
    Crew(work.count - 1).run(work) if work.count > 1 else None
    assert os.sched_getaffinity(0) == before
    del kept
