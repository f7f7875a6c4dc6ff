import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInputError
from common.tracking.record import HISTORY, PROGRESS, TIMING, Recorder, read_history


def test_bytes_are_those_of_json_in_the_order_given(tmp_path: Path) -> None:
    with Recorder(tmp_path) as record:
        record.log(0, **{"b/x": 0.1, "a": 1})
        record.log(7, loss=1e-300)
    assert (tmp_path / HISTORY).read_bytes() == b'{"step":0,"b/x":0.1,"a":1}\n{"step":7,"loss":1e-300}\n'


@settings(deadline=None)
@given(st.floats())
def test_a_float_survives_the_file_bit_for_bit(value: float) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        with Recorder(Path(folder)) as record:
            record.log(1, x=value)
        (row,) = read_history(Path(folder) / HISTORY)
    if math.isfinite(value):
        assert float(row["x"]).hex() == value.hex()  # pyright: ignore[reportArgumentType]
    else:
        assert row["x"] is None


def test_scalars_of_libraries_become_plain_numbers(tmp_path: Path) -> None:
    import numpy as np

    with Recorder(tmp_path) as record:
        record.log(np.int64(3), a=np.float32(0.5), b=np.int32(4), c=True)
    assert (tmp_path / HISTORY).read_text() == '{"step":3,"a":0.5,"b":4,"c":1}\n'


def test_a_row_is_in_the_file_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    record = Recorder(tmp_path)
    record.log(1, x=1.0)
    assert read_history(tmp_path / HISTORY) == [{"step": 1, "x": 1.0}]
    record.close()
    record.close()


def test_truncate_drops_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    with Recorder(tmp_path) as record:
        record.log(1, x=1.0)
        record.sync()
        kept = record.length()
        record.log(2, x=2.0)
    with Recorder(tmp_path) as record:
        record.truncate(kept)
        record.log(2, x=3.0)
        assert [row["x"] for row in read_history(tmp_path / HISTORY)] == [1.0, 3.0]
        with pytest.raises(ValueError, match="the checkpoint counted 999"):
            record.truncate(999)


def test_a_torn_last_line_is_not_read_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / HISTORY
    path.write_bytes(b'{"step":1,"x":1.0}\n{"step":2,"x":')
    assert read_history(path) == [{"step": 1, "x": 1.0}]
    with Recorder(tmp_path) as record:
        record.log(2, x=2.0)
    assert read_history(path) == [{"step": 1, "x": 1.0}, {"step": 2, "x": 2.0}]


@pytest.mark.parametrize("line", [b"\0\0\0", b"[1]", b"{]"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / HISTORY
    path.write_bytes(b'{"step":1}\n' + line + b'\n{"step":2}\n')
    with pytest.raises(BadInputError, match="is damaged"):
        read_history(path)


def test_the_clock_is_in_timing_only_and_not_at_every_row(tmp_path: Path) -> None:
    with Recorder(tmp_path) as record:
        for step in range(100):
            record.log(step, x=0.0)
    assert b"time" not in (tmp_path / HISTORY).read_bytes()
    (row,) = read_history(tmp_path / TIMING)
    assert row["step"] == 0
    assert row["cpu_seconds"] > 0  # pyright: ignore[reportOptionalOperand]
    assert row["rss_bytes"] > 1 << 20  # pyright: ignore[reportOptionalOperand]


def test_progress_is_written_at_most_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / PROGRESS
    with Recorder(tmp_path) as record:
        record.progress(10, 100)
        record.progress(20, 100)
        assert json.loads(path.read_text())["done"] == 10
        record.progress(100, 100)
    state = json.loads(path.read_text())
    assert (state["done"], state["total"], state["first"]) == (100, 100, 10)
    assert state["started"] <= state["time"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [HISTORY, PROGRESS, TIMING]


def test_a_full_disk_is_reported_and_leaves_whole_lines(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from common.tracking.record import Recorder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "record = Recorder(Path(sys.argv[1]))\n"
        "try:\n    for step in range(1000): record.log(step, x=0.5)\n"
        "except OSError as error: print(error.errno, record.length())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    errno, length = map(int, done.stdout.split())
    data = (tmp_path / HISTORY).read_bytes()
    assert errno == 27
    assert len(data) == length <= 1000
    assert data.endswith(b"}\n")
    assert [row["step"] for row in read_history(tmp_path / HISTORY)] == list(range(data.count(b"\n")))


def test_no_descriptor_is_leaked(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        Recorder(tmp_path).log(1, x=1.0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_neither_torch_nor_wandb_is_imported() -> None:
    code = (
        "import sys, common.tracking.record, common.tracking.redact, common.tracking.provenance as p\n"
        "p.provenance(fingerprint='f', parts={}, packages=[], seed=None, command='x')\n"
        "assert not {'torch', 'wandb', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
