"""Vectors cut over processes: put together, differentiated, kept in state dicts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.processes.cut import Cut, cut_of
from tests.support.processes import begin, finish

PROGRAM = """
import torch, torch.distributed as dist
from torch import nn
from common.cluster.ranks import parts
from common.processes.cut import Cut, cut_of

dist.init_process_group("gloo")
rank = dist.get_rank()
assert parts() == (3, rank)
cut = Cut(7, *parts())
whole = torch.arange(14.0, dtype=torch.float64).view(2, 7)
assert torch.equal(cut.whole(cut.own(whole)), whole)
ints = torch.arange(7)
assert torch.equal(cut.whole(cut.own(ints)), ints)

# a loss that is another one on each process: its mean's gradient, of which each gets its part
weight = cut.parameter(whole[1])
assert cut_of(weight) is cut and weight.shape == (3,)
loss = (rank + 1.0) * cut.whole(weight).pow(3).sum()
loss.backward()
alone = whole[1].clone().requires_grad_()
(2.0 * alone.pow(3).sum()).backward()
assert torch.allclose(weight.grad, cut.own(alone.grad), rtol=1e-15)


class Net(nn.Module):
    def __init__(self, value, where):
        super().__init__()
        self.flat = where.parameter(value)
        self.register_buffer("count", torch.ones(2))
        where.keep(self, "flat")


for net in (Net(whole[0], cut), nn.Sequential(Net(whole[0], cut))):
    state = net.state_dict()
    name = next(iter(state))
    assert torch.equal(state[name], whole[0]) and state[name].requires_grad is False
    net.load_state_dict({**state, name: whole[1]})
    assert torch.equal(net.state_dict()[name], whole[1]) and state[name].shape == (7,)
    assert next(net.parameters()).shape == (3,)
    try:
        net.load_state_dict({})
    except RuntimeError as error:
        assert "Missing key" in str(error)
    else:
        raise AssertionError("a missing weight was not noticed")
dist.destroy_process_group()
"""


@pytest.mark.timeout(120)
def test_three_processes(tmp_path: Path) -> None:
    """Seven entries on three: each process checks what it got."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    finish(begin(3, [str(path)], RETHESIS_STRATEGY="fsdp"))


@given(length=st.integers(1, 40), parts=st.integers(1, 9), rows=st.integers(1, 3))
def test_the_parts_side_by_side_are_the_whole(length: int, parts: int, rows: int) -> None:
    """In order, of equal size, and nothing but zeros after the end."""
    whole = torch.rand(rows, length) + 1.0
    pieces = [Cut(length, parts, index).own(whole) for index in range(parts)]
    assert len({piece.shape for piece in pieces}) == 1
    together = torch.cat(pieces, -1)
    assert torch.equal(together[:, :length], whole) and not together[:, length:].any()


def test_uncut_everything_is_what_it_was() -> None:
    whole, cut = torch.arange(5.0), Cut(5)
    assert cut.own(whole) is whole and cut.whole(whole) is whole
    parameter = cut.parameter(whole)
    assert cut_of(parameter) is None and torch.equal(parameter, whole)
    module = nn.Module()
    module.flat = parameter
    cut.keep(module, "flat")
    assert torch.equal(module.state_dict()["flat"], whole)
