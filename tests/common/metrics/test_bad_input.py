"""What retrieval refuses, and how it says so."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import BadInputError
from common.metrics.retrieval import retrieval

X = torch.eye(6)
Y = torch.tensor([0, 0, 1, 1, 2, 2])


def refused(match: str, x: Tensor = X, y: Tensor = Y, *others: Any, **options: Any) -> None:
    with pytest.raises(BadInputError, match=match):
        retrieval(x, y, *others, **{"ks": (1, 2), **options})


def test_shapes_and_types() -> None:
    refused(r"queries: no embeddings, their shape is \(0, 6\)", X[:0], Y[:0])
    refused(r"queries: no embeddings, their shape is \(6, 0\)", X[:, :0], Y)
    refused(r"shape \(6, 6\) and labels of shape \(5,\)", X, Y[:5])
    refused(r"shape \(6,\) and labels of shape \(6,\)", X[0], Y)
    refused("labels are integers, these are torch.float32", X, Y.float())
    refused("labels are integers, these are torch.bool", X, Y.bool())
    refused("floating-point numbers, these are torch.int64", X.long())
    refused(r"references: .* labels of shape \(3,\)", X, Y, X, Y[:3])
    refused("references torch.float32 with 5 on cpu: they come from one model", X, Y, X[:, :5] + 1, Y)
    refused("in one type", X, Y, X.double(), Y)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_named(value: float) -> None:
    x = X.clone()
    x[3, 2] = value
    refused("queries: NaN, infinite .* in row 3$", x)
    refused("references: NaN, infinite .* in row 3$", X, Y, x, Y)
    many = torch.full((40, 2), value)
    refused(r"rows 0, 1, .*, 9, \.\.\. \(40 in all\)", many, torch.zeros(40).long())


def test_lengths_that_cannot_be_used() -> None:
    x = X.clone()
    x[[1, 4]] = 0
    refused("length zero, with no direction, in rows 1, 4$", x)
    retrieval(x, Y, ks=(1,), normalise=False)
    refused("overflow torch.float32; scale the embeddings down", X * 1e20, normalise=False)
    retrieval(X * 1e20, Y, ks=(1,))


def test_neighbours_that_are_not_there() -> None:
    refused("recall at 6 needs as many references; a query has 5", ks=(1, 6))
    retrieval(X, Y, X, Y, ks=(6,))
    refused("recall at 6 .* a query has 5", X, Y, X, Y, ks=(6,), same=torch.tensor([-1, -1, -1, 3, -1, -1]))
    for ks in ((), (0, 1), (2, 2)):
        refused("ks holds different numbers", ks=ks)
    refused("chunk is a number of queries from 1 on, not 0", chunk=0)


def test_a_query_without_a_match_is_named_or_counted() -> None:
    y = torch.tensor([0, 0, 1, 1, 7, 8])
    refused(
        "2 of 6 queries have no reference of their class besides themselves: rows 4, 5. Pass unmatched", y=y
    )
    result = retrieval(X, y, ks=(1,), unmatched="exclude")
    assert result.excluded == 2 and result.query.tolist() == [0, 1, 2, 3]
    assert len(result.recall) == len(result.map_at_r) == len(result.r_precision) == len(result.matches) == 4
    refused("6 of 6 queries have no reference", y=torch.arange(6), unmatched="exclude")
    refused("1 of 2 queries have no .*: row 1", X[:2], torch.tensor([0, 9]), X, Y)
    refused("'error' or 'exclude', not 'ignore'", unmatched="ignore")


def test_an_excluded_query_still_is_a_reference() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.6, 0.6]])
    result = retrieval(x, torch.tensor([0, 0, 9, 8]), ks=(1,), unmatched="exclude")
    assert result.query.tolist() == [0, 1] and result.means()["recall_at_1"] == 0


def test_same() -> None:
    refused("only with them", same=torch.arange(6))
    refused("given together", X, Y, X)
    refused("given together", X, Y, None, Y)
    refused("one integer for each of 6 queries", X, Y, X, Y, same=torch.arange(5))
    refused("one integer for each of 6 queries", X, Y, X, Y, same=torch.arange(6.0))
    refused("index of one of 6 references; it is not in rows 4, 5", X, Y, X, Y, same=torch.arange(6) + 2)
    refused("not in row 0$", X, Y, X, Y, same=torch.arange(6) - 2 + (torch.arange(6) > 0).long())
    refused("another label than the query's in rows 0, 1", X, Y, X, Y, same=torch.tensor([2, 2, 2, 2, 4, 4]))
