"""Stage `learn`: fresh seeds with what was tuned; one model a fold, and the test classes touched once.

The models of the folds are judged apart (mean over them) and concatenated (Musgrave et al. 2020). Where the test
classes are watched, the released protocol's number stands beside: the look chosen by MAP@R on the test set itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.metrics.retrieval import Retrieval
from common.study.model import Member, Metrics
from common.tracking.record import Recorder
from common.training.seeds import stream
from projects.proxy_isa.embedder import Embedder
from projects.proxy_isa.learner import Seen, embed, scores, together
from projects.proxy_isa.task import Task, folds, task
from projects.proxy_isa.training import train
from projects.proxy_isa.tune import chosen

NEIGHBOURS = 5


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """One seed after the other."""
    return [learn(member) for member in members]


def learn(member: Member) -> Metrics:
    """Train every fold of a seed and test.

    Metrics: `map_at_r`, `recall_at_1`, `r_precision` of the concatenated embedding, the same `separated_…` as means
    over the folds; `held_map_at_r`; `weight_at_half`; where the test classes are watched, `selected_by_test`,
    `selected_by_held`, `last` and `unselected` (mean over the looks): MAP@R of single models, means over the folds.
    The test query with the lowest and the one with the highest average precision, and the nearest images of each, as
    `worst_0` … and `best_0` …: indices of test images, for a figure.
    """
    cfg, seed = member.cfg, int(member.axes["seed"])
    drawn, tuned = task(str(member.axes["data"]), seed, cfg["data"]), chosen(member.inputs["tune"])
    watch = drawn if cfg["train"]["watch_test"] else None
    models: list[Embedder] = []
    seen: list[Seen] = []
    with Recorder(member.out) as record:
        for number, fold in enumerate(folds(drawn.train, int(cfg["train"]["folds"]), seed)):
            mine = None if number else record
            out = member.out / f"fold-{number}"
            embedder, found = train(cfg, tuned, fold, stream(seed, "fold", number), out, watch, mine)
            models.append(embedder)
            seen.append(found)
    return {
        **tested(models, drawn),
        **watched(seen),
        "held_map_at_r": _mean([max(one.held) for one in seen]),
        "weight_at_half": max(one.weight_at_half for one in seen),
    }


def tested(models: Sequence[Embedder], drawn: Task) -> dict[str, float]:
    """Concatenated and separated scores on the test classes, and examples."""
    whole = scores(models, drawn)
    apart = [scores([each], drawn).means() for each in models]
    separated = {f"separated_{name}": _mean([one[name] for one in apart]) for name in apart[0]}
    return whole.means() | separated | examples(whole, models, drawn)


def watched(seen: Sequence[Seen]) -> dict[str, float]:
    """MAP@R on the test classes by how the look was chosen; nothing where they were not watched."""
    if not all(one.test for one in seen):
        return {}
    by_held = [one.test[_last_best(one.held)] for one in seen]
    return {
        "selected_by_test": _mean([max(one.test) for one in seen]),
        "selected_by_held": _mean(by_held),
        "last": _mean([one.test[-1] for one in seen]),
        "unselected": _mean([_mean(one.test) for one in seen]),
    }


def examples(found: Retrieval, models: Sequence[Embedder], drawn: Task) -> dict[str, float]:
    """Two queries with their nearest images, as indices of test images (of gallery images, where there is one)."""
    queries = together([embed(each, drawn.test) for each in models])
    gallery = queries
    if drawn.gallery is not None:
        gallery = together([embed(each, drawn.gallery) for each in models])
    result: dict[str, float] = {}
    for name, at in (("worst", int(found.map_at_r.argmin())), ("best", int(found.map_at_r.argmax()))):
        query = int(found.query[at])
        near = gallery @ queries[query]
        if drawn.gallery is None:
            near[query] = -2.0
        order = [query, *near.topk(NEIGHBOURS).indices.tolist()]
        result |= {f"{name}_{place}": float(index) for place, index in enumerate(order)}
    return result


def _last_best(values: Sequence[float]) -> int:
    best = max(values)
    return max(place for place, value in enumerate(values) if value == best)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
