"""The nearest references of every query, in an order that is exact wherever a metric can see it.

For a chunk of queries: one matrix product; the k-th largest maximum over groups of references is at most the k-th
largest similarity, so that only the groups above it are looked into. References within the rounding error of the
product count as candidates. A metric asks only how references of the query's class stand among the others; so those,
and candidates that rounding could have put on the wrong side of one, get their similarity by `exact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from common.metrics.similarity import error_bound, exact, lengths, originals

SIMILARITIES = 2**24
"""Similarities in memory at once by default: 64 MiB in float32."""
CANDIDATES = 2**21
"""Candidates ranked at once; more only when one query alone has more."""
GROUPS = 64
"""Groups of references for each neighbour that is asked for."""


@dataclass(frozen=True, eq=False)
class Side:
    """Embeddings with their labels."""

    embeddings: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates of some consecutive queries by falling similarity: -inf, and not relevant, where a row has fewer."""

    similarity: Float64[Tensor, "b m"]
    relevant: Bool[Tensor, "b m"]
    index: Int[Tensor, "b m"]


def rankings(
    queries: Side, references: Side, own: Int[Tensor, " q"], k: int, chunk: int | None
) -> Iterator[Ranking]:
    """All queries in order, some at a time.

    The first k places are right as far as relevant references and their ties go: a relevant reference stands there
    with its exact similarity among as many larger ones, and as many equal ones, as it has among all references.

    Args:
        queries: Q of them.
        references: N of them.
        own: the reference that is the query itself and is left out, or -1.
        k: neighbours wanted; at most the references that are left to each query.
        chunk: queries in a matrix product; None: 64 MiB of similarities in float32.
    """
    x, n = references.embeddings, len(references.labels)
    chunk = min(chunk or max(1, SIMILARITIES // n), len(queries.labels))
    size = max(1, n // (GROUPS * k))
    groups = -(-n // size)
    buffer = x.new_full((chunk, size * groups), -torch.inf)
    longest, original = lengths(x).max(), originals(x)
    for start in range(0, len(queries.labels), chunk):
        some = slice(start, start + chunk)
        part, excluded = Side(queries.embeddings[some], queries.labels[some]), own[some]
        products = buffer[: len(excluded)]
        torch.mm(part.embeddings, x.t(), out=products[:, :n])
        known = (excluded >= 0).nonzero()[:, 0]
        products[known, excluded[known]] = -torch.inf
        error = error_bound(x.dtype, x.shape[1], lengths(part.embeddings), longest)
        yield from _chunk(part, references, original, products.view(-1, size, groups), error, k)


def _chunk(
    queries: Side,
    references: Side,
    original: Int[Tensor, " n"] | None,
    products: Float[Tensor, "c size groups"],
    error: Float64[Tensor, " c"],
    k: int,
) -> Iterator[Ranking]:
    """Rank the candidates of a chunk, so many rows at a time that CANDIDATES bounds the memory."""
    peaks = products.amax(1) if products.shape[1] > 1 else products[:, 0]
    floor = (peaks.topk(k).values[:, -1].double() - 2 * error).to(peaks)
    floor = torch.nextafter(floor, torch.full_like(floor, -torch.inf))  # rounded down
    open_ = peaks >= floor[:, None]
    counts = open_.sum(1)
    rows = max(1, CANDIDATES // (int(counts.max()) * products.shape[1]))
    for start in range(0, len(floor), rows):
        some = slice(start, start + rows)
        index, similarity = _candidates(products[some], open_[some], floor[some])
        part = Side(queries.embeddings[some], queries.labels[some])
        yield _rank(part, references, original, index, similarity, error[some])


def _candidates(
    products: Float[Tensor, "b size groups"], open_: Bool[Tensor, "b groups"], floor: Float[Tensor, " b"]
) -> tuple[Int[Tensor, "b m"], Float[Tensor, "b m"]]:
    """Index and product of every reference from the floor up, in rows filled up with index 0 and -inf."""
    row, group = open_.nonzero().unbind(1)
    inside = products[row, :, group]
    entry, place = (inside >= floor[row, None]).nonzero().unbind(1)
    row, index, value = row[entry], group[entry] + place * products.shape[2], inside[entry, place]
    counts = torch.bincount(row, minlength=len(floor))
    column = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    shape = len(floor), int(counts.max())
    indices, similarities = index.new_zeros(shape), value.new_full(shape, -torch.inf)
    indices[row, column], similarities[row, column] = index, value
    return indices, similarities


def _rank(
    queries: Side,
    references: Side,
    original: Int[Tensor, " n"] | None,
    index: Int[Tensor, "b m"],
    product: Float[Tensor, "b m"],
    error: Float64[Tensor, " b"],
) -> Ranking:
    """Sort; replace by exact values what is, or is within rounding of, a relevant one; sort again."""
    product, order = product.double().sort(dim=1, descending=True)
    index = index.gather(1, order)
    real = product > -torch.inf
    relevant = real & (references.labels[index] == queries.labels[:, None])
    above = torch.where(relevant, product, torch.inf).cummin(1).values
    below = torch.where(relevant, product, -torch.inf).flip(1).cummax(1).values.flip(1)
    near = 2 * error[:, None]
    row, column = (real & ((above - product <= near) | (product - below <= near))).nonzero().unbind(1)
    pairs = queries.embeddings, references.embeddings
    if original is None:
        product[row, column] = exact(*pairs, row, index[row, column])
    else:  # of copies one is enough; a network that collapsed has nothing else
        n = len(original)
        pair, place = _unique(row * n + original[index[row, column]])
        product[row, column] = exact(*pairs, pair // n, pair % n)[place]
    similarity, order = product.sort(dim=1, descending=True)
    return Ranking(similarity, relevant.gather(1, order), index.gather(1, order))


def _unique(x: Int[Tensor, " p"]) -> tuple[Int[Tensor, " u"], Int[Tensor, " p"]]:
    return cast("tuple[Tensor, Tensor]", torch.unique(x, return_inverse=True))
