"""What retrieval accepts, and what it says of the rest."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from common.errors import SHOWN, BadInputError
from common.metrics.neighbours import Side
from common.metrics.similarity import lengths, unit

KEPT = (torch.float32, torch.float64)
NARROW = (torch.float16, torch.bfloat16)


def side(
    what: str, embeddings: Float[Tensor, "n d"], labels: Shaped[Tensor, " n"], *, normalise: bool
) -> Side:
    """Checked embeddings, of length 1 if asked, in float32 or float64, with labels on the same device.

    Args:
        what: "queries" or "references", for messages.
        embeddings: float16 and bfloat16 become float32.
        labels: integers.
        normalise: divide each by its length.

    Raises:
        BadInputError: a shape or type does not fit, nothing is there, a number is NaN or infinite, a length is zero
            that is to be divided by, or products could overflow.
    """
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1]:
        raise BadInputError(
            f"{what}: embeddings of shape {tuple(embeddings.shape)} and labels of shape {tuple(labels.shape)}; "
            "retrieval takes (n, d) and (n,)"
        )
    if not embeddings.numel():
        raise BadInputError(f"{what}: no embeddings, their shape is {tuple(embeddings.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise BadInputError(f"{what}: labels are integers, these are {labels.dtype}")
    if embeddings.dtype not in KEPT + NARROW:
        raise BadInputError(f"{what}: embeddings are floating-point numbers, these are {embeddings.dtype}")
    x = embeddings.detach()
    x = x.float() if x.dtype in NARROW else x
    length = lengths(x)
    if len(wrong := (~length.isfinite()).nonzero()[:, 0]):
        raise BadInputError(f"{what}: NaN, infinite or overflowing embeddings in {listed(wrong)}")
    if normalise:
        if len(wrong := (length == 0).nonzero()[:, 0]):
            raise BadInputError(f"{what}: embeddings of length zero, with no direction, in {listed(wrong)}")
        x = unit(x, length)
    elif float(length.max()) > torch.finfo(x.dtype).max ** 0.5 / 2:
        raise BadInputError(f"{what}: their inner products overflow {x.dtype}; scale the embeddings down")
    return Side(x, labels.to(x.device, torch.int64))


def own_references(same: Int[Tensor, " q"] | None, queries: Side, references: Side) -> Int[Tensor, " q"]:
    """The reference that is the query itself, or -1.

    Raises:
        BadInputError: not one for each query, not an index, or the two have different labels.
    """
    if same is None:
        return torch.full_like(queries.labels, -1)
    if same.shape != queries.labels.shape or same.is_floating_point() or same.dtype == torch.bool:
        raise BadInputError(
            f"same holds one integer for each of {len(queries.labels)} queries; it has shape {tuple(same.shape)} "
            f"and type {same.dtype}"
        )
    own, n = same.to(queries.labels.device, torch.int64), len(references.labels)
    if len(wrong := ((own < -1) | (own >= n)).nonzero()[:, 0]):
        raise BadInputError(f"same is -1 or the index of one of {n} references; it is not in {listed(wrong)}")
    differ = (own >= 0) & (references.labels[own.clamp(min=0)] != queries.labels)
    if len(wrong := differ.nonzero()[:, 0]):
        raise BadInputError(f"same names references with another label than the query's in {listed(wrong)}")
    return own


def match_counts(queries: Side, references: Side, own: Int[Tensor, " q"]) -> Int[Tensor, " q"]:
    """R(q): references of the query's class, itself left out."""
    both = torch.cat([references.labels, queries.labels])
    classes, code = cast("tuple[Tensor, Tensor]", torch.unique(both, return_inverse=True))
    n = len(references.labels)
    return torch.bincount(code[:n], minlength=len(classes))[code[n:]] - (own >= 0).long()


def with_match(matches: Int[Tensor, " q"], unmatched: str) -> Bool[Tensor, " q"]:
    """Which queries have a reference of their class.

    Raises:
        BadInputError: one has none and `unmatched` is "error", or none has one.
    """
    if unmatched not in ("error", "exclude"):
        raise BadInputError(f"unmatched is 'error' or 'exclude', not {unmatched!r}")
    kept = matches > 0
    lone = (~kept).nonzero()[:, 0]
    if len(lone) and (unmatched == "error" or len(lone) == len(kept)):
        raise BadInputError(
            f"{len(lone)} of {len(kept)} queries have no reference of their class besides themselves: "
            f"{listed(lone)}. Pass unmatched='exclude' to leave such queries out and have them counted"
        )
    return kept


def listed(index: Int[Tensor, " n"]) -> str:
    """'rows 3, 7, ... (12 in all)'."""
    shown = ", ".join(str(i) for i in cast("list[int]", index[:SHOWN].tolist()))
    return f"row{'s' * (len(index) > 1)} {shown}" + f", ... ({len(index)} in all)" * (len(index) > SHOWN)
