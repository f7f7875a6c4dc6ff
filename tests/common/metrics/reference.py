"""Retrieval metrics in plain Python and float64, by the definitions; ties by going through every order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from torch import Tensor


def dots(queries: Tensor, references: Tensor) -> list[list[float]]:
    columns = references.double().tolist()
    return [
        [sum(a * b for a, b in zip(row, other, strict=True)) for other in columns]
        for row in queries.double().tolist()
    ]


def scores(relevant: Sequence[bool], r: int, ks: Sequence[int]) -> list[float]:
    """Recall at each K, MAP@R and R-precision of one order of the references."""
    recalls = [float(any(relevant[:k])) for k in ks]
    average = sum(sum(relevant[:i]) / i for i in range(1, r + 1) if relevant[i - 1]) / r
    return [*recalls, average, sum(relevant[:r]) / r]


def orders(similarities: Sequence[float], relevant: Sequence[bool]) -> Iterator[tuple[bool, ...]]:
    """Every order of the references that a sort by falling similarity allows."""
    groups = [
        [relevant[i] for i in range(len(relevant)) if similarities[i] == value]
        for value in sorted(set(similarities), reverse=True)
    ]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain(*parts))


def brute(
    similarities: list[list[float]],
    query_labels: Sequence[int],
    reference_labels: Sequence[int],
    own: Sequence[int],
    ks: Sequence[int],
) -> list[list[float]]:
    """One list of scores for each query: the mean over every order that its ties allow."""
    table: list[list[float]] = []
    for row, label, left_out in zip(similarities, query_labels, own, strict=True):
        rest = [j for j in range(len(row)) if j != left_out]
        relevant = [reference_labels[j] == label for j in rest]
        each = [scores(order, sum(relevant), ks) for order in orders([row[j] for j in rest], relevant)]
        table.append([sum(column) / len(each) for column in zip(*each, strict=True)])
    return table
