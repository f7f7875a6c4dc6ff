"""References that are copies of each other, as one with a size: a network that collapsed has little else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from common.metrics.similarity import originals


@dataclass(frozen=True, eq=False)
class Distinct:
    """Distinct references, U of them.

    Attributes:
        embeddings: one of each.
        place: the distinct reference that each of the N references is.
        index: a reference that each is.
        size: how many references each is; None: one.
        labels, queries: classes of references and of queries, numbered from 0 in one numbering.
        keys, found: (distinct reference, class) as one rising number, and how many references it has.
    """

    embeddings: Float[Tensor, "u d"]
    place: Int[Tensor, " n"]
    index: Int[Tensor, " u"]
    size: Int[Tensor, " u"] | None
    labels: Int[Tensor, " n"]
    queries: Int[Tensor, " q"]
    classes: int
    keys: Int[Tensor, " p"]
    found: Int[Tensor, " p"]

    def counts(
        self, rows: Int[Tensor, " b"], index: Int[Tensor, "b m"], own: Int[Tensor, " q"]
    ) -> tuple[Int[Tensor, "b m"], Int[Tensor, "b m"] | None]:
        """How many references of the query's class each candidate stands for, and how many at all (None: one each).

        The query itself is not counted.

        Args:
            rows: the queries.
            index: distinct references.
            own: the reference that each query is, or -1.
        """
        labels = self.queries[rows, None]
        if self.size is None:
            return (self.labels[index] == labels).long(), None
        wanted = index * self.classes + labels
        at = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        mine = own[rows, None]
        itself = ((mine >= 0) & (index == self.place[mine])).long()
        return torch.where(self.keys[at] == wanted, self.found[at], 0) - itself, self.size[index] - itself

    def first(self, index: Int[Tensor, "b m"]) -> Int[Tensor, "b m"]:
        """A reference that each distinct reference is."""
        return index if self.size is None else self.index[index]


def distinct(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], queries: Int[Tensor, " q"]) -> Distinct:
    """The distinct ones of references x.

    Args:
        x: embeddings.
        labels: their classes.
        queries: classes of the queries.
    """
    classes, code, _ = grouped(torch.cat([labels, queries]))
    code, asked = code[: len(labels)], code[len(labels) :]
    same, every = originals(x), torch.arange(len(x), device=x.device)
    if same is None:
        return Distinct(x, every, every, None, code, asked, len(classes), every[:0], every[:0])
    index, place, size = grouped(same)
    keys, _, found = grouped(place * len(classes) + code)
    return Distinct(x[index], place, index, size, code, asked, len(classes), keys, found)


def grouped(x: Int[Tensor, " n"]) -> tuple[Int[Tensor, " u"], Int[Tensor, " n"], Int[Tensor, " u"]]:
    """The different numbers, rising; which of them each is; and how often each occurs."""
    return cast("tuple[Tensor, Tensor, Tensor]", torch.unique(x, return_inverse=True, return_counts=True))
