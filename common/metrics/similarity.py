"""Inner products whose bits depend on the two vectors alone, and how far a matrix product may be from them.

A BLAS adds in an order that depends on shapes, threads and the place inside a tile, so two copies of one image may
get different similarities. `exact` multiplies in float64, which does not round products of float32 numbers, and adds by
halving: the same order for every pair, whatever is computed beside it. A matrix product only says which pairs are
worth that: |fl(<q, r>) - <q, r>| <= gamma_D |q| |r|, gamma_n = n u / (1 - n u), u the unit roundoff (Higham 2002,
"Accuracy and Stability of Numerical Algorithms", section 3.1), for any order of addition.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

CACHED = 2**17
"""Numbers in float64 that are worked on at once: 1 MiB, so that they stay in a cache."""


def rows_of(x: Shaped[Tensor, "n ..."], step: int) -> list[Tensor]:
    """Views of `step` consecutive rows each; the last may have fewer."""
    return [x[start : start + step] for start in range(0, len(x), step)]


def tree_sum(x: Float64[Tensor, "p d"]) -> Float64[Tensor, " p"]:
    """Σ_i x_i of every row in a fixed order: the second half is added to the first until one number is left.

    It writes into x.
    """
    width = x.shape[1]
    while width > 1:
        half = (width + 1) // 2
        x[:, : width - half] += x[:, half:width]
        width = half
    return x[:, 0].clone()  # a view would keep all of x alive


def exact(
    queries: Float[Tensor, "q d"],
    references: Float[Tensor, "n d"],
    rows: Int[Tensor, " p"],
    columns: Int[Tensor, " p"],
) -> Float64[Tensor, " p"]:
    """s(q, r) of p pairs, the same bits for the same two vectors wherever they stand."""
    step = max(1, CACHED // queries.shape[1])
    sums = [
        tree_sum(queries[some].double().mul_(references[others]))
        for some, others in zip(rows_of(rows, step), rows_of(columns, step), strict=True)
    ]
    return torch.cat(sums) if sums else queries.new_empty(0, dtype=torch.float64)


def originals(x: Float[Tensor, "n d"]) -> Int[Tensor, " n"] | None:
    """For every row one index that it shares with rows equal to it, or None where no two rows are equal.

    Equal rows have equal projections; rows next to each other in that order are compared. A set of copies may be given
    several indices where another row has their projection.
    """
    weights = torch.arange(x.shape[1], dtype=x.dtype, device=x.device).cos()[None]
    zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    key, order = exact(x, weights, torch.arange(len(x), device=x.device), zero).sort(stable=True)
    new = torch.ones_like(key, dtype=torch.bool)
    for pairs in rows_of((key[1:] == key[:-1]).nonzero()[:, 0], max(1, CACHED // x.shape[1])):
        new[pairs + 1] = (x[order[pairs]] != x[order[pairs + 1]]).any(1)
    if bool(new.all()):
        return None
    result = torch.empty_like(order)
    result[order] = order[new][new.cumsum(0) - 1]
    return result


def lengths(x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """|x| of every row."""
    step = max(1, CACHED // x.shape[1])
    return torch.cat([tree_sum(part.double().square()).sqrt_() for part in rows_of(x, step)])


def unit(x: Float[Tensor, "n d"], length: Float64[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """x / |x| by row, computed in float64 and rounded to x's type; a copy."""
    step = max(1, CACHED // x.shape[1])
    result = torch.empty_like(x)
    for start in range(0, len(x), step):
        some = slice(start, start + step)
        result[some] = x[some].double() / length[some, None]
    return result


def error_bound(
    dtype: torch.dtype, d: int, query: Float64[Tensor, " q"], reference: Float64[Tensor, ""]
) -> Float64[Tensor, " q"]:
    """What a matrix product in `dtype` and `exact` can differ by, for queries of those lengths.

    Args:
        dtype: float32 or float64.
        d: length of the embeddings.
        query: |q| of each.
        reference: the largest |r|.
    """
    info = torch.finfo(dtype)
    n = (d + 32) * info.eps / 2  # 32 for the few roundings in `exact` and in this bound itself
    return n / (1 - n) * query * reference + 2 * d * info.tiny  # tiny: products that underflow


@contextmanager
def true_products(device: torch.device) -> Generator[None]:
    """No autocast, and no TF32 or bfloat16 inside float32 matrix products: the bound would not hold."""
    backends = cast(Any, torch.backends)
    matmul = backends.cuda.matmul if device.type == "cuda" else backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        matmul.fp32_precision = before
