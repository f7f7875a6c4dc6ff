"""What the figures show of a test: neighbours of queries of the worst and the best class, and a map of some classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from common.metrics.retrieval import Retrieval

NEIGHBOURS = 5
QUERIES = 2  # of a class
CLASSES, IMAGES = 6, 8  # on the map; at most so many images of each


def examples(
    found: Retrieval,
    queries: Float[Tensor, "q d"],
    labels: Int64[Tensor, " q"],
    gallery: Float[Tensor, "n d"] | None,
) -> dict[str, Any]:
    """The parts of the figures, as plain numbers.

    Args:
        found: scores of these queries.
        queries: embeddings of length one.
        labels: their classes.
        gallery: what is searched; None: the other queries.

    Returns:
        `worst_0` … and `best_0` …: a query of the class with the lowest (highest) mean average precision, at equal
        steps of the class's order, then its nearest images, as indices. `class_0` …: of classes at equal steps from the
        worst to the best, the indices of some images and where they lie on the first two principal components of the
        images shown; `explained` is their share of the variance.
    """
    order = by_score(found, labels)
    result: dict[str, Any] = {}
    for name, number in (("worst", order[0]), ("best", order[-1])):
        mine = found.query[labels[found.query] == number]
        ranked = mine[found.map_at_r[labels[found.query] == number].argsort(stable=True)]
        for place in range(QUERIES):
            query = int(ranked[(place + 1) * len(ranked) // (QUERIES + 1)])
            result[f"{name}_{place}"] = [query, *nearest(query, queries, gallery)]
    return result | chart(queries, labels, [order[at] for at in spread(len(order), CLASSES)])


def by_score(found: Retrieval, labels: Int64[Tensor, " q"]) -> list[int]:
    """The classes from the lowest mean average precision to the highest."""
    classes, place = torch.unique(labels[found.query], return_inverse=True)
    total = torch.zeros(len(classes), dtype=torch.float64).index_add(0, place, found.map_at_r.cpu())
    return classes[(total / place.bincount()).argsort(stable=True)].tolist()


def nearest(query: int, queries: Float[Tensor, "q d"], gallery: Float[Tensor, "n d"] | None) -> list[int]:
    """Indices of the nearest images, without the query itself where queries search each other."""
    near = (queries if gallery is None else gallery) @ queries[query]
    if gallery is None:
        near[query] = -torch.inf
    return near.topk(min(NEIGHBOURS, len(near) - 1)).indices.tolist()


def chart(
    queries: Float[Tensor, "q d"], labels: Int64[Tensor, " q"], classes: Sequence[int]
) -> dict[str, Any]:
    """The map of some classes."""
    shown = [(labels == number).nonzero()[:IMAGES, 0] for number in classes]
    x = queries[torch.cat(shown)].double()
    x = x - x.mean(0)
    _, size, axes = torch.linalg.svd(x, full_matrices=False)
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()  # a sign of its own
    share = float((size[:2].square().sum() / size.square().sum().clamp_min(1e-300)).item())
    points = (x @ axes.T).split([len(part) for part in shown])
    return {"explained": share} | {
        f"class_{k}": {"images": part.tolist(), "points": at.tolist()}
        for k, (part, at) in enumerate(zip(shown, points, strict=True))
    }


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` different places at equal steps from 0 to count - 1; all, where they are fewer."""
    wanted = min(count, wanted)
    return [round(k * (count - 1) / max(1, wanted - 1)) for k in range(wanted)]
