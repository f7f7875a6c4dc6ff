from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from common.errors import BadInputError
from common.training import stop


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in stop.SIGNALS}
    stop.clear()
    yield
    stop.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_a_signal_sets_the_flag_and_nothing_else(number: signal.Signals) -> None:
    stop.install()
    assert stop.requested() is None
    os.kill(os.getpid(), number)
    assert stop.requested() == f"received {number.name}"


def test_the_deadline_counts_with_its_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHESIS_DEADLINE", str(time.time() + 40))
    stop.install()
    assert stop.requested() is None
    monkeypatch.setenv("RETHESIS_MARGIN", "41")
    stop.install()
    assert stop.requested() == "the time limit (RETHESIS_DEADLINE) is near"


def test_without_a_deadline_nothing_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETHESIS_DEADLINE", raising=False)
    stop.install()
    assert stop.requested() is None


def test_a_deadline_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHESIS_DEADLINE", "noon")
    with pytest.raises(BadInputError, match=r"RETHESIS_DEADLINE='noon'"):
        stop.install()


def test_the_flag_needs_no_torch() -> None:
    code = "import sys, common.training.stop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
