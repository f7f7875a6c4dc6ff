"""The ring against a list that forgets its oldest entries, and its sums against a recomputation, to the bit."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInputError
from projects.proxy_isa.memory import SCALE, ClassMemory, Ring

D, C = 6, 4


def features(n: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, D, generator=draw))


def entries(x: torch.Tensor, y: torch.Tensor) -> list[tuple[int, ...]]:
    """Sortable rows: label, then the fixed-point feature."""
    fixed = (x.double() * SCALE).round().long()
    return sorted((int(label), *row) for label, row in zip(y, fixed.tolist(), strict=True))


@given(st.integers(1, 17), st.lists(st.integers(0, 23), max_size=12), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_ring_is_a_queue(capacity: int, sizes: list[int], seed: int) -> None:
    """Any batch sizes, empty and above the capacity included; class 0 in any slot; sums and counts recomputed."""
    memory, queue = ClassMemory(capacity, C, D), deque(maxlen=capacity)
    draw = torch.Generator().manual_seed(seed)
    for number, size in enumerate(sizes):
        x, y = features(size, seed + number), torch.randint(C, (size,), generator=draw)
        memory.push(x, y)
        queue.extend(
            (int(label), *row)
            for label, row in zip(y, (x.double() * SCALE).round().long().tolist(), strict=True)
        )
        ring = memory.ring
        held = min(int(ring.pushed), capacity)
        fixed, labels = ring.features[:held].long(), ring.labels[:held]
        assert sorted(
            (int(label), *row) for label, row in zip(labels, fixed.tolist(), strict=True)
        ) == sorted(queue)
        for c in range(C):
            assert torch.equal(memory.sums[c], fixed[labels == c].sum(0))
            assert int(memory.held[c]) == int((labels == c).sum())


def test_class_zero_in_the_last_slot() -> None:
    """As released such a ring counted as not full and lost its tail."""
    ring = Ring(4, D)
    x = features(6, 0)
    ring.push(x[:4], torch.tensor([1, 2, 3, 0]))
    assert entries(*ring.contents()) == entries(x[:4], torch.tensor([1, 2, 3, 0]))
    ring.push(x[4:], torch.tensor([0, 0]))
    assert entries(*ring.contents()) == entries(x[2:], torch.tensor([3, 0, 0, 0]))


def test_nothing_drifts() -> None:
    """Ten thousand batches later the sums are the recomputed ones, and the similarity that of the features."""
    memory = ClassMemory(50, C, D)
    x, y = features(4000, 1), torch.randint(C, (4000,), generator=torch.Generator().manual_seed(2))
    for step in range(10_000):
        at = torch.arange(3 * step, 3 * step + 3) % 4000
        memory.push(x[at], y[at])
    kept, labels = memory.ring.contents()
    fixed = memory.ring.features.long()
    assert all(torch.equal(memory.sums[c], fixed[labels == c].sum(0)) for c in range(C))
    proxies, classes = features(C, 3), torch.arange(C)
    exact = torch.stack([(kept[labels == c] @ proxies[c]).double().mean() for c in range(C)])
    assert torch.allclose(memory.similarity(proxies, classes).double(), exact, atol=1e-6)


def test_a_feature_is_kept_as_float32_knows_it() -> None:
    ring = Ring(100, D)
    x = features(100, 4)
    ring.push(x, torch.zeros(100, dtype=torch.int64))
    kept, _ = ring.contents()
    large = x.abs() > 2.0**-7
    assert torch.equal(kept[large], x[large])
    assert float((kept - x).abs().max()) <= 2.0**-31
    extreme = torch.eye(D)[:2] * torch.tensor([[1.0], [-1.0]])
    ring.push(extreme, torch.tensor([0, 1]))
    assert torch.equal(ring.contents()[0][:2], extreme)


def test_conversions_leave_it_alone() -> None:
    memory = ClassMemory(5, C, D)
    memory.push(features(7, 5), torch.arange(7) % C)
    before = {key: value.clone() for key, value in memory.state_dict().items()}
    memory.half().double().bfloat16()
    assert all(torch.equal(value, before[key]) for key, value in memory.state_dict().items())


def test_a_class_without_features_has_no_similarity() -> None:
    assert bool(ClassMemory(5, C, D).similarity(features(1, 0), torch.tensor([2])).isnan().all())


def test_no_capacity() -> None:
    with pytest.raises(BadInputError, match="at least 1"):
        Ring(0, D)
