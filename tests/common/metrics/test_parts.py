"""The parts under retrieval: sums in a fixed order, their bound, copies, ties and the candidates."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.metrics.neighbours import Side, rankings
from common.metrics.similarity import error_bound, exact, lengths, originals, tree_sum, true_products, unit
from common.metrics.ties import expected_scores
from tests.common.metrics.reference import orders, scores


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 64, 100, 513])
def test_a_sum_is_the_sum_and_has_the_same_bits_in_any_company(d: int) -> None:
    x = torch.randn(50, d, generator=draws(d), dtype=torch.float64)
    sums = tree_sum(x.clone())
    assert sums.tolist() == pytest.approx([math.fsum(row) for row in x.tolist()], abs=1e-13)
    for rows in (slice(3, 4), slice(0, 50, 7), slice(20, 50)):
        assert torch.equal(tree_sum(x[rows].clone()), sums[rows])


def test_a_sum_does_not_keep_what_it_summed_alive() -> None:
    assert tree_sum(torch.ones(10, 1000, dtype=torch.float64)).untyped_storage().nbytes() == 80


def test_pairs_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(9, 40, generator=draws(0)), torch.randn(11, 40, generator=draws(1))
    rows, columns = torch.arange(9).repeat_interleave(11), torch.arange(11).repeat(9)
    found = exact(x, y, rows, columns)
    torch.testing.assert_close(found.view(9, 11), x.double() @ y.double().t(), rtol=0, atol=1e-13)
    monkeypatch.setattr("common.metrics.similarity.CACHED", 1)
    assert torch.equal(found, exact(x, y, rows, columns))
    assert exact(x, y, rows[:0], columns[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e12, 1e-25])
def test_the_bound_holds_and_is_not_idle(dtype: torch.dtype, scale: float) -> None:
    x = scale * torch.randn(200, 128, generator=draws(2)).to(dtype)
    index = torch.arange(200)
    true = exact(x, x, index.repeat_interleave(200), index.repeat(200)).view(200, 200)
    size = lengths(x)
    bound = error_bound(dtype, 128, size, size.max())
    worst = ((x @ x.t()).double() - true).abs().max(1).values
    assert (worst <= bound).all()
    if dtype is torch.float32 and scale >= 1:
        assert (bound < 1e-4 * size * size.max()).all() and worst.max() > 0


def test_unit_vectors() -> None:
    x = torch.randn(30, 9, generator=draws(3)) * torch.logspace(-18, 18, 30)[:, None]
    torch.testing.assert_close(lengths(unit(x, lengths(x))), torch.ones(30).double(), rtol=0, atol=1e-7)
    assert torch.equal(unit(x, lengths(x)), unit(x * 4, lengths(x * 4)))


def test_copies_are_found() -> None:
    x = torch.randn(40, 6, generator=draws(4))
    assert originals(x) is None
    x[[5, 17, 39]], x[[8, 9]] = x[2].clone(), x[1].clone()
    found = originals(x)
    assert found is not None
    for i, j in itertools.product(range(40), range(40)):
        assert (found[i] == found[j]) == torch.equal(x[i], x[j])


def test_equal_projections_are_not_yet_copies() -> None:
    x = torch.tensor(
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1e-30]]
    )
    found = originals(x)
    assert found is not None and found[1] == found[2] and found[0] != found[3]


def test_products_are_true_inside_and_as_before_outside() -> None:
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision

    def look_and_fail() -> None:
        assert matmul.fp32_precision == "ieee" and not torch.is_autocast_enabled("cpu")
        raise ValueError("x")

    try:
        matmul.fp32_precision = "bf16"
        with pytest.raises(ValueError, match="x"), torch.autocast("cpu"), true_products(torch.device("cpu")):
            look_and_fail()
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=7))
def test_expected_scores_are_means_over_orders(items: list[tuple[int, bool]]) -> None:
    items = sorted(items, key=lambda item: -item[0])
    values, relevant = [float(value) for value, _ in items], [flag for _, flag in items]
    if not (r := sum(relevant)):
        return
    ks = tuple(range(1, len(items) + 1))
    found = expected_scores(
        torch.tensor([values]), torch.tensor([relevant]).long(), torch.tensor([r]), ks, len(items)
    )
    each = [scores(order, r, ks) for order in orders(values, relevant)]
    expected = [sum(column) / len(each) for column in zip(*each, strict=True)]
    assert [
        *found.recall[0].tolist(),
        *found.map_at_r.tolist(),
        *found.r_precision.tolist(),
    ] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "m", "k"), [(100_000, 5, 1000), (5000, 4000, 3), (50, 50, 1), (60, 1, 59)])
def test_recall_of_a_large_tie(n: int, m: int, k: int) -> None:
    relevant = torch.zeros(1, n, dtype=torch.int64)
    relevant[0, n - m :] = 1
    found = expected_scores(torch.zeros(1, n), relevant, torch.tensor([min(m, k)]), (k,), k)
    missed = math.comb(n - m, k) / math.comb(n, k)
    assert float(found.recall) == pytest.approx(1 - missed, rel=1e-12)


@pytest.mark.parametrize("faiss", [False, True])
@pytest.mark.parametrize("k", [1, 5, 60, 239])
def test_candidates_hold_every_relevant_neighbour_with_its_rank(k: int, faiss: bool) -> None:
    x, labels = torch.randn(240, 8, generator=draws(5)), torch.arange(240) % 7
    x[10:30] = x[:20].clone()
    both, own = Side(x, labels), torch.arange(240)
    every = exact(x, x, own.repeat_interleave(240), own.repeat(240)).view(240, 240)
    every.fill_diagonal_(-torch.inf)
    done: list[int] = []
    for ranking in rankings(both, both, own, k, 50, faiss=faiss):
        assert ranking.size is not None
        for query, *rest in zip(
            ranking.rows.tolist(), ranking.similarity, ranking.relevant, ranking.size, strict=True
        ):
            similarity, relevant, size = rest
            mine = every[query]
            kin = labels == labels[query]
            for value in mine[kin & (mine > -torch.inf)].tolist():
                above, ties = int((mine > value).sum()), int((mine == value).sum())
                if above < k:
                    assert int(size[similarity > value].sum()) == above
                    assert int(size[similarity == value].sum()) == ties
                    assert int(relevant[similarity == value].sum()) == int(kin[mine == value].sum())
            done.append(query)
    assert sorted(done) == list(range(240))
