"""Against plain Python with every order of ties, and what must not change a result."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.metrics import neighbours
from common.metrics.retrieval import Retrieval, retrieval
from tests.common.metrics.reference import brute, dots


def table(result: Retrieval) -> Tensor:
    return torch.cat([result.recall, result.map_at_r[:, None], result.r_precision[:, None]], 1)


def same_bits(one: Retrieval, other: Retrieval) -> bool:
    return torch.equal(table(one), table(other))


def clusters(n: int, d: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy clusters of unequal sizes, each of two at least."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(classes).repeat(2), torch.randint(classes, (n,), generator=draw) // 2])[
        :n
    ]
    centres = torch.randn(classes, d, generator=draw)
    return centres[labels] + torch.randn(n, d, generator=draw), labels


SIGNS = st.lists(st.integers(-1, 1), min_size=2, max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SIGNS, st.integers(0, 2)), min_size=3, max_size=7), st.integers(1, 8))
def test_ties_are_the_mean_over_all_orders(rows: list[tuple[list[int], int]], chunk: int) -> None:
    x, labels = torch.tensor([row for row, _ in rows]).float(), [label for _, label in rows]
    counted = [i for i, label in enumerate(labels) if labels.count(label) > 1]
    if not counted:
        return
    ks = tuple(range(1, len(rows)))
    result = retrieval(x, torch.tensor(labels), ks=ks, normalise=False, unmatched="exclude", chunk=chunk)
    lists = dots(x, x)
    expected = brute([lists[i] for i in counted], [labels[i] for i in counted], labels, counted, ks)
    assert result.query.tolist() == counted and result.excluded == len(rows) - len(counted)
    torch.testing.assert_close(table(result), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6), st.integers(1, 40), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([32, 64])
)
def test_random_embeddings_of_unequal_classes(classes: int, extra: int, d: int, seed: int, bits: int) -> None:
    x, labels = clusters(2 * classes + extra, d + 1, classes, seed)
    x = x.to(torch.float32 if bits == 32 else torch.float64)
    ks = (1, 2, 3)
    result = retrieval(x, labels, ks=ks, normalise=False, chunk=5)
    expected = brute(dots(x, x), labels.tolist(), labels.tolist(), range(len(labels)), ks)
    torch.testing.assert_close(table(result), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert result.matches.tolist() == [labels.tolist().count(label) - 1 for label in labels.tolist()]


def test_cosine_is_the_inner_product_of_unit_vectors() -> None:
    x, labels = clusters(60, 7, 6)
    x = x * torch.rand(60, 1)
    unit = (x.double() / x.double().norm(dim=1, keepdim=True)).float()
    expected = brute(dots(unit, unit), labels.tolist(), labels.tolist(), range(60), (1, 2, 4, 8))
    result = retrieval(x, labels)
    torch.testing.assert_close(table(result), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert not same_bits(result, retrieval(x, labels, normalise=False))


def test_queries_and_gallery_with_the_same_images_in_part() -> None:
    x, labels = clusters(50, 6, 5)[0], torch.arange(50) % 4
    gallery, gallery_labels = x[10:], labels[10:]
    queries, query_labels = x[:30], labels[:30]
    same = torch.cat([torch.full((10,), -1), torch.arange(20)])
    result = retrieval(queries, query_labels, gallery, gallery_labels, ks=(1, 5), same=same, normalise=False)
    lists = dots(queries, gallery)
    expected = brute(lists, query_labels.tolist(), gallery_labels.tolist(), same.tolist(), (1, 5))
    torch.testing.assert_close(table(result), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    inside = retrieval(queries, query_labels, gallery, gallery_labels, ks=(1, 5))
    assert (inside.recall[10:, 0] == 1).all() and not (result.recall[10:, 0] == 1).all()


def test_without_references_is_with_all_of_them_and_same() -> None:
    x, labels = clusters(80, 5, 7)
    assert same_bits(retrieval(x, labels), retrieval(x, labels, x, labels, same=torch.arange(80)))


def test_the_query_is_left_out_by_index_and_not_by_being_nearest() -> None:
    # Inner products: each query is nearest to the long vector, not to itself.
    x = torch.tensor([[1.0, 0.0], [10.0, 0.0], [0.9, 0.1], [-1.0, 0.0]])
    result = retrieval(x, torch.tensor([0, 0, 1, 1]), ks=(1,), normalise=False)
    assert result.recall[:, 0].tolist() == [1, 1, 0, 1]
    copies = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    right = retrieval(copies, torch.tensor([0, 0, 1, 1]), ks=(1,))
    wrong = retrieval(copies, torch.tensor([0, 1, 0, 1]), ks=(1,))
    assert right.means() == {"recall_at_1": 1, "map_at_r": 1, "r_precision": 1}
    assert wrong.means() == {"recall_at_1": 0, "map_at_r": 0, "r_precision": 0}


@pytest.mark.parametrize("d", [3, 64, 100])
def test_a_collapsed_network_scores_chance(d: int) -> None:
    labels = torch.arange(4).repeat_interleave(5)  # in order: a sort that keeps it would flatter
    draw = torch.rand(1, d, generator=torch.Generator().manual_seed(d))
    result = retrieval(draw.expand(20, d), labels, ks=(1, 4, 19))
    assert result.recall[:, 0].tolist() == pytest.approx([4 / 19] * 20)
    missed = (15 * 14 * 13 * 12) / (19 * 18 * 17 * 16)
    assert result.recall[:, 1].tolist() == pytest.approx([1 - missed] * 20)
    assert result.means()["recall_at_19"] == 1
    assert result.means()["r_precision"] == pytest.approx(4 / 19)
    chance = sum(4 / 19 * (1 + (i - 1) * 3 / 18) / i for i in range(1, 5)) / 4
    assert result.means()["map_at_r"] == pytest.approx(chance)


def test_copies_tie_wherever_they_stand() -> None:
    """A product by BLAS may give copies different bits at the edge of a tile; every position must tie."""
    x, labels = clusters(301, 33, 10)[0], torch.arange(301) % 2
    x[[7, 150, 300]] = x[0].clone()
    labels[[0, 7, 150, 300]] = torch.tensor([0, 1, 0, 1])
    result = retrieval(x, labels, ks=(1,))
    assert result.recall[[0, 150], 0].tolist() == pytest.approx([1 / 3] * 2)
    assert result.recall[[7, 300], 0].tolist() == pytest.approx([1 / 3] * 2)


def test_chunks_blocks_and_groups_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = clusters(700, 37, 60)
    x[::9] = x[5].clone()
    whole = retrieval(x, labels)
    for chunk in (1, 3, 64, 699, 10_000):
        assert same_bits(whole, retrieval(x, labels, chunk=chunk))
    for name, value in (("CANDIDATES", 1), ("GROUPS", 1), ("GROUPS", 3), ("SIMILARITIES", 5000)):
        with monkeypatch.context() as patch:
            patch.setattr(neighbours, name, value)
            assert same_bits(whole, retrieval(x, labels))


def test_threads_change_no_bit() -> None:
    x, labels = clusters(900, 64, 100)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = retrieval(x, labels)
        torch.set_num_threads(2)
        assert same_bits(one, retrieval(x, labels))
    finally:
        torch.set_num_threads(before)


def test_order_of_the_images_and_names_of_the_classes_change_no_bit() -> None:
    x, labels = clusters(300, 12, 20)
    x[100:140] = x[:40].clone()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    one, other = retrieval(x, labels), retrieval(x[order], (labels * -1_000_003 + 5)[order])
    assert torch.equal(table(one)[order], table(other))
    assert one.means() == other.means()


def test_scale_changes_nothing() -> None:
    x, labels = clusters(200, 12, 15)
    scales = 2.0 ** torch.randint(-30, 30, (200, 1), generator=torch.Generator().manual_seed(1))
    assert same_bits(retrieval(x, labels), retrieval(x * scales, labels))
    plain = retrieval(x, labels, normalise=False)
    for scale in (2.0**-70, 2.0**30):  # products of the first underflow in float32
        assert same_bits(plain, retrieval(x * scale, labels, normalise=False))
    torch.testing.assert_close(table(retrieval(x, labels)), table(retrieval(x * 0.37, labels)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_widened(dtype: torch.dtype) -> None:
    x, labels = clusters(150, 8, 12)
    narrow = x.to(dtype)
    assert same_bits(retrieval(narrow, labels), retrieval(narrow.float(), labels.int()))


def test_autocast_and_fast_float32_products_change_nothing() -> None:
    x, labels = clusters(400, 64, 30)
    plain, matmul = retrieval(x, labels), torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        with torch.autocast("cpu", torch.bfloat16):
            assert same_bits(plain, retrieval(x, labels))
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalise", [True, False])
def test_the_embeddings_given_are_not_written_to(dtype: torch.dtype, normalise: bool) -> None:
    x, labels = clusters(40, 4, 5)
    x = x.to(dtype)
    before = x.clone()
    retrieval(x, labels, normalise=normalise)
    assert torch.equal(x, before)


def test_gradients_do_not_get_in_the_way() -> None:
    x, labels = clusters(40, 4, 5)
    result = retrieval(x.requires_grad_(), labels)
    assert not result.map_at_r.requires_grad
