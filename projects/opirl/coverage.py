"""How much of what an expert does a policy does too, in a task with several modes.

The expert's state-action pairs are cut into k regions (k-means on standardised features; Lloyd's algorithm from
k-means++ starts). A region is visited if a policy's pair is nearest to its centre and no further from it than the
`reach` quantile of the expert's own pairs there: passing by at a distance does not count.

    coverage = share of regions visited                                  in [0, 1]
    overlap  = sum over modes of min(policy's share, expert's share)     in [0, 1]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.cluster.vq import kmeans2, vq

from projects.opirl.envs.pointmaze import GOALS
from projects.opirl.rollout import Episodes

ARRIVED = 0.1
"""Distance to a goal that counts as there."""


@dataclass(frozen=True)
class Regions:
    """Regions of expert pairs [s, a]: standardisation, centres (k, w) and the radius of each."""

    shift: Float[ndarray, " w"]
    scale: Float[ndarray, " w"]
    centres: Float[ndarray, "k w"]
    radii: Float[ndarray, " k"]


def pairs(episodes: Episodes) -> Float[ndarray, "t w"]:
    """State-action pairs of raw observations."""
    return np.concatenate([episodes.obs, episodes.act], 1, dtype=np.float64)


def regions(expert: Float[ndarray, "t w"], count: int = 50, reach: float = 0.95, seed: int = 0) -> Regions:
    """Cut the expert's pairs into at most `count` regions; their order does not matter.

    A feature that never varies is left alone. The radius has a floor of the mean radius's hundredth, so that a
    region of equal pairs can be visited.
    """
    expert = expert[np.lexsort(expert.T)]
    spread = expert.std(0)
    shift, scale = -expert.mean(0), np.where(spread > 1e-8, 1.0 / np.maximum(spread, 1e-8), 1.0)
    points = (expert + shift) * scale
    count = min(count, len(np.unique(points, axis=0)))
    centres, _ = kmeans2(points, count, iter=50, minit="++", rng=np.random.default_rng(seed))
    labels, distances = vq(points, centres)
    kept = np.unique(labels)
    radii = np.array([np.quantile(distances[labels == label], reach) for label in kept])
    return Regions(shift, scale, centres[kept], np.maximum(radii, max(0.01 * radii.mean(), 1e-9)))


def coverage(where: Regions, policy: Float[ndarray, "t w"]) -> float:
    """The share of regions that the policy's pairs visit."""
    if len(policy) == 0:
        return 0.0
    labels, distances = vq((policy + where.shift) * where.scale, where.centres)
    return len(np.unique(labels[distances <= where.radii[labels]])) / len(where.centres)


def goals_reached(episodes: Episodes) -> Int[ndarray, " e"]:
    """Mode of each episode of the two-goal maze: the goal it ends at, 0 or 1; -1 for neither."""
    last = np.flatnonzero(episodes.terminated | episodes.truncated)
    ends = episodes.next_obs[last, :2]
    distances = np.linalg.norm(ends[:, None] - np.array(GOALS)[:, :2], axis=2)
    return np.where(distances.min(1) <= ARRIVED, distances.argmin(1), -1)


def overlap(policy: Int[ndarray, " e"], expert: Int[ndarray, " e"], modes: int = 2) -> float:
    """How far the policy's episodes are spread over the modes as the expert's are; mode -1 is none."""
    shares = [
        np.array([(one == mode).mean() if len(one) else 0.0 for mode in range(modes)])
        for one in (policy, expert)
    ]
    return float(np.minimum(*shares).sum())
