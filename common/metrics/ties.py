"""Recall at K, R-precision and MAP@R of a ranking with ties: their mean over all orders of the tied references.

A group of n equally similar references, m of them of the query's class, stands behind b others, of which h are. Over
its n! orders each place holds a relevant one with probability m/n, and, given one at the j-th place of the group,
(j-1)(m-1)/(n-1) of the places before it do (McSherry & Najork 2008, "Computing information retrieval performance
measures efficiently in the presence of tied scores"). So copies of an image, or embeddings that collapsed to a point,
score what chance would give, and no order of the data set does better than another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """Of B queries: recall at each K, MAP@R and R-precision."""

    recall: Float64[Tensor, "b ks"]
    map_at_r: Float64[Tensor, " b"]
    r_precision: Float64[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class _Places:
    """The tie group of each of the first k places: b, h, n and m of the module's docstring."""

    before: Int[Tensor, "b k"]
    hits: Int[Tensor, "b k"]
    size: Int[Tensor, "b k"]
    relevant: Int[Tensor, "b k"]


def expected_scores(
    similarity: Float[Tensor, "b m"],
    relevant: Int[Tensor, "b m"],
    matches: Int[Tensor, " b"],
    ks: tuple[int, ...],
    k: int,
    size: Int[Tensor, "b m"] | None = None,
) -> Scores:
    """The scores of B rankings, whose entries may stand for several references each.

    R-precision = (1/R) Σ_{i<=R} rel(i) and MAP@R = (1/R) Σ_{i<=R} P(i) rel(i), P(i) the precision at i (Musgrave,
    Belongie & Lim 2020, "A Metric Learning Reality Check"); recall at K: whether one of the first K is relevant.

    Args:
        similarity: falling in each row; it ends behind the tie group of place k, or later.
        relevant: how many references of that entry have the query's class.
        matches: R of each query, 1 <= R <= k.
        ks: each at most k.
        k: how many places count.
        size: how many references an entry stands for; None: one each.
    """
    places = _places(similarity, relevant, size, k)
    chance = places.relevant.double() / places.size
    place = torch.arange(1, k + 1, device=similarity.device)
    inside = place - 1 - places.before  # j - 1
    counted = place <= matches[:, None]
    earlier = (inside * (places.relevant - 1)).double() / (places.size - 1).clamp(min=1)
    precision = chance * (places.hits + 1 + earlier) / place
    return Scores(
        torch.stack([_recall(places, at) for at in ks], 1),
        (precision * counted).sum(1) / matches,
        (chance * counted).sum(1) / matches,
    )


def _places(
    similarity: Float[Tensor, "b m"], relevant: Int[Tensor, "b m"], size: Int[Tensor, "b m"] | None, k: int
) -> _Places:
    width = similarity.shape[1]
    index = torch.arange(width, device=similarity.device)
    new = torch.ones_like(relevant, dtype=torch.bool)
    new[:, 1:] = similarity[:, 1:] != similarity[:, :-1]
    start = torch.where(new, index, 0).cummax(1).values
    last = torch.ones_like(new)
    last[:, :-1] = new[:, 1:]
    end = torch.where(last, index, width).flip(1).cummin(1).values.flip(1) + 1
    hits = _up_to(relevant)
    if size is None:
        start, end = start[:, :k], end[:, :k]
        before, count = start, end - start
    else:
        total = _up_to(size)
        place = torch.arange(1, k + 1, device=size.device).expand(len(size), k)
        at = torch.searchsorted(total[:, 1:].contiguous(), place.contiguous())  # the entry that holds it
        start, end = start.gather(1, at), end.gather(1, at)
        before = total.gather(1, start)
        count = total.gather(1, end) - before
    hit = hits.gather(1, start)
    return _Places(before, hit, count, hits.gather(1, end) - hit)


def _up_to(count: Int[Tensor, "b m"]) -> Int[Tensor, "b m+1"]:
    """Sums of the first 0, 1, … m entries."""
    result = torch.zeros(len(count), count.shape[1] + 1, dtype=torch.int64, device=count.device)
    torch.cumsum(count, 1, out=result[:, 1:])
    return result


def _recall(places: _Places, k: int) -> Float64[Tensor, " b"]:
    """1 if a relevant one stands before the group of place k; else 1 - C(n-m, s)/C(n, s), s = k - b of its places."""
    n, m = places.size[:, k - 1].double(), places.relevant[:, k - 1].double()
    s = (k - places.before[:, k - 1]).double()
    missed = (places.hits[:, k - 1] == 0).double()
    open_ = (missed * m).nonzero()[:, 0]  # elsewhere there is nothing to draw
    n, m, s = n[open_], m[open_], s[open_]
    product = missed[open_]
    fewer, more = torch.minimum(m, s), torch.maximum(m, s)  # the ratio is symmetric in m and s
    for i in range(int(fewer.max()) if len(open_) else 0):
        product = product * torch.where(i < fewer, (n - more - i).clamp(min=0) / (n - i), 1.0)
    missed[open_] = product
    return 1 - missed
