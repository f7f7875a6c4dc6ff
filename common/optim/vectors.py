"""The tensors of all parameters read as one vector, also where each process holds a part of every tensor."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# torch's operations on lists have no public names.

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from common.processes.parts import is_part, own
from common.processes.shares import total

Vector = list[Float[Tensor, "..."]]


def norm(v: Vector) -> float:
    """||v||_2 over all elements, at least in float32; 0 for no tensors."""
    if not v:
        return 0.0
    wide = v[0].dtype if v[0].dtype == torch.float64 else torch.float32
    norms = torch.stack(torch._foreach_norm(own(v), 2, wide))
    length = float(torch.linalg.vector_norm(norms))  # pyright: ignore[reportUnknownArgumentType]
    return _over_parts(length**2, v) ** 0.5 if is_part(v[0]) else length


def dot(u: Vector, v: Vector) -> float:
    """The inner product over all elements, at least in float32."""
    wide = torch.float64 if u and u[0].dtype == torch.float64 else torch.float32
    found = float(sum(torch.sum(a.to(wide) * b.to(wide)) for a, b in zip(own(u), own(v), strict=True)))
    return _over_parts(found, u) if u and is_part(u[0]) else found


def scaled(v: Vector, factor: float) -> Vector:
    """factor v, in new tensors."""
    return list(torch._foreach_mul(v, factor)) if v else []


def product(u: Vector, v: Vector) -> Vector:
    """The element-wise product, in new tensors."""
    return list(torch._foreach_mul(u, v))


def magnitude(v: Vector) -> Vector:
    """|v| element by element, in new tensors."""
    return list(torch._foreach_abs(v))


def add_(u: Vector, v: Vector, factor: float = 1.0) -> None:
    """u <- u + factor v."""
    if v:
        torch._foreach_add_(own(u), own(v), alpha=factor)


def scale_(v: Vector, factor: float) -> None:
    """v <- factor v; nothing at all for a factor of 1."""
    if v and factor != 1.0:
        torch._foreach_mul_(own(v), factor)


def copy_(target: Vector, source: Vector) -> None:
    """target <- source bit by bit; every tensor stays where it is in memory."""
    if target:
        torch._foreach_copy_(own(target), own(source))


def present(v: Sequence[Tensor | None]) -> tuple[int, ...]:
    """Which entries are tensors."""
    return tuple(i for i, t in enumerate(v) if t is not None)


def _over_parts(value: float, v: Vector) -> float:
    """The sum over all processes of what each found in its parts of `v`."""
    return float(total(torch.tensor(value, dtype=torch.float64, device=v[0].device)))
