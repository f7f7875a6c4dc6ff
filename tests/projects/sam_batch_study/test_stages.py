"""From a search to the law, on tiny tasks: what each stage leaves, chooses and reads; and stops that change no bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import BadInputError, StoppedError
from common.files import read_json, write_json
from common.study.model import JobRef, Member
from common.tracking.record import read_history
from common.training import stop
from projects.sam_batch_study import search
from projects.sam_batch_study.plan import Outcome
from projects.sam_batch_study.replicas import Replicas
from projects.sam_batch_study.retrain import means
from projects.sam_batch_study.sweep import Point, best, beyond, points
from projects.sam_batch_study.trained import Trained, load_weights
from tests.projects.sam_batch_study import support
from tests.projects.sam_batch_study.conftest import Stages

SAM = {"kind": "sam", "tuned_as": "sam_batch"}
AXES = {"task": "clean", "method": "sam_batch", "batch": 64}


def any_seed(ref: JobRef, seed: int) -> bool:
    return True


def same_seed(ref: JobRef, seed: int) -> bool:
    return ref.axes["seed"] == seed


@pytest.fixture
def searched(stages: Stages) -> Stages:
    grid = {"multipliers": {"sqrt": [0.5, 1.0], "linear": []}, "rhos": [0.05, 0.1], "extension": 0}
    cfg = support.config(rule=SAM, search=grid)
    stages.run("search", stages.members("search", cfg, (900, 901), {}, **AXES))
    return stages


def test_a_search_tries_every_pair_and_the_choice_is_the_lowest_mean_error(searched: Stages) -> None:
    tables = [read_json(ref.folder / search.TRIALS) for ref in searched.finished["search"]]
    assert [(row["lr"], row["rho"]) for row in tables[0]] == [
        (0.02, 0.05), (0.02, 0.1), (0.04, 0.05), (0.04, 0.1)
    ]  # fmt: skip
    mean = np.mean([[row["error"] for row in table] for table in tables], axis=0)
    at = int(np.argmin(mean))
    assert search.choice(searched.finished["search"]) == (tables[0][at]["lr"], tables[0][at]["rho"])
    for ref, table in zip(searched.finished["search"], tables, strict=True):
        assert ref.metrics["validation_error"] == min(row["error"] for row in table)
        assert ref.metrics["trials"] == 4


def job(folder: Path, table: list[dict[str, Any]]) -> JobRef:
    folder.mkdir()
    write_json(folder / search.TRIALS, table)
    return JobRef({}, folder, {})


def test_a_trial_that_did_not_fit_on_every_seed_is_not_chosen(tmp_path: Path) -> None:
    def row(rho: float, error: float, *, fitted: bool) -> dict[str, Any]:
        return {"lr": 0.1, "rho": rho, "error": error, "fitted": fitted}

    one = job(tmp_path / "1", [row(0.1, 0.2, fitted=True), row(0.2, 0.1, fitted=True)])
    two = job(tmp_path / "2", [row(0.1, 0.2, fitted=True), row(0.2, 0.1, fitted=False)])
    assert search.choice([one]) == (0.1, 0.2)
    assert search.choice([one, two]) == (0.1, 0.1)
    other = job(tmp_path / "3", [row(0.3, 0.2, fitted=True)])
    with pytest.raises(BadInputError, match="no trial in common"):
        search.choice([one, other])


def table(errors: Mapping[float, float], rho: float = 0.1) -> list[dict[str, Any]]:
    return [{"lr": lr, "rho": rho, "error": error, "fitted": True} for lr, error in errors.items()]


def test_beyond_an_end_of_the_grid_lie_the_next_learning_rates_in_its_ratio() -> None:
    low, high, middle = (
        {0.1: 0.1, 0.2: 0.2, 0.6: 0.3},
        {0.1: 0.3, 0.2: 0.2, 0.6: 0.1},
        {0.1: 0.3, 0.2: 0.1, 0.6: 0.2},
    )
    assert search.beyond(table(low), 1) == [0.05]
    assert search.beyond(table(high), 2) == [pytest.approx(1.8), pytest.approx(5.4)]
    assert search.beyond(table(middle), 1) == []
    assert search.beyond(table({0.1: 0.3}), 1) == []


def test_an_unfitted_trial_at_an_end_extends_nothing() -> None:
    tried = table({0.1: 0.3, 0.2: 0.2, 0.6: 0.1})
    tried[2]["fitted"] = False
    assert search.beyond(tried, 1) == []


def test_an_extension_counts_where_every_search_seed_made_it(tmp_path: Path) -> None:
    one = job(tmp_path / "1", table({0.1: 0.2, 0.2: 0.3, 0.05: 0.1}))
    two = job(tmp_path / "2", table({0.1: 0.2, 0.2: 0.1}))
    three = job(tmp_path / "3", table({0.1: 0.2, 0.2: 0.3, 0.05: 0.1}))
    assert search.choice([one, three]) == (0.05, 0.1)
    assert search.choice([one, two]) == (0.1, 0.1)


def test_a_search_whose_best_learning_rate_lies_at_an_end_goes_on_there_once(stages: Stages) -> None:
    """Small learning rates: the larger is best, on every seed and alone."""
    grid = {"lr": 0.02, "multipliers": {"sqrt": [0.1, 1.0], "linear": []}, "rhos": [0.05, 0.1]}
    cfg = support.config(rule=SAM, search=grid, train={"steps": 24, "looks": 6, "fit": 0.0})
    metrics = stages.run("search", stages.members("search", cfg, (900, 901), {}, **AXES))
    for one, ref in zip(metrics, stages.finished["search"], strict=True):
        tried = read_json(ref.folder / search.TRIALS)
        assert [(row["lr"], row["rho"]) for row in tried[4:]] == [(0.2, 0.05), (0.2, 0.1)]
        assert one["trials"] == 6 and one["extended"] == 1.0
        assert one["open"] == float(one["best_lr"] in (0.002, 0.2))
    alone = stages.members("search", cfg, (901,), {}, "alone", **AXES)
    assert stages.run("search", alone) == metrics[1:]


def test_learning_rates_follow_both_laws_of_scaling_once_each() -> None:
    options = {"lr": 0.04, "multipliers": {"sqrt": [0.5, 1.0], "linear": [1.0]}, "rhos": [0.0]}
    assert [lr for lr, _ in search.trials(options, 64, "sgd")] == [0.02, 0.04]
    assert [lr for lr, _ in search.trials(options, 1024, "sgd")] == [0.08, 0.16, 0.64]


@pytest.mark.parametrize("kind", ["sam", "random", "penalty"])
@pytest.mark.parametrize("rho", [0.0, -0.1, math.nan, math.inf])
def test_a_strength_that_is_none_is_refused(kind: str, rho: float) -> None:
    options = {"lr": 0.04, "multipliers": {"sqrt": [1.0], "linear": []}, "rhos": [0.1, rho]}
    with pytest.raises(BadInputError, match=rf"search\.rhos: rule\.kind = {kind} needs rho > 0"):
        search.trials(options, 64, kind)
    assert len(search.trials(options, 64, "sgd")) == 2


def test_a_search_refuses_it_before_it_trains(stages: Stages) -> None:
    """The perceptrons' engine would descend at w - |rho| g/||g|| and say nothing."""
    cfg = support.config(rule=SAM, search={"rhos": [-0.1]})
    with pytest.raises(BadInputError, match=r"not \[-0\.1\]"):
        stages.run("search", stages.members("search", cfg, (900,), {}, **AXES))


@pytest.mark.parametrize("rhos", [[], [0.1], [0.1, 0.1], [0.0, 0.1], [0.1, -0.2], [0.1, math.nan]])
def test_a_sweep_needs_two_strengths_that_have_a_logarithm(searched: Stages, rhos: list[float]) -> None:
    cfg = support.config(rule=SAM, sweep={"rhos": rhos})
    members = searched.members("sweep", cfg, (0,), {"search": any_seed}, **AXES)
    with pytest.raises(BadInputError, match=r"sweep\.rhos needs at least two different rho > 0"):
        searched.run("sweep", members)


@pytest.mark.parametrize(("stage", "section"), [("sweep", {"rhos": [0.1, 0.2]}), ("retrain", {})])
def test_no_initialisation_is_refused(searched: Stages, stage: str, section: dict[str, Any]) -> None:
    cfg = support.config(rule=SAM, **{stage: {**section, "inits": 0}})
    members = searched.members(stage, cfg, (0,), {"search": any_seed}, **AXES)
    with pytest.raises(BadInputError, match="inits must be at least 1"):
        searched.run(stage, members)


@pytest.mark.parametrize(
    ("scale", "trials", "long"),
    [("laptop", (9, 3), (4, 1)), ("workstation", (24, 4), (7, 1)), ("paper", (12, 4), None)],
)
def test_every_method_has_the_same_number_of_trials(
    scale: str, trials: tuple[int, int], long: tuple[int, int] | None
) -> None:
    """SAM's learning rates times its rhos, and as many of SGD; so many more at an end. A control has fewer."""
    from common.study.config import compose
    from common.study.jobs import expand, load_study

    jobs = expand(load_study("sam_batch_study"), compose("sam_batch_study", scale))
    counts: dict[str, set[tuple[int, int]]] = {}
    for job in jobs:
        if job.stage.name == "search":
            options = job.config["search"]
            tried = len(search.trials(options, int(job.axes["batch"]), job.config["rule"]["kind"]))
            more = options["extension"] * len(options["rhos"])
            counts.setdefault(str(job.axes["method"]), set()).add((tried, more))
    assert counts.pop("sgd_long", None) == (long and {long})
    assert list(counts.values()) == [{trials}] * len(counts) and {"sgd", "sam_batch"} <= set(counts)


def test_cifar_100_is_trained_at_paper_scale_and_no_claim_reads_it() -> None:
    from common.study.config import compose
    from common.study.jobs import expand, load_study

    study = load_study("sam_batch_study")
    jobs = expand(study, compose("sam_batch_study", "paper"))
    mine = [job for job in jobs if job.axes.get("task") == "cifar100"]
    assert {job.stage.name for job in mine} == {"search", "retrain"}
    assert {job.axes["batch"] for job in mine} == {125, 1125, 9000, 45000}
    assert all(
        (job.config["images"]["source"], job.config["images"]["classes"]) == ("cifar100", 100) for job in mine
    )
    assert "cifar100" not in repr(study.claims)


def curve(*errors: float, norm: float = 1.0, unfit: tuple[int, ...] = ()) -> dict[float, Point]:
    rhos = [0.1 * 2.0**k for k in range(len(errors))]
    return {
        rho: Point(error, error, norm * rho, k not in unfit)
        for k, (rho, error) in enumerate(zip(rhos, errors, strict=True))
    }


def test_the_best_rho_is_the_lowest_point_of_a_parabola_in_log_rho() -> None:
    x = np.log([0.1, 0.2, 0.4, 0.8])
    errors = 0.1 + 0.02 * (x - math.log(0.25)) ** 2
    found = best(curve(*errors))
    assert found["best_rho"] == pytest.approx(0.25)
    assert found["open"] == 0.0
    assert found["norm"] == pytest.approx(0.25)  # norm ~ rho, interpolated on logarithms


def test_at_an_end_the_grid_goes_on_once_and_then_the_best_is_open() -> None:
    assert beyond(curve(0.1, 0.2, 0.3)) == pytest.approx(0.05)
    assert beyond(curve(0.3, 0.2, 0.1)) == pytest.approx(0.8)
    assert beyond(curve(0.3, 0.1, 0.2)) is None
    assert best(curve(0.1, 0.2, 0.3)) | {"norm": 0} == {
        "best_rho": pytest.approx(0.1),
        "open": 1.0,
        "norm": 0,
    }


def test_an_unfitted_neighbour_does_not_draw_the_best_rho_towards_it() -> None:
    """Its low error counts as the lowest fitted one: the parabola's bottom is half-way at most."""
    found = best(curve(0.3, 0.2, 0.05, unfit=(2,)))
    assert found["best_rho"] <= 0.2 * 2**0.5 + 1e-12
    assert best(curve(0.2, 0.1, 0.2))["best_rho"] == pytest.approx(0.2)


def outcome(error: float, *, fitted: bool = True, loss: float = 0.01) -> Outcome:
    return Outcome(loss, fitted, 10, 1.0, error, error, error, error)


def test_points_average_the_initialisations_of_each_rho() -> None:
    one = Trained([outcome(0.1), outcome(0.3), outcome(0.2), outcome(0.2, fitted=False)], {})
    found = points(one, [0.1, 0.2], "last")
    assert found[0.1] == Point(pytest.approx(0.2), pytest.approx(0.2), 1.0, fitted=True)
    assert not found[0.2].fitted


def test_a_net_that_did_not_fit_counts_with_the_error_of_chance() -> None:
    found = means([outcome(0.1), outcome(0.2, fitted=False, loss=math.inf)], chance=0.9)
    assert found["test_error"] == pytest.approx(0.5) and found["stopped_error"] == pytest.approx(0.15)
    assert found["fitted"] == 0.5 and math.isfinite(found["train_loss"])


def test_a_sweep_extends_the_seeds_that_need_it_and_they_alone(searched: Stages) -> None:
    cfg = support.config(rule=SAM, sweep={"rhos": [0.05, 0.1, 0.2], "inits": 2})
    members = searched.members("sweep", cfg, (0, 1), {"search": any_seed}, **AXES)
    for one in searched.run("sweep", members):
        curve_ = {rho: one[f"error_at_{rho:g}"] for rho in (0.05, 0.1, 0.2)}
        lowest = min(curve_, key=curve_.__getitem__)
        assert one["extended"] == float(lowest in (0.05, 0.2))
        assert 0.0125 < one["best_rho"] < 0.8
    alone = searched.members("sweep", cfg, (1,), {"search": any_seed}, "alone", **AXES)
    assert searched.run("sweep", alone)[0] == searched.finished["sweep"][1].metrics


@pytest.fixture
def retrained(searched: Stages) -> Stages:
    cfg = support.config(rule=SAM, retrain={"inits": 2}, train={"steps": 48, "looks": 12, "fit": 0.0})
    searched.run("retrain", searched.members("retrain", cfg, (0, 1), {"search": any_seed}, **AXES))
    return searched


def test_retraining_leaves_weights_and_a_curve(retrained: Stages) -> None:
    for ref in retrained.finished["retrain"]:
        saved = load_weights(ref.folder)
        assert {"last", "steps"} <= set(saved) and set(saved["steps"]) == set(saved) - {"last", "steps"}
        rows = read_history(ref.folder / "history.jsonl")
        assert [row["step"] for row in rows] == list(range(4, 49, 4))
        assert rows[-1]["passes"] == pytest.approx(48 * 64 / 128)
        assert 0 <= ref.metrics["test_error"] <= 1 and ref.metrics["lr"] in (0.02, 0.04)


def test_a_probe_measures_the_last_weights_and_those_on_the_way(retrained: Stages) -> None:
    cfg = support.config(
        train={"steps": 48, "looks": 12, "fit": 0.0}, probe={"m": 64, "lanczos": 30, "products": 12}
    )
    members = retrained.members("probe", cfg, (0, 1), {"retrain": same_seed}, **AXES)
    from projects.sam_batch_study.models import build
    from projects.sam_batch_study.task import task

    for one, member in zip(retrained.run("probe", members), members, strict=True):
        train = task(int(member.axes["seed"]), support.IMAGES).train
        model = build(cfg["net"], (1, 16, 16), 8)
        model.load_state_dict(load_weights(member.inputs["retrain"][0].folder)["last"])
        loss = torch.nn.functional.cross_entropy(model(train.x), train.y)
        g = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.cat([each.flatten() for each in g]).norm()
        assert one["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)
        assert one["lambda_max"] > 0 and one["m_sharpness"] > 0 and -1 <= one["cosine"] <= 1
        rows = read_history(member.out / "history.jsonl")
        tops = [row["lambda_max"] for row in rows]
        assert one["middle_lambda"] == pytest.approx(math.exp(np.mean(np.log(tops))), rel=1e-4)
        assert all("full_batch_edge" not in row for row in rows)


def test_the_edge_is_told_where_m_is_the_training_set(searched: Stages) -> None:
    axes = AXES | {"batch": 128}
    train = {"steps": 48, "looks": 12, "fit": 0.0, "weight_decay": 0.01}
    edges: dict[int, list[dict[str, float]]] = {}
    for seed, m in enumerate((128, 64)):  # the edge is one of SAM whose m is the training set, too
        rule = {**SAM, "m": m}
        cfg = support.config(rule=rule, retrain={"inits": 1}, train=train, probe={"m": 64})
        searched.run("retrain", searched.members("retrain", cfg, (seed,), {"search": any_seed}, **axes))
        members = searched.members("probe", cfg, (seed,), {"retrain": same_seed}, **axes)
        searched.run("probe", members)
        edges[m] = read_history(members[0].out / "history.jsonl")
    decay = cfg["train"]["weight_decay"]
    assert edges[128] and edges[64] and all("full_batch_edge" not in row for row in edges[64])
    assert decay > 0 and all(
        row["full_batch_edge_ratio"] == pytest.approx((row["lambda_max"] + decay) / row["full_batch_edge"])
        for row in edges[128]
    )


def test_a_probe_at_a_training_loss_without_weights_is_refused() -> None:
    from projects.sam_batch_study.probe import levels

    assert levels({"levels": [0.5, 2]}) == [0.5, 2.0]
    with pytest.raises(BadInputError, match=r"probe\.levels.*not at \[1\.0\]"):
        levels({"levels": [2.0, 1.0]})


def test_the_spread_of_each_law() -> None:
    from projects.sam_batch_study.law import spread

    batches, rho = (64, 256, 1024), (0.1, 0.2, 0.4)
    tuned = [
        JobRef({"batch": b}, Path(), {"best_rho": r, "norm": 2.0}) for b, r in zip(batches, rho, strict=True)
    ]
    curved = [
        JobRef({"batch": b}, Path(), {"middle_lambda": 1.0 / r}) for b, r in zip(batches, rho, strict=True)
    ]

    def of(name: str) -> float:
        return spread(Member({}, {"sweep": tuned[::-1], "probe": curved}, Path(), {"law": name}))

    assert of("plain") == pytest.approx(math.log(2))
    assert of("scaled") == pytest.approx(0.0, abs=1e-12)
    # log rho + log(lambda/||g||) of the batch before: log .1 - log .4, log .2 - log .1, log .4 - log .2, less log 2
    mixed = np.array([math.log(0.1 / 0.4), math.log(0.2 / 0.1), math.log(0.4 / 0.2)])
    assert of("shuffled") == pytest.approx(mixed.std(ddof=1))


def test_a_stop_changes_no_bit(searched: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = support.config(rule=SAM, retrain={"inits": 2})
    real = Replicas.training_step

    def left(members: list[Member]) -> dict[str, bytes]:
        return {
            f"{member.axes['seed']}/{path.name}": path.read_bytes()
            for member in members
            for path in member.out.iterdir()
            if path.name in ("history.jsonl", "weights.pt")
        }

    def run(folder: str, *stops: int) -> tuple[dict[str, bytes], Any]:
        members = searched.members("retrain", cfg, (0, 1), {"search": any_seed}, folder, **AXES)
        for at in stops:

            def step(module: Replicas, batch: list[int], index: int, at: int = at) -> None:
                if at in batch:
                    stop._flag.reason = "a test"
                real(module, batch, index)

            monkeypatch.setattr(Replicas, "training_step", step)
            with pytest.raises(StoppedError):
                searched.run("retrain", members)
            stop.clear()
        monkeypatch.setattr(Replicas, "training_step", real)
        metrics = searched.run("retrain", members)
        return left(members), metrics

    whole, metrics = run("whole")
    again, metrics_again = run("stopped", 0, 9, 17)
    assert whole == again and len(whole) == 4 and metrics == metrics_again


def test_every_method_has_a_cost(stages: Stages) -> None:
    kinds = ({"kind": "sgd"}, {"kind": "sam"}, {"kind": "sam", "sub_parts": 4})
    members = [
        Member(
            support.config(rule=rule, cost={"rounds": 9}),
            {},
            stages.root,
            {"method": "", "batch": 128, "seed": 0},
        )
        for rule in kinds
    ]
    from projects.sam_batch_study import cost

    assert all(0 < one["step_ratio"] < 1000 for one in cost.run(members))
