"""Stage `learn`: fresh seeds with what was tuned; one model a fold, and the test classes touched once.

The models of the folds are judged apart (mean over them) and concatenated (Musgrave et al. 2020). Where the test
classes are watched, the released protocol's number stands beside: the look chosen by MAP@R on the test set itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.files import write_json
from common.study.model import Member, Metrics
from common.tracking.record import Recorder
from common.training.seeds import stream
from projects.proxy_isa.embedder import Embedder
from projects.proxy_isa.examples import examples
from projects.proxy_isa.learner import Seen, embed, found, together
from projects.proxy_isa.shown import FILE
from projects.proxy_isa.task import Task, folds, task
from projects.proxy_isa.training import InertError, train
from projects.proxy_isa.tune import chosen


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """One seed after the other."""
    return [learn(member) for member in members]


def learn(member: Member) -> Metrics:
    """Train every fold of a seed and test.

    Metrics: `map_at_r`, `recall_at_1`, `r_precision` of the concatenated embedding, the same `separated_…` as means
    over the folds; `held_map_at_r`; `weight_at_half`; where the test classes are watched, `selected_by_test`,
    `selected_by_held`, `last` and `unselected` (mean over the looks): MAP@R of single models, means over the folds;
    `hard_share`, the least of the folds' mean share of hard positive pairs; `inert`, 1 and no other for a seed with a
    training in which the rule that its arm is about did nothing: what reads its scores is invalid then. The stage
    `shown` reads examples.json.
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
            try:
                embedder, one = train(cfg, tuned, fold, stream(seed, "fold", number), out, watch, mine)
            except InertError as reason:
                print(f"seed {seed}, fold {number}: {reason}", flush=True)
                return {"inert": 1.0}
            models.append(embedder)
            seen.append(one)
    return {
        **tested(models, drawn, member.out),
        **watched(seen),
        "held_map_at_r": _mean([max(one.held) for one in seen]),
        "weight_at_half": max(one.weight_at_half for one in seen),
        "hard_share": min(one.hard_share() for one in seen),
        "inert": 0.0,
    }


def tested(models: Sequence[Embedder], drawn: Task, out: Path) -> dict[str, float]:
    """Concatenated and separated scores on the test classes; examples are left in `out`."""
    queries = [embed(each, drawn.test) for each in models]
    gallery = None if drawn.gallery is None else [embed(each, drawn.gallery) for each in models]
    whole = found(drawn, queries, gallery)
    apart = [
        found(drawn, queries[k : k + 1], gallery and gallery[k : k + 1]).means() for k in range(len(models))
    ]
    separated = {f"separated_{name}": _mean([one[name] for one in apart]) for name in apart[0]}
    searched = together(gallery) if gallery else None
    write_json(out / FILE, examples(whole, together(queries), drawn.test.y, searched))
    return whole.means() | separated


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


def _last_best(values: Sequence[float]) -> int:
    best = max(values)
    return max(place for place, value in enumerate(values) if value == best)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
