"""Stage `tune`: the same number of trials for every loss, by MAP@R on held-out classes, on a seed that no claim is
tested on.

A trial's value is its mean over class-disjoint folds of the training classes; test images are not looked at. Trials
are optuna's (TPE, seeded anew for each trial by its number, so that a stopped search goes on as if it had not been),
kept in a journal in the job's folder. The first three are random, by the same numbers for every loss: the first number
is the place of `lr` in its range, the next are those of the loss's own parameters in the order of their names. So all
losses share `lr`, and not all `proxy_lr`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from common.errors import NonFiniteError, unknown
from common.files import read_json, write_json
from common.study.model import JobRef, Member, Metrics
from common.training.seeds import stream
from projects.proxy_isa.task import folds, task
from projects.proxy_isa.training import InertError, train

BEST = "best.json"


def run(cfg: Mapping[str, Any], inputs: Mapping[str, Sequence[JobRef]], out: Any) -> Metrics:
    """Search, and leave `best.json`. Metrics: `map_at_r` of the best trial, `trials`, and its parameters (`tuned_...`).

    Raises:
        BadInputError: a loss whose options have no ranges.
    """
    member = Member(cfg, inputs, out, cfg["axes"])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed, options = int(member.axes["seed"]), cfg["tune"]
    space = _space(options["space"], str(cfg["loss"]["name"]))
    storage = JournalStorage(JournalFileBackend(str(out / "journal.log")))
    study = optuna.create_study(study_name="tune", storage=storage, direction="maximize", load_if_exists=True)
    drawn = task(str(member.axes["data"]), seed, cfg["data"])
    parts = folds(drawn.train, int(options["folds"]), seed)
    while (number := sum(trial.state.is_finished() for trial in study.trials)) < int(options["trials"]):
        sampler = optuna.samplers.TPESampler(seed=stream(seed, "trial", number) % 2**32, n_startup_trials=3)
        study.sampler = sampler
        trial = study.ask()
        tuned = {
            name: trial.suggest_float(name, float(low), float(high), log=True)
            for name, (low, high) in space.items()
        }
        study.tell(trial, _value(cfg, tuned, parts, seed, out / f"trial-{number}"))
    best = study.best_trial
    parameters = {f"tuned_{name}": value for name, value in best.params.items()}
    write_json(out / BEST, {"params": best.params, "value": best.value})
    return {"map_at_r": float(best.value or 0.0), "trials": float(options["trials"]), **parameters}


def chosen(inputs: Sequence[JobRef]) -> dict[str, float]:
    """The parameters of the best trial."""
    (job,) = inputs
    return dict(read_json(job.folder / BEST)["params"])


def _space(ranges: Mapping[str, Mapping[str, Any]], loss: str) -> dict[str, Any]:
    own = {name: its for name, its in ranges.items() if name != "all"}
    if loss not in own:
        raise unknown("loss.name", loss, own)
    return {**ranges["all"], **own[loss]}


def _value(
    cfg: Mapping[str, Any], tuned: Mapping[str, float], parts: Sequence[Any], seed: int, out: Any
) -> float:
    values: list[float] = []
    for number, fold in enumerate(parts):
        try:
            _, seen = train(cfg, tuned, fold, stream(seed, "fold", number), out / f"fold-{number}")
        except (NonFiniteError, InertError):
            return (
                0.0  # a trial that diverges retrieves nothing, and one whose rule was idle is no trial of it
            )
        values.append(max(seen.held))
    return float(np.mean(values))
