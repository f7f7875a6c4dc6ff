from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from common.data.balanced import BalancedSampler, even_cycle
from common.errors import BadInputError
from common.training.data import Keyed, loader

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=9)


def labels_of(sizes: list[int], seed: int = 0) -> torch.Tensor:
    """So many samples of each class, mixed; class numbers with gaps."""
    labels = torch.cat([torch.full((size,), 3 * number) for number, size in enumerate(sizes)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def stream(n: int, size: int, blocks: int) -> list[list[int]]:
    found: list[list[int]] = []
    cycle = 0
    while len(found) < blocks:
        found += even_cycle(n, size, cycle, 5, "test").tolist()
        cycle += 1
    return found[:blocks]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.data())
def test_streams_of_blocks_are_even(n: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, n))
    seen = Counter(dict.fromkeys(range(n), 0))
    for block in stream(n, size, 3 * n):
        assert len(set(block)) == size
        seen.update(block)
        assert max(seen.values()) - min(seen.values()) <= 1
        assert set(seen) == set(range(n))


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 6), st.integers(0, 3), st.data())
def test_batches(sizes: list[int], per_class: int, seed: int, data: st.DataObject) -> None:
    classes = data.draw(st.integers(1, len(sizes)))
    labels = labels_of(sizes)
    sampler = BalancedSampler(labels, classes, per_class, 40, seed)
    of_classes: Counter[int] = Counter({3 * number: 0 for number in range(len(sizes))})
    of_images: Counter[int] = Counter(dict.fromkeys(range(len(labels)), 0))
    for step, batch in enumerate(sampler):
        assert {key[0] for key in batch} == {step}
        indices = [index for _, index in batch]
        groups = [indices[at : at + per_class] for at in range(0, len(indices), per_class)]
        assert len(groups) == classes
        drawn = [set(labels[group].tolist()) for group in groups]
        assert all(len(group) == 1 for group in drawn)
        assert len(set().union(*drawn)) == classes
        for group, (label,) in zip(groups, drawn, strict=True):
            n, times = sizes[label // 3], Counter(group)
            assert len(times) == min(n, per_class)  # it repeats none before it took all
            assert max(times.values()) - min(times.values()) <= 1
            of_classes[label] += 1
        of_images.update(indices)
        assert max(of_classes.values()) - min(of_classes.values()) <= 1
    for number in range(len(sizes)):
        own = [of_images[index] for index in range(len(labels)) if labels[index] == 3 * number]
        assert max(own) - min(own) <= 1


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(1, 6), st.integers(0, 25), st.data())
def test_a_resume_gives_the_same_batches(
    sizes: list[int], per_class: int, start: int, data: st.DataObject
) -> None:
    classes = data.draw(st.integers(1, len(sizes)))
    options = (labels_of(sizes), classes, per_class, 25)
    once = list(BalancedSampler(*options, seed=1))
    resumed = BalancedSampler(*options, seed=1, start=start)
    assert list(resumed) == once[start:]
    assert (len(resumed), list(resumed)) == (25, once[start:])
    backwards = BalancedSampler(*options, seed=1)
    assert [backwards.batch(step) for step in range(24, -1, -1)] == [
        [index for _, index in batch] for batch in once[::-1]
    ]


def test_seeds_and_steps_differ() -> None:
    labels = labels_of([8] * 30)
    first, second = (list(BalancedSampler(labels, 6, 3, 10, seed)) for seed in (0, 1))
    assert first != second
    assert len({tuple(batch) for batch in first}) == 10
    assert list(BalancedSampler(labels, 6, 3, 10, 0)) == first


def test_the_draw_is_uniform() -> None:
    """Positions 0 to 3 of the first batch over many seeds: each class as often as the others."""
    labels = labels_of([2] * 5)
    count = Counter(
        int(labels[BalancedSampler(labels, 4, 1, 1, seed).batch(0)[at]])
        for seed in range(500)
        for at in (0, 3)
    )
    assert set(count) == {0, 3, 6, 9, 12}
    assert max(abs(number - 200) for number in count.values()) < 60  # 4.7 standard deviations


def test_with_keyed_and_loader() -> None:
    labels = labels_of([4] * 6)
    data = Keyed(TensorDataset(torch.arange(24.0), labels), 0)
    batches = [
        [values.tolist() for values, _ in loader(data, BalancedSampler(labels, 3, 2, 9, 2, start))]  # pyright: ignore[reportArgumentType]
        for start in (0, 5)
    ]
    assert [len(values) for values in batches[0]] == [6] * 9
    assert batches[0][5:] == batches[1]


def test_bad_input() -> None:
    labels = labels_of([2, 2])
    with pytest.raises(BadInputError, match="3 classes cannot be drawn from 2"):
        BalancedSampler(labels, 3, 2, 10, 0)
    for classes, per_class in ((0, 2), (2, 0), (-1, 1)):
        with pytest.raises(BadInputError, match="has no image"):
            BalancedSampler(labels, classes, per_class, 10, 0)
    with pytest.raises(BadInputError, match="1 classes cannot be drawn from 0"):
        BalancedSampler(torch.tensor([], dtype=torch.int64), 1, 1, 10, 0)
