"""Similarities that float32 cannot tell apart are ranked as float64 does, and only equal ones tie."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.metrics.retrieval import Retrieval, retrieval
from tests.common.metrics.reference import brute, dots


def table(result: Retrieval) -> Tensor:
    return torch.cat([result.recall, result.map_at_r[:, None], result.r_precision[:, None]], 1)


def assert_brute(x: Tensor, labels: Tensor, ks: tuple[int, ...] = (1, 2, 5)) -> Retrieval:
    result = retrieval(x, labels, ks=ks, normalise=False)
    expected = brute(dots(x, x), labels.tolist(), labels.tolist(), range(len(labels)), ks)
    torch.testing.assert_close(table(result), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [-8, -18, -23])
def test_embeddings_almost_at_a_point(power: int, dtype: torch.dtype) -> None:
    """Multiples of 2^power around one: every product and sum is exact in float64, in whatever order."""
    draw = torch.Generator().manual_seed(-power)
    x = 1 + 2.0**power * torch.randint(0, 400 if power == -8 else 4000, (60, 8), generator=draw)
    labels = torch.arange(60) % 12
    assert (x.float() @ x.float().t()).unique().numel() < 3000
    assert_brute(x.to(dtype), labels)


def test_float32_would_call_it_a_tie() -> None:
    near, far = [1.0, 2.0**-13], [1.0, 0.0]  # with the query: 1 + 2^-26 and 1
    x = torch.tensor([[1.0, 2.0**-13], near, far])
    assert float((x[0] * x[1]).sum()) == float((x[0] * x[2]).sum())
    right = retrieval(x[:1], torch.tensor([1]), x[1:], torch.tensor([1, 0]), ks=(1,), normalise=False)
    wrong = retrieval(x[:1], torch.tensor([1]), x[1:], torch.tensor([0, 1]), ks=(1,), normalise=False)
    assert right.means()["recall_at_1"] == 1 and wrong.means()["recall_at_1"] == 0


def test_one_tie_among_many_that_almost_are() -> None:
    draw = torch.Generator().manual_seed(0)
    x = 1 + 2.0**-20 * torch.randint(0, 3000, (50, 6), generator=draw)
    x[[3, 20, 21, 49]] = x[11].clone()
    assert_brute(x, torch.arange(50) % 9)


def test_a_tie_across_the_last_place_counts_all_its_members() -> None:
    """Twenty copies tie for places 2 to 21, K = 4: candidates beyond the fourth decide the chance."""
    x = torch.cat([torch.tensor([[1.0, 0.0], [1.0, 0.1]]), torch.tensor([[0.8, 0.3]]).expand(20, 2)])
    labels = torch.tensor([0, 1] + [0] * 2 + [2] * 18)
    result = retrieval(x[:1], labels[:1], x, labels, ks=(1, 4), same=torch.tensor([0]), normalise=False)
    assert result.recall[0].tolist() == pytest.approx([0, 1 - (18 * 17 * 16) / (20 * 19 * 18)])
    assert float(result.r_precision) == pytest.approx((2 / 20) / 2)
    assert float(result.map_at_r) == pytest.approx((2 / 20) * (1 / 2) / 2)


def test_means_are_those_of_the_queries() -> None:
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    result = retrieval(x, torch.arange(30) % 4, ks=(1, 3))
    means = result.means()
    assert list(means) == ["recall_at_1", "recall_at_3", "map_at_r", "r_precision"]
    for found, column in zip(means.values(), table(result).t(), strict=True):
        assert found == pytest.approx(float(column.mean()), rel=1e-14)
    assert result.recall.dtype == result.map_at_r.dtype == result.r_precision.dtype == torch.float64
