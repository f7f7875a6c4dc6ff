"""Retrieval as deep metric learning reports it: every query ranks the references, itself left out by its index.

Definitions are those of Musgrave, Belongie & Lim 2020, "A Metric Learning Reality Check"; ties are in `ties`.

Memory besides the embeddings given, N references of D float32: their copy of length 1 (4 N D bytes), 64 MiB of
similarities, and 2 million candidates of about 250 bytes. For 120,000 x 512: 246 MB given + 246 MB + 67 MB + at most
0.52 GB, and what torch itself takes (0.53 GB): 1.6 GB; faiss holds one more copy. Time: 2 Q N D operations in one
matrix product, of distinct references alone: copies cost nothing. Near copies, apart by rounding, are compared one by
one in float64, and cost Q N D of those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from common.errors import BadInputError
from common.metrics.flat import wanted
from common.metrics.inputs import match_counts, own_references, side, with_match
from common.metrics.neighbours import Side, rankings
from common.metrics.similarity import true_products
from common.metrics.ties import expected_scores


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Scores of each query that counts; a tie makes a score the mean over the orders of the tied references.

    Attributes:
        ks: the K of recall at K.
        query: index of each query that counts, rising.
        recall: whether one of the K nearest has the query's class, for each K.
        map_at_r: mean average precision at R.
        r_precision: share of the query's class among the R nearest.
        matches: R, the references of the query's class.
        excluded: queries left out because R = 0.
    """

    ks: tuple[int, ...]
    query: Int[Tensor, " q"]
    recall: Float64[Tensor, "q ks"]
    map_at_r: Float64[Tensor, " q"]
    r_precision: Float64[Tensor, " q"]
    matches: Int[Tensor, " q"]
    excluded: int

    def means(self) -> dict[str, float]:
        """Means over the queries that count, by exact sums: recall_at_K for each K, map_at_r, r_precision."""
        columns = {f"recall_at_{k}": self.recall[:, i] for i, k in enumerate(self.ks)}
        columns |= {"map_at_r": self.map_at_r, "r_precision": self.r_precision}
        return {
            name: math.fsum(cast("list[float]", column.tolist())) / len(column)
            for name, column in columns.items()
        }


@torch.no_grad()
def retrieval(
    queries: Float[Tensor, "q d"],
    query_labels: Int[Tensor, " q"],
    references: Float[Tensor, "n d"] | None = None,
    reference_labels: Int[Tensor, " n"] | None = None,
    *,
    ks: tuple[int, ...] = (1, 2, 4, 8),
    same: Int[Tensor, " q"] | None = None,
    normalise: bool = True,
    unmatched: str = "error",
    chunk: int | None = None,
    engine: str = "auto",
) -> Retrieval:
    """Recall at each K, MAP@R and R-precision of every query.

    The result does not depend, to the bit on a CPU, on `chunk`, `engine`, threads or the order of the references.
    Similarity is
    the inner product in float64 of the embeddings as given, or of their unit vectors rounded to float32.

    Args:
        queries: float32 or float64 (the type of the matrix product), float16 or bfloat16 (widened to float32).
        query_labels: integers.
        references: None: the queries rank each other, each without itself.
        reference_labels: given exactly when references are.
        ks: the K of recall at K.
        same: with references: the index of the one that is the query itself and is left out, -1 where none is.
        normalise: cosine similarity, of embeddings divided by their lengths; False: inner product.
        unmatched: "error", or "exclude" queries without a reference of their class and count them.
        chunk: queries in a matrix product: it needs 4 N chunk bytes in float32. None: as many as make 64 MiB.
        engine: "torch"; "faiss"; or "auto": faiss where it is installed and can be used.

    Raises:
        BadInputError: an argument does not fit the others, nothing is there, an embedding is NaN, infinite, or of
            length zero under `normalise`, fewer references than K are left, or a query has no match under "error".
    """
    ks = _checked(ks, chunk)
    x = side("queries", queries, query_labels, normalise=normalise)
    if references is None or reference_labels is None:
        if references is not None or reference_labels is not None or same is not None:
            raise BadInputError(
                "references and reference_labels are given together, and `same` only with them: without them each "
                "query is left out of its own references"
            )
        y, own = x, torch.arange(len(x.labels), device=x.labels.device)
    else:
        y = side("references", references, reference_labels, normalise=normalise)
        _comparable(x.embeddings, y.embeddings)
        own = own_references(same, x, y)
    matches = match_counts(x, y, own)
    kept = with_match(matches, unmatched)
    left = len(y.labels) - int((own >= 0).any())
    if max(ks) > left:
        raise BadInputError(
            f"recall at {max(ks)} needs as many references; a query has {left}. Leave that K out of ks"
        )
    counted = x if bool(kept.all()) else Side(x.embeddings[kept], x.labels[kept])
    with true_products(x.embeddings.device):
        recall, map_at_r, r_precision = _scores(counted, y, own[kept], matches[kept], ks, chunk, engine)
    return Retrieval(
        ks, kept.nonzero()[:, 0], recall, map_at_r, r_precision, matches[kept], int((~kept).sum())
    )


def _scores(
    queries: Side,
    references: Side,
    own: Int[Tensor, " q"],
    matches: Int[Tensor, " q"],
    ks: tuple[int, ...],
    chunk: int | None,
    engine: str,
) -> tuple[Float64[Tensor, "q ks"], Float64[Tensor, " q"], Float64[Tensor, " q"]]:
    k = max(*ks, int(matches.max()))
    recall = torch.empty(len(matches), len(ks), dtype=torch.float64, device=matches.device)
    map_at_r, r_precision = recall.new_empty(len(matches)), recall.new_empty(len(matches))
    faiss = wanted(engine, references.embeddings, k)
    for part in rankings(queries, references, own, k, chunk, faiss=faiss):
        scores = expected_scores(part.similarity, part.relevant, matches[part.rows], ks, k, part.size)
        recall[part.rows], map_at_r[part.rows] = scores.recall, scores.map_at_r
        r_precision[part.rows] = scores.r_precision
    return recall, map_at_r, r_precision


def _checked(ks: tuple[int, ...], chunk: int | None) -> tuple[int, ...]:
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise BadInputError(f"ks holds different numbers of neighbours from 1 on, not {tuple(ks)}")
    if chunk is not None and chunk < 1:
        raise BadInputError(f"chunk is a number of queries from 1 on, not {chunk}")
    return tuple(ks)


def _comparable(x: Shaped[Tensor, "q d"], y: Shaped[Tensor, "n e"]) -> None:
    if x.shape[1] != y.shape[1] or x.dtype != y.dtype or x.device != y.device:
        raise BadInputError(
            f"queries are {x.dtype} with {x.shape[1]} numbers on {x.device}, references {y.dtype} with {y.shape[1]} "
            f"on {y.device}: they come from one model, in one type, on one device"
        )
