"""The nearest references of every query, in an order that is exact wherever a metric can see it.

References that are copies of each other become one with a size. For a chunk of queries: one matrix product; the k-th
largest maximum over groups of references is at most the k-th largest similarity, so that only the groups above it are
looked into (or faiss finds the largest, see `flat`). References within the rounding error of the product count as
candidates. A metric asks only how references of the query's class stand among the others; so those, and candidates that
rounding could have put on the wrong side of one, get their similarity by `exact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from common.metrics.copies import Distinct, distinct, grouped
from common.metrics.flat import QUERIES, Flat
from common.metrics.similarity import error_bound, exact, lengths, originals, rows_of

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
    """Candidates of some queries by falling similarity: -inf, and neither relevant nor counted, where a row has fewer.

    Attributes:
        rows: the queries.
        similarity: of each candidate.
        relevant: how many of the references that it stands for have the query's class.
        size: how many references it stands for; None: one each.
        index: of a reference that it stands for.
    """

    rows: Int[Tensor, " b"]
    similarity: Float64[Tensor, "b m"]
    relevant: Int[Tensor, "b m"]
    size: Int[Tensor, "b m"] | None
    index: Int[Tensor, "b m"]


@dataclass(frozen=True, eq=False)
class _Search:
    """What all chunks share.

    Attributes:
        hidden: the distinct reference that stands for the query alone and is left out, or -1.
        alike: the same number for queries that are copies, or None where none are.
        error: what a product may be off by.
    """

    queries: Float[Tensor, "q d"]
    pool: Distinct
    own: Int[Tensor, " q"]
    hidden: Int[Tensor, " q"]
    alike: Int[Tensor, " q"] | None
    error: Float64[Tensor, " q"]
    k: int


def rankings(
    queries: Side,
    references: Side,
    own: Int[Tensor, " q"],
    k: int,
    chunk: int | None,
    *,
    faiss: bool = False,
) -> Iterator[Ranking]:
    """All queries, some at a time; each once.

    The first k places are right as far as relevant references and their ties go: a relevant reference stands there
    with its exact similarity among as many larger ones, and as many equal ones, as it has among all references.

    Args:
        queries: Q of them.
        references: N of them.
        own: the reference that is the query itself and is left out, or -1.
        k: neighbours wanted; at most the references that are left to each query.
        chunk: queries in a matrix product; None: 64 MiB of similarities in float32.
        faiss: find candidates with faiss where it can prove that it has all of them.
    """
    search = _search(queries, references, own, k)
    x, count = search.pool.embeddings, len(queries.labels)
    chunk = min(chunk or max(1, SIMILARITIES // len(x)), count)
    flat = Flat(x, search.k) if faiss else None
    size = max(1, len(x) // (GROUPS * search.k))
    shape = size, -(-len(x) // size)
    buffer = x.new_empty(0)
    step = max(chunk, QUERIES) if faiss else chunk
    for start in range(0, count, step):
        rows = torch.arange(start, min(start + step, count), device=x.device)
        if flat is not None:
            index, product, complete = flat.nearest(
                search.queries[rows], search.hidden[rows], search.error[rows]
            )
            for some in rows_of(rows[complete], max(1, CANDIDATES // max(k, index.shape[1]))):
                at = some - start
                yield _rank(search, some, index[at], product[at])
            rows = rows[~complete]
        for some in rows_of(rows, chunk):
            if not len(buffer):
                buffer = x.new_full((chunk, size * shape[1]), -torch.inf)
            torch.mm(search.queries[some], x.t(), out=buffer[: len(some), : len(x)])
            hide(buffer, search.hidden[some])
            yield from _chunk(search, some, buffer[: len(some)].view(-1, *shape), k)


def _search(queries: Side, references: Side, own: Int[Tensor, " q"], k: int) -> _Search:
    pool = distinct(references.embeddings, references.labels, queries.labels)
    x, alike, hidden = pool.embeddings, None, own
    if pool.size is not None:
        alike = originals(queries.embeddings)
        hidden = torch.where(own < 0, -1, pool.place[own])
        hidden = torch.where(pool.size[hidden] > 1, -1, hidden)
    error = error_bound(x.dtype, x.shape[1], lengths(queries.embeddings), lengths(x).max())
    return _Search(queries.embeddings, pool, own, hidden, alike, error, min(k, len(x)))


def _chunk(
    search: _Search, rows: Int[Tensor, " c"], products: Float[Tensor, "c size groups"], places: int
) -> Iterator[Ranking]:
    """Rank the candidates of a chunk, so many rows at a time that CANDIDATES bounds the memory."""
    peaks = products.amax(1) if products.shape[1] > 1 else products[:, 0]
    floor = lowered(peaks.topk(search.k).values[:, -1], search.error[rows])
    open_ = peaks >= floor[:, None]
    most = int(open_.sum(1).max()) * products.shape[1]
    step = max(1, CANDIDATES // max(most, places))
    for some in (slice(start, start + step) for start in range(0, len(rows), step)):  # views, not copies
        index, similarity = _candidates(products[some], open_[some], floor[some])
        yield _rank(search, rows[some], index, similarity)


def hide(products: Float[Tensor, "c n"], hidden: Int[Tensor, " c"]) -> None:
    """-inf in the column that each row names, if it names one."""
    known = (hidden >= 0).nonzero()[:, 0]
    products[known, hidden[known]] = -torch.inf


def lowered(value: Float[Tensor, " c"], error: Float64[Tensor, " c"]) -> Float[Tensor, " c"]:
    """What a product is at least whose true value may be as large as the true value behind `value`; finite."""
    floor = (value.double() - 2 * error).to(value)
    floor = torch.nextafter(floor, torch.full_like(floor, -torch.inf))  # rounded down
    return floor.clamp_(min=torch.finfo(floor.dtype).min)  # above what is hidden


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
    search: _Search, rows: Int[Tensor, " b"], index: Int[Tensor, "b m"], product: Float[Tensor, "b m"]
) -> Ranking:
    """Sort; replace by exact values what is, or is within rounding of, a relevant one; sort again."""
    product, order = product.double().sort(dim=1, descending=True)
    index = index.gather(1, order)
    real = product > -torch.inf
    relevant, size = search.pool.counts(rows, index, search.own)
    relevant = relevant * real
    above = torch.where(relevant > 0, product, torch.inf).cummin(1).values
    below = torch.where(relevant > 0, product, -torch.inf).flip(1).cummax(1).values.flip(1)
    near = 2 * search.error[rows, None]
    row, column = (real & ((above - product <= near) | (product - below <= near))).nonzero().unbind(1)
    product[row, column] = _exact(search, rows[row], index[row, column])
    similarity, order = product.sort(dim=1, descending=True)
    if size is not None:
        size = (size * real).gather(1, order)
    return Ranking(
        rows, similarity, relevant.gather(1, order), size, search.pool.first(index.gather(1, order))
    )


def _exact(
    search: _Search, queries: Int[Tensor, " p"], references: Int[Tensor, " p"]
) -> Float64[Tensor, " p"]:
    pairs = search.queries, search.pool.embeddings
    if search.alike is None:
        return exact(*pairs, queries, references)
    n = len(search.pool.embeddings)  # of copies one is enough; a network that collapsed has nothing else
    pair, place, _ = grouped(search.alike[queries] * n + references)
    return exact(*pairs, pair // n, pair % n)[place]
