"""Counts are those of the work: against page faults that can be counted by hand, and against work done twice."""

from __future__ import annotations

import errno
from collections.abc import Generator

import pytest

from projects.fp16_cnn import counters
from projects.fp16_cnn.counters import Counting
from tests.projects.fp16_cnn.pages import PAGES, SLACK, touch

SOFTWARE = {"page_faults": (counters.SOFTWARE, 2), "task_clock": (counters.SOFTWARE, 1)}
NOTHING = (counters.HARDWARE, 999)  # no such event anywhere


@pytest.fixture
def software() -> Generator[Counting]:
    with counters.counting(SOFTWARE) as found:
        if found.missing:
            pytest.skip(found.announce())
        yield found


def test_every_page_that_is_touched_is_counted_and_no_other(software: Counting) -> None:
    touch()
    assert PAGES <= software.per_call(touch, 4)["page_faults"] <= PAGES + SLACK
    assert (
        software.per_call(lambda: None)["page_faults"] <= SLACK
    )  # stopped in between, and counted from zero


def test_time_counts_together_with_the_leader(software: Counting) -> None:
    few, many = (
        software.per_call(lambda turns=turns: sum(range(turns)))["task_clock"] for turns in (10**6, 3 * 10**7)
    )
    assert 10 * few < many


def test_what_cannot_be_counted_is_named_with_the_reason() -> None:
    with counters.counting({"nothing": NOTHING}) as found:
        assert found.files == {}
        assert found.per_call(lambda: pytest.fail("nothing to count, nothing to run")) == {}
        assert found.announce().startswith("hardware counters: none; not available: nothing: ")
        assert found.announce().endswith(found.missing["nothing"])


def test_one_missing_event_does_not_take_the_others_away(software: Counting) -> None:
    with counters.counting({"first": NOTHING, **SOFTWARE, "last": NOTHING}) as found:
        assert set(found.missing) == {"first", "last"}
        assert set(found.per_call(touch)) == set(SOFTWARE)


def test_hardware_is_counted_or_the_reason_is_given() -> None:
    with counters.counting() as found:
        assert set(found.files) | set(found.missing) == set(counters.EVENTS)
        assert all(found.missing.values())
        if "instructions" in found.files:
            once, twice = (
                found.per_call(lambda turns=turns: sum(range(turns)))["instructions"]
                for turns in (10**6, 2 * 10**6)
            )
            assert twice == pytest.approx(2 * once, rel=0.2)


@pytest.mark.parametrize(
    ("after", "count"), [((130, 200, 200), 30.0), ((130, 200, 150), 60.0), ((100, 200, 100), None)]
)
def test_a_shared_counter_is_scaled_up(after: counters.Reading, count: float | None) -> None:
    assert counters.scaled((100, 100, 100), after) == count


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, "virtual machine"),
        (errno.EACCES, "perf_event_paranoid is"),
        (errno.EPERM, "seccomp"),
        (errno.ENOSYS, "x86-64"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_reasons_are_for_people(code: int, words: str) -> None:
    assert words in counters.why(code)
