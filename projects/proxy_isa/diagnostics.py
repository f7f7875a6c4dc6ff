"""What Proxy-ISA does to a batch, as plain floats for a record.

The regions are those of `weights`, for both signs: easy is s > h_c for a positive and s < t_c for a negative,
informative between t_c and h_c, hard the rest. Shares are of the pairs of a sign.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from projects.proxy_isa.loss import Pairs, ProxyISA

EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 0.999, 1.001, 1.2, 1.5, 1.75, 2.001)
"""Of the histogram: fixed, so that records add up. Weights are in (0, 2]; 1 has a bin of its own."""
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def diagnose(
    loss: ProxyISA, embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"]
) -> dict[str, float]:
    """Everything below, of a batch under the state of `loss`, which stays as it is.

    Raises:
        BadInputError, NonFiniteError: a batch that the loss would refuse.
    """
    pairs = loss.pairs(embeddings, labels)
    return shares(pairs) | histogram(pairs) | classes(pairs)


def shares(pairs: Pairs) -> dict[str, float]:
    """`positive_easy`, `positive_informative`, `positive_hard` and the same of `negative`; each sign sums to 1."""
    h, t = pairs.schedule.hardness, pairs.schedule.threshold
    s, own = pairs.positive, pairs.labels
    above, below = (s > h[own]).float().mean(), (s < t[own]).float().mean()
    result = {"positive_easy": float(above), "positive_hard": float(below)}
    result["positive_informative"] = 1.0 - sum(result.values())
    negative = negatives(pairs)
    above, below = (
        ((flag & negative).sum() / negative.sum()) for flag in (pairs.negative > h, pairs.negative < t)
    )
    result |= {"negative_easy": float(below), "negative_hard": float(above)}
    return result | {"negative_informative": 1.0 - float(below) - float(above)}


def histogram(pairs: Pairs) -> dict[str, float]:
    """`positive_weight_<lower edge>` and `negative_weight_<lower edge>`: the share of the sign's pairs in each bin."""
    signs = {
        "positive": pairs.positive_weights,
        "negative": pairs.negative_weights[negatives(pairs)],
    }
    edges = torch.tensor(EDGES, device=pairs.positive.device)
    result: dict[str, float] = {}
    for sign, weights in signs.items():
        bins = torch.bucketize(weights.float().contiguous(), edges[1:-1], right=True)
        found = torch.bincount(bins, minlength=len(EDGES) - 1) / len(weights)
        result |= {f"{sign}_weight_{edge:g}": float(x) for edge, x in zip(EDGES, found, strict=False)}
    return result


def classes(pairs: Pairs) -> dict[str, float]:
    """Quantiles over the classes of h_c and of the half-width; means of E_c and t_c; the least and mean w_c."""
    state = pairs.schedule
    levels = torch.tensor(QUANTILES, dtype=state.hardness.dtype, device=state.hardness.device)
    result: dict[str, float] = {}
    for name, values in (("hardness", state.hardness), ("half_width", state.half_width)):
        found = torch.quantile(values, levels)
        result |= {f"{name}_q{round(100 * q)}": float(x) for q, x in zip(QUANTILES, found, strict=True)}
    result |= {
        "threshold_mean": float(state.threshold.mean()),
        "effective_number_mean": float(state.effective.mean()),
    }
    return result | {
        "class_weight_min": float(state.weight.min()),
        "class_weight_mean": float(state.weight.mean()),
    }


def negatives(pairs: Pairs) -> Bool[Tensor, "b c"]:
    """Which pairs are negative."""
    every = torch.ones_like(pairs.negative, dtype=torch.bool)
    return every.scatter_(1, pairs.labels[:, None], False)
