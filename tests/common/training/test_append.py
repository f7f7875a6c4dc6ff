from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.training.append import AppendOnlyFile

STEP = np.dtype([("state", np.float64, (2,)), ("action", np.int32)])


def whole(file: AppendOnlyFile) -> np.ndarray:
    into = np.zeros((len(file) + 2, *file.shape), file.dtype)
    assert file.read(into) == len(file)
    assert not any(into[len(file) :].tobytes())
    return into[: len(file)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(0, 5)),
            st.tuples(st.just("keep"), st.floats(0, 1)),
            st.tuples(st.just("reopen"), st.integers(0, 11)),
        ),
        max_size=12,
    )
)
def test_it_is_a_list_that_survives(tmp_path_factory: pytest.TempPathFactory, actions: list) -> None:
    """Against a Python list: append, truncate to an earlier length, reopen after a torn write of k bytes."""
    path = tmp_path_factory.mktemp("append") / "a.bin"
    file, model, counter = AppendOnlyFile(path, np.float32, (3,)), [], 0
    for action, amount in actions:
        if action == "append":
            records = np.arange(counter, counter + 3 * amount, dtype=np.float32).reshape(amount, 3)
            counter += 3 * amount
            file.append(records)
            model.extend(records.tolist())
        elif action == "keep":
            model = model[: int(len(model) * amount)]
            file.truncate(12 * len(model))
        else:
            file.close()
            with path.open("ab") as torn:
                torn.write(b"x" * amount)
            file = AppendOnlyFile(path, np.float32, (3,))
        assert file.length() == 12 * len(model)
    assert whole(file).tolist() == model
    file.close()


def test_structured_and_single_records(tmp_path: Path) -> None:
    file = AppendOnlyFile(tmp_path / "a.bin", STEP)
    records = np.zeros(3, STEP)
    records["state"], records["action"] = [[1, 2], [3, 4], [5, 6]], [7, 8, 9]
    file.append(records[:2])
    file.append(records[2])
    assert len(file) == 3
    assert (whole(file) == records).all()
    file.close()


def test_nothing_is_rewritten_and_sync_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    file = AppendOnlyFile(path, np.uint8, (4,))
    file.append(np.ones((2, 4), np.uint8))
    file.sync()
    inode, size = path.stat().st_ino, path.stat().st_size
    assert size == 8
    file.append(np.full((1, 4), 2, np.uint8))
    file.sync()
    assert path.stat().st_ino == inode
    assert path.read_bytes() == bytes([1] * 8 + [2] * 4)
    file.close()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = AppendOnlyFile(tmp_path / "a.bin", np.float32, (3,))
    with pytest.raises(TypeError, match="holds float32, not float64"):
        file.append(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="shape"):
        file.append(np.zeros((1, 4), np.float32))
    file.append(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="cannot cut"):
        file.truncate(36)
    with pytest.raises(ValueError, match="cannot cut"):
        file.truncate(13)
    with pytest.raises(ValueError, match="at least"):
        file.read(np.zeros((1, 3), np.float32))
    with pytest.raises(TypeError, match="fixed"):
        AppendOnlyFile(tmp_path / "b.bin", object)
    file.close()
