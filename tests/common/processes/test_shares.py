"""Parts of a batch, means, sums and agreement over the processes of a training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from common.processes import shares
from tests.support.processes import begin, finish

PROGRAM = """
import sys, torch, torch.distributed as dist
from common.errors import BadInputError
from common.processes import shares

dist.init_process_group("gloo")
rank = dist.get_rank()
batch = torch.arange(24.0, dtype=torch.float64).view(2, 6, 2)
own = shares.share(batch, 1)
assert own.shape == (2, 2, 2) and torch.equal(own, batch[:, rank::3])
a, b = own.sum((0, 1)), own.mean().reshape(1, 1)
whole = shares.total(a)
assert torch.equal(whole, batch.sum((0, 1))) and torch.equal(a, own.sum((0, 1)))
shares.mean_([a, b])
assert torch.equal(a, batch.sum((0, 1)) / 3) and torch.allclose(b, batch.mean())
shares.mean_([])
for value in (torch.full((3,), float(rank)), torch.full((0,), float(rank))):
    shares.from_first_(value)
    assert torch.equal(value, torch.zeros_like(value))
shares.check_alike(batch, "the batch")
for wrong in (lambda: shares.share(batch, 0), lambda: shares.check_alike(torch.ones(2) * (rank == 1), "the mask")):
    try:
        wrong()
    except BadInputError as error:
        print(error, flush=True)
dist.destroy_process_group()
"""


@pytest.mark.timeout(120)
def test_three_processes(tmp_path: Path) -> None:
    """Each checks what it got; what is wrong is said by all of them."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    printed = finish(begin(3, [str(path)]))
    assert len(re.findall("a batch of 2 cannot be shared by 3 processes", printed)) == 3
    assert len(re.findall("the mask differs between the processes", printed)) == 3


def test_alone_everything_is_what_it_was() -> None:
    value = torch.arange(5.0)
    assert shares.share(value, 0) is value and shares.total(value) is value
    shares.mean_([value])
    shares.from_first_(value)
    shares.check_alike(value, "it")
    assert torch.equal(value, torch.arange(5.0))
