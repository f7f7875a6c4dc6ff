"""The small parts: cutting batches, holding buffers, reading generators."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import BadInputError
from common.optim import batches, vectors
from common.optim.passes import held_buffers, random_state, set_random_state
from common.optim.rules import SAM, Base
from common.optim.schedules import ByNorm, Constant
from common.optim.settings import Settings


def test_a_nested_batch_is_cut_along_its_first_dimension() -> None:
    batch = {"x": torch.arange(12).reshape(6, 2), "rest": (torch.arange(6), "name")}
    assert batches.size(batch) == 6
    first, last = batches.chunks(batch, 3)
    assert torch.equal(first["x"], batch["x"][:3])
    assert torch.equal(last["rest"][0], torch.tensor([3, 4, 5]))
    assert last["rest"][1] == "name"
    assert batches.chunks(batch, 8) == [batch]
    assert batches.part(batch, 0, 6) is batch


@pytest.mark.parametrize(
    "batch", [(), "text", torch.tensor(1.0), (torch.ones(2), torch.ones(3)), torch.ones(0, 2)]
)
def test_what_has_no_common_first_dimension_is_refused(batch: object) -> None:
    with pytest.raises(BadInputError, match="first dimension"):
        batches.size(batch)


def test_unequal_chunks_are_refused() -> None:
    with pytest.raises(BadInputError, match="chunk = 4 must divide"):
        batches.chunks(torch.ones(6), 4)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("changed", torch.zeros(2), persistent=False)

    def forward(self) -> None:
        self.replaced = self.replaced + 1
        self.changed += 1


def test_buffers_are_held_whether_changed_or_replaced() -> None:
    module = nn.Sequential(Counter())
    before = list(module.buffers())
    with held_buffers(module):
        module[0]()
        assert [float(buffer.sum()) for buffer in module.buffers()] == [2.0, 2.0]
    assert all(a is b for a, b in zip(module.buffers(), before, strict=True))
    assert not any(bool(buffer.any()) for buffer in module.buffers())


def test_every_generator_is_played_again() -> None:
    own = torch.Generator().manual_seed(1)

    def draws() -> list[float]:
        numbers = [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002
        return [*numbers, float(torch.rand((), generator=own))]

    state = random_state([own])
    first = draws()
    set_random_state(state, [own])
    assert draws() == first


@pytest.mark.parametrize("rho", [np.float32(0.25), np.float64(0.25), Fraction(1, 4), np.int64(1), 1])
def test_rho_may_be_any_real_number(rho: Any) -> None:
    """Not a float alone: a numpy scalar was taken for a schedule, and called."""
    schedule = Settings(SAM(), m=8, rho=rho).schedule()
    assert schedule == Constant(float(rho)) and schedule(0.1, 1.0) == float(rho)
    own = ByNorm(0.1)
    assert Settings(SAM(), m=8, rho=own).schedule() is own and Settings(Base(), m=8).schedule() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_vectors(dtype: torch.dtype) -> None:
    u, v = (
        [torch.tensor([3.0], dtype=dtype), torch.tensor([[4.0]], dtype=dtype)],
        [torch.ones(1, dtype=dtype)] * 2,
    )
    assert vectors.norm(u) == 5.0
    assert vectors.dot(u, [v[0], v[1].reshape(1, 1)]) == 7.0
    assert vectors.norm([]) == 0.0
    assert vectors.present([None, u[0], None]) == (1,)
