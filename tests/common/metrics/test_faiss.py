"""faiss finds the candidates, and no bit of a result changes."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import BadInputError
from common.metrics import flat
from common.metrics.retrieval import Retrieval, retrieval

pytest.importorskip("faiss", reason="faiss-cpu is not installed")


def table(result: Retrieval) -> Tensor:
    return torch.cat([result.recall, result.map_at_r[:, None], result.r_precision[:, None]], 1)


def clusters(n: int, d: int, classes: int, seed: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return torch.randn(classes, d, generator=draw)[labels] + noise * torch.randn(n, d, generator=draw), labels


def assert_same(x: Tensor, labels: Tensor, *gallery: Tensor, **options: object) -> None:
    found = [retrieval(x, labels, *gallery, engine=engine, **options) for engine in ("torch", "faiss")]  # pyright: ignore
    assert torch.equal(table(found[0]), table(found[1]))
    assert torch.equal(found[0].query, found[1].query) and found[0].excluded == found[1].excluded


@pytest.mark.parametrize(("n", "d", "classes"), [(1500, 33, 300), (1500, 64, 3), (40, 5, 8)])
def test_clusters(n: int, d: int, classes: int) -> None:
    assert_same(*clusters(n, d, classes, 0))
    assert_same(*clusters(n, d, classes, 1), normalise=False, chunk=17)


def test_copies_and_collapse() -> None:
    x, labels = clusters(900, 16, 90, 2)
    x[::7] = x[3].clone()
    assert_same(x, labels)
    assert_same(x[3].expand(900, 16), labels)
    few = x[torch.randint(12, (900,), generator=torch.Generator().manual_seed(0))]
    assert_same(few, labels, ks=(1, 50, 800))


def test_near_ties_beyond_the_neighbours_that_were_asked_for() -> None:
    """All similarities are within rounding: faiss cannot know the nearest, and the other search is taken."""
    draw = torch.Generator().manual_seed(0)
    x = 1 + 2.0**-23 * torch.randint(0, 4000, (200, 8), generator=draw)
    labels = torch.arange(200) % 40
    search = flat.Flat(x, 4)
    everything = torch.full((200,), 1e-3, dtype=torch.float64)
    assert not search.nearest(x, torch.arange(200), everything)[2].any()
    assert_same(x, labels, normalise=False)


def test_queries_in_a_gallery_of_which_some_are_themselves() -> None:
    x, labels = clusters(600, 12, 20, 4)
    x[500:] = x[:100].clone()
    same = torch.where(torch.arange(300) % 3 == 0, torch.arange(300), -1)
    assert_same(x[:300], labels[:300], x, labels, same=same)
    assert_same(x[:50], labels[:50], x[100:], labels[100:], unmatched="exclude")


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6))
def test_small_integers_with_many_ties(n: int, d: int, classes: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(-1, 2, (2 * classes + n, d), generator=draw).float()
    assert_same(x, torch.arange(len(x)) % classes, ks=(1, 3), normalise=False, unmatched="exclude")


def test_which_engine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(10, 3)
    assert flat.wanted("auto", x, 5) and not flat.wanted("torch", x, 5)
    assert not flat.wanted("auto", x.double(), 5) and not flat.wanted("auto", x, 5000)
    with pytest.raises(BadInputError, match="float32 on the CPU"):
        flat.wanted("faiss", x.double(), 5)
    with pytest.raises(BadInputError, match="one of auto, torch, faiss"):
        flat.wanted("fais", x, 5)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not flat.wanted("auto", x, 5)
    with pytest.raises(BadInputError, match="Install faiss-cpu"):
        flat.wanted("faiss", x, 5)
