"""Two processes train what one does: to rounding across numbers of processes, to the bit on the same number."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from common.cluster.ranks import Place
from common.errors import BadInputError
from common.training import parallel
from common.training.data import StepSampler, shared
from tests.support import processes
from tests.support.processes import finish

PROGRAM = processes.ROOT / "tests" / "support" / "parallel_fit.py"
pytestmark = pytest.mark.timeout(240)


def begin(
    out: Path, size: int, steps: int, dropout: float, kind: str = "plain", **extra: str
) -> list[subprocess.Popen[str]]:
    return processes.begin(size, [str(PROGRAM), str(out), str(steps), str(dropout), kind], **extra)


def train(
    out: Path, size: int, dropout: float = 0.0, kind: str = "plain", strategy: str = "ddp", code: int = 0
) -> str:
    return finish(begin(out, size, 30, dropout, kind, RETHESIS_STRATEGY=strategy), code)


def interrupt(out: Path, dropout: float, strategy: str = "ddp", kind: str = "plain") -> str:
    """Train on two processes, and stop them by a signal to the second, somewhere before the end."""
    both = begin(out, 2, 30, dropout, kind, FIT_SLEEP="0.1", RETHESIS_STRATEGY=strategy)
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()  # its place: it begins
    time.sleep(1.0)
    while not any(out.glob("checkpoints/*")) and both[1].poll() is None:
        both[1].send_signal(signal.SIGUSR1)
        time.sleep(0.2)
    return finish(both, 75)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "weights.pt", weights_only=True)


def distance(a: Path, b: Path) -> float:
    one, two = weights(a), weights(b)
    return max(float((one[key] - two[key]).abs().max()) for key in one)


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        ("plain", "ddp"),
        ("plain", "fsdp"),
        pytest.param("pairs", "ddp", marks=pytest.mark.slow),  # a loss of the whole batch
        pytest.param("pairs", "fsdp", marks=pytest.mark.slow),
        pytest.param("sam", "ddp", marks=pytest.mark.slow),  # makes its own steps
        ("halves", "fsdp"),  # on parts of the weights: with two perturbation batches, ...
        pytest.param("random", "fsdp", marks=pytest.mark.slow),  # ... a first pass without gradient,
        pytest.param("momentum", "fsdp", marks=pytest.mark.slow),  # ... and none
    ],
)
def test_two_processes_equal_one_in_float64(tmp_path: Path, kind: str, strategy: str) -> None:
    train(tmp_path / "one", 1, kind=kind)
    train(tmp_path / "two", 2, kind=kind, strategy=strategy)
    gap = distance(tmp_path / "one", tmp_path / "two")
    print(
        f"measured: 30 steps ({kind}, {strategy}) on 2 processes and on 1 (float64): largest difference of a "
        f"weight {gap:.1e}"
    )
    assert gap < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "strategy", "message"),
    [
        ("whole", "ddp", "Whole cannot be shared by 2 processes"),
        ("odd", "fsdp", "m = 3 must be a multiple of the 2 processes"),
        ("steps", "fsdp", "Steps makes its own steps and cannot be sharded"),
        ("plain", "dpp", "parallel.strategy 'dpp'"),
    ],
)
def test_what_several_processes_cannot_do_is_said_by_all(
    tmp_path: Path, kind: str, strategy: str, message: str
) -> None:
    assert train(tmp_path, 2, kind=kind, strategy=strategy, code=2).count(message) == 2


def test_a_signal_to_one_rank_stops_both_at_one_step_and_the_bits_are_kept(tmp_path: Path) -> None:
    """With dropout, so that each rank's own generator must come back."""
    train(tmp_path / "whole", 2, 0.3)
    cut = tmp_path / "cut"
    output = interrupt(cut, 0.3)
    first, second = (line for line in output.splitlines() if line.startswith("stopped after step"))
    assert first.split(":")[0] == second.split(":")[0] and "SIGUSR1" in first + second
    assert "another process of the job" in first + second
    train(cut, 2, 0.3)
    assert distance(cut, tmp_path / "whole") == 0.0


@pytest.mark.slow
def test_a_sharp_step_on_parts_of_the_weights_continues_to_the_bit(tmp_path: Path) -> None:
    """LookSAM between two of its perturbations: what it remembers is in the checkpoint, whole."""
    train(tmp_path / "whole", 2, kind="look", strategy="fsdp")
    cut = tmp_path / "cut"
    interrupt(cut, 0.0, "fsdp", kind="look")
    train(cut, 2, kind="look", strategy="fsdp")
    assert distance(cut, tmp_path / "whole") == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_continued_on_another_number_of_processes_it_differs_by_rounding(
    tmp_path: Path, strategy: str
) -> None:
    train(tmp_path / "whole", 1)
    cut = tmp_path / "cut"
    interrupt(cut, 0.0, strategy)
    train(cut, 1)
    gap = distance(cut, tmp_path / "whole")
    print(
        f"measured: stopped on 2 processes ({strategy}), continued on 1 (float64): largest difference of a weight "
        f"{gap:.1e}"
    )
    assert gap < 1e-13


def test_what_one_process_began_two_continue_in_parts(tmp_path: Path) -> None:
    """A checkpoint numbers parameters by the optimiser's groups, whose order is the user's."""
    train(tmp_path / "whole", 1, kind="groups")
    cut = tmp_path / "cut"
    finish(begin(cut, 1, 30, 0.0, "groups", FIT_STOP="11"), 75)
    train(cut, 2, kind="groups", strategy="fsdp")
    assert distance(cut, tmp_path / "whole") < 1e-13


@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_a_loss_that_is_no_number_on_one_process_ends_all(tmp_path: Path, strategy: str) -> None:
    output = train(tmp_path, 2, kind="nan", strategy=strategy, code=70)
    assert output.count("gradient norm became nan at step 4") == 2
    assert (tmp_path / "checkpoints" / "before-non-finite.ckpt").is_file()


def test_dropout_of_other_processes_is_each_seeds_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    drawn: list[float] = []
    for seed in (0, 1, 1):
        torch.manual_seed(seed)
        parallel._SharedKeeper._streams_apart(cast(Any, SimpleNamespace(saved=None)))
        drawn.append(float(torch.rand(())))
    assert drawn[0] != drawn[1] == drawn[2]


def test_shares_are_a_partition_of_each_batch() -> None:
    whole = list(StepSampler(20, 6, 5, seed=1))
    parts = [list(shared(StepSampler(20, 6, 5, seed=1), Place(rank, 3))) for rank in range(3)]
    for step, batch in enumerate(whole):
        assert sorted(key for part in parts for key in part[step]) == sorted(batch)
        assert {len(part[step]) for part in parts} == {2}
    with pytest.raises(BadInputError, match="a batch of 6 cannot be shared by 4 processes"):
        next(iter(shared(StepSampler(20, 6, 5, seed=1), Place(0, 4))))
