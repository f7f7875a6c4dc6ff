"""Candidates from faiss's exact flat index, where it is installed: the same result, by another search.

faiss returns the largest products of each query. They are all candidates there are if the last of them is below what
the k-th may be off by; a query of which that does not hold (many near ties) is left to the search by torch.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from common.errors import BadInputError

SPARE = 8
"""Neighbours beyond the k-th that are asked for: room for the query itself and for near ties."""
QUERIES = 4096
"""Queries searched at once: with a few hundred, faiss reads 60,000 references four times as slowly."""
MOST = 1024
"""Neighbours asked for at most: faiss keeps a heap, whose cost grows with them."""
ENGINES = ("auto", "torch", "faiss")


def wanted(engine: str, x: Tensor, k: int) -> bool:
    """Whether to search with faiss.

    Args:
        engine: "faiss"; "auto" for faiss where it is installed and can be used, else torch; or "torch".
        x: the references.
        k: neighbours that will be asked for.

    Raises:
        BadInputError: an unknown engine, or "faiss" where it is not installed, or for other than float32 on the CPU.
    """
    if engine not in ENGINES:
        raise BadInputError(f"engine is one of {', '.join(ENGINES)}, not {engine!r}")
    fits = x.dtype == torch.float32 and x.device.type == "cpu"
    installed = engine != "torch" and importlib.util.find_spec("faiss") is not None
    if engine == "faiss":
        if not installed:
            raise BadInputError(
                "engine='faiss': faiss is not installed. Install faiss-cpu, or leave the engine out for the same result"
            )
        if not fits:
            raise BadInputError(
                f"engine='faiss' searches float32 on the CPU, these are {x.dtype} on {x.device}: leave the engine out"
            )
        return True
    return installed and fits and k + SPARE <= MOST


class Flat:
    """An index over references x.

    Args:
        x: float32, on the CPU.
        k: neighbours that each query needs.
    """

    def __init__(self, x: Float[Tensor, "u d"], k: int) -> None:
        import faiss

        self.k, self.asked = k, min(len(x), k + SPARE)
        self.whole = self.asked == len(x)
        self.index: Any = faiss.IndexFlatIP(x.shape[1])
        faiss.omp_set_num_threads(torch.get_num_threads())
        self.index.add(x.contiguous().numpy())

    def nearest(
        self, queries: Float[Tensor, "c d"], hidden: Int[Tensor, " c"], error: Float64[Tensor, " c"]
    ) -> tuple[Int[Tensor, "c m"], Float[Tensor, "c m"], Bool[Tensor, " c"]]:
        """Index and product of the nearest references, and whether they are all the candidates there are.

        Args:
            queries: float32.
            hidden: a reference that each query leaves out, or -1.
            error: what a product may be off by.
        """
        found, at = self.index.search(queries.contiguous().numpy(), self.asked)
        product, index = torch.from_numpy(found), torch.from_numpy(at)
        last = product[:, -1].double()
        product = product.masked_fill(index == hidden[:, None], -torch.inf)
        floor = product.topk(self.k, dim=1).values[:, -1].double() - 2 * error
        return index, product, torch.full_like(hidden, self.whole, dtype=torch.bool) | (last < floor)
