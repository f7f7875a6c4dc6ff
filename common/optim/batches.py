"""A batch cut along its first dimension: perturbation batches of m examples, each computed in chunks."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from common.errors import BadInputError


def size(batch: Any) -> int:
    """B: the first dimension of every tensor in a nest of tuples, lists and dicts.

    Raises:
        BadInputError: no tensor, or tensors that disagree.
    """
    sizes = {t.shape[0] if t.ndim else 0 for t in pytree.tree_leaves(batch) if isinstance(t, Tensor)}
    if len(sizes) != 1 or 0 in sizes:
        raise BadInputError(
            f"a batch must hold tensors with one common, positive first dimension; found {sorted(sizes)}."
        )
    return sizes.pop()


def part(batch: Any, start: int, stop: int) -> Any:
    """Examples `start` to `stop` - 1, as views; the batch itself when that is all of it."""
    if start == 0 and stop == size(batch):
        return batch

    def cut(leaf: Any) -> Any:
        return leaf[start:stop] if isinstance(leaf, Tensor) else leaf

    return pytree.tree_map(cut, batch)


def chunks(batch: Any, chunk: int) -> list[Any]:
    """Consecutive parts of `chunk` examples; the whole when that is no more.

    Raises:
        BadInputError: parts of unequal size, whose mean losses could not be averaged.
    """
    whole = size(batch)
    if chunk >= whole:
        return [batch]
    check_divides("chunk", chunk, "the examples of one pass on this device", whole)
    return [part(batch, at, at + chunk) for at in range(0, whole, chunk)]


def check_divides(small_name: str, small: int, large_name: str, large: int) -> None:
    """Raise unless `small` divides `large`.

    Raises:
        BadInputError: names both, and the nearest divisors.
    """
    if small >= 1 and large % small == 0:
        return
    divisors = [d for d in range(1, large + 1) if large % d == 0]
    near = sorted(sorted(divisors, key=lambda d: abs(d - small))[:3])
    raise BadInputError(f"{small_name} = {small} must divide {large_name} = {large}. Near it: {near}.")
