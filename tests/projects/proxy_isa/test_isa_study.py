"""The study around the loss: tasks, folds, batches, one training, tuning, testing; on tiny letters."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import BadInputError, NonFiniteError
from common.files import read_json
from common.study.config import compose
from common.study.jobs import expand, load_study
from common.study.model import JobRef, Member
from common.tracking.record import Recorder, read_history
from common.training import stop
from common.training.seeds import stream
from projects.proxy_isa import figures, learn, losses, shown, training, tune
from projects.proxy_isa.batches import ImageBatches
from projects.proxy_isa.diagnostics import EDGES
from projects.proxy_isa.embedder import Halved, build
from projects.proxy_isa.images import InMemory
from projects.proxy_isa.learner import Learner, Plan, Seen, embed, scores
from projects.proxy_isa.loss import ProxyISA
from projects.proxy_isa.rivals import CrossBatch
from projects.proxy_isa.selection import gain
from projects.proxy_isa.task import Task, folds, task
from projects.proxy_isa.training import InertError

DATA = {"train": 12, "test": 6, "images": [8, 8], "look": "varied", "size": 16}
TUNED = {"lr": 3e-3, "proxy_lr": 3e-2, "alpha": 16.0, "delta": 0.1}


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """What a training leaves behind."""
    handlers = {number: signal.getsignal(number) for number in stop.SIGNALS}
    yield
    stop.clear()
    torch.use_deterministic_algorithms(False)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def config(**sections: Mapping[str, Any]) -> dict[str, Any]:
    cfg = compose("proxy_isa", "smoke")
    for name, section in ({"data": DATA} | sections).items():
        cfg[name] = cfg[name] | dict(section)
    return cfg


def drawn(seed: int = 0) -> Task:
    return task("cub_like", seed, DATA)


def one(
    cfg: Mapping[str, Any], out: Path, tuned: Mapping[str, float] = TUNED, **options: Any
) -> tuple[Any, Seen]:
    return training.train(cfg, tuned, folds(drawn().train, 2, 0)[0], 5, out, **options)


def test_letters_of_training_and_test_are_a_function_of_the_seed_and_differ() -> None:
    a, b, c = drawn(1), drawn(1), drawn(2)
    assert isinstance(a.train, InMemory) and isinstance(b.train, InMemory) and isinstance(c.train, InMemory)
    assert torch.equal(a.train.x, b.train.x) and not torch.equal(a.train.x, c.train.x)
    assert (a.train.classes, a.test.classes, len(a.train.y), len(a.test.y)) == (12, 6, 96, 48)
    assert a.train.shape == (1, 16, 16)


def test_folds_are_class_disjoint_and_hold_each_class_out_once() -> None:
    images = drawn().train
    parts = folds(images, 4, 7)
    assert [(fit.classes, held.classes) for fit, held in parts] == [(9, 3)] * 4
    counted = 0
    for fit, held in parts:
        for half in (fit, held):
            assert half.y.unique().tolist() == list(range(half.classes))
        rows = {tuple(x.flatten().tolist()) for x in fit.take(torch.arange(len(fit.y)))}
        assert not rows & {tuple(x.flatten().tolist()) for x in held.take(torch.arange(len(held.y)))}
        counted += len(held.y)
    assert counted == len(images.y)
    with pytest.raises(BadInputError, match="cannot be cut into 7 folds"):
        folds(images, 7, 0)


def test_numbers_of_classes_follow_the_order_given() -> None:
    images = InMemory(torch.arange(6.0).view(6, 1, 1, 1), torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    some = images.of(torch.tensor([2, 0]))
    assert some.y.tolist() == [1, 0, 1, 0] and some.x.flatten().tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize("per_class", [0, 4])
def test_batches_are_a_function_of_the_step(per_class: int) -> None:
    images = drawn().train

    def batches(start: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        data = ImageBatches(images, 16, 9, 3, per_class)
        data.start = start
        return list(data.train_dataloader())

    whole, late = batches(0), batches(5)
    assert len(whole) == 9 and len(late) == 4
    assert all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole[5:], late, strict=True)
    )
    for _, labels in whole:
        if per_class:
            assert labels.bincount().unique().tolist() in ([4], [0, 4])


def test_embeddings_have_length_one_and_maxima_are_added_on_demand() -> None:
    net = {"kind": "glyph_cnn", "channels": [8, 8], "dim": 5, "pool": "avg", "weights": None}
    images = drawn().test
    found = embed(build(net, images.shape), images)
    assert found.shape == (48, 5) and torch.allclose(found.norm(dim=1), torch.ones(48), atol=1e-6)
    average, both = (
        build(net | {"kind": "resnet18", "pool": pool}, (3, 32, 32)) for pool in ("avg", "avg+max")
    )
    both.load_state_dict(average.state_dict())
    x = torch.randn(2, 3, 64, 64)
    maps: Any = average.eval().features.backbone  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        expected = maps(x).mean((2, 3)) + maps(x).amax((2, 3))
        assert torch.allclose(both.eval().features(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "resnet5O"}, "resnet50"),
        ({"kind": "resnet18", "pool": "max"}, "avg"),
        ({"kind": "resnet18", "weights": "/nowhere/w.pt"}, "no file /nowhere/w.pt"),
        ({"channels": [8, 12]}, r"net\.channels = \[8, 12\]: 12 channels .* Give 1 to 8, or a multiple of 8"),
        ({"channels": [0]}, "0 channels"),
        ({"channels": [8] * 6}, r"data\.size: images of 32 x 32 .* 6 layers .* Give a multiple of 64"),
    ],
)
def test_a_backbone_that_cannot_be(options: dict[str, Any], message: str) -> None:
    net = {"kind": "glyph_cnn", "channels": [8], "dim": 4, "pool": "avg", "weights": None} | options
    with pytest.raises(BadInputError, match=message):
        build(net, (3, 32, 32))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "w.pt")
    net = {"kind": "resnet18", "dim": 4, "pool": "avg", "weights": str(tmp_path / "w.pt")}
    with pytest.raises(
        BadInputError, match=r"w\.pt belongs to another architecture than ResNet: lacks conv1\.weight"
    ):
        build(net, (3, 32, 32))


@pytest.mark.parametrize("size", [20, 36])
def test_an_image_side_that_cannot_be_halved_so_often_is_refused(tmp_path: Path, size: int) -> None:
    """Letters of any even side can be drawn; the network needs more."""
    cfg = config(net={"channels": [8, 8, 8]})
    images = task("cub_like", 0, DATA | {"size": size}).train
    with pytest.raises(BadInputError, match=rf"{size} x {size} pixels.* 3 layers.*Give a multiple of 8"):
        training.train(cfg, TUNED, folds(images, 2, 0)[0], 5, tmp_path)
    assert build(cfg["net"], (1, 24, 24)).head.in_features == 8 * 3 * 3


def test_without_weights_the_loss_is_proxy_anchor() -> None:
    """Also late in a training, where the state would give every pair another weight than 1."""
    torch.manual_seed(0)
    x, y = nn.functional.normalize(torch.randn(16, 8), dim=1), torch.arange(16) % 6
    theirs = losses.build(config(loss={"name": "proxy_anchor"}), TUNED, 6, 8.0, 10, 3)

    def ours(weighting: str) -> float:
        loss = losses.build(config(rule={"weighting": weighting}), TUNED, 6, 8.0, 10, 3)
        assert isinstance(loss, ProxyISA)
        loss.step.fill_(loss.rule.filter)
        loss.counted.fill_(100)
        theirs.loss.proxies.data.copy_(loss.proxies.data)  # pyright: ignore
        return loss(x, y).item()

    found = {weighting: ours(weighting) for weighting in ("none", "positives", "negatives", "both")}
    expected = theirs(x, y).item()
    assert found.pop("none") == pytest.approx(expected, rel=1e-5)
    assert all(abs(value - expected) > 0.01 * expected for value in found.values())


def test_shares_of_the_training_become_steps_and_the_volume_images_a_class() -> None:
    rule = losses.rule(config(rule={"start": 0.1}), {"alpha": 8.0}, classes=10, per_class=8.0, steps=50)
    assert (rule.start, rule.filter, rule.volume, rule.alpha) == (5, 5 + 5, 8.0, 8.0)
    assert losses.rule(config(rule={"volume": 100.0}), {}, 10, 8.0, 50).volume == 100.0
    assert rule.capacity == round(55_000 / 586_400 * 50 * 16)
    assert losses.rule(config(rule={"capacity": 7}), {}, 10, 8.0, 50).capacity == 7


def test_a_rival_remembers_a_share_of_the_images() -> None:
    cfg = config(loss={"name": "proxy_anchor", "memory": 0.5, "memory_start": 0.1})
    loss = losses.build(cfg, TUNED, classes=6, per_class=8.0, steps=50, seed=3)
    assert isinstance(loss, CrossBatch) and (len(loss.ring.labels), loss.start) == (24, 5)


@pytest.mark.parametrize(("name", "published"), [("soft_triple", 10), ("proxy_gml", 12), ("proxy_anchor", 1)])
def test_proxies_of_a_class(name: str, published: int) -> None:
    for wanted in (None, 3):
        loss = losses.build(config(loss={"name": name, "proxies": wanted}), {}, 6, 8.0, 50, 3)
        (proxies,) = loss.parameters()
        each = published if wanted is None or published == 1 else wanted
        assert sorted(proxies.shape) == sorted((6 * each, 8))


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["proxy_isa", "multi_similarity"])
def test_a_crash_changes_no_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(loss={"name": name}, train={"per_class": 4 if name != "proxy_isa" else 0})
    tuned = TUNED if name == "proxy_isa" else {"lr": 3e-3, "proxy_lr": 1.0, "alpha": 2.0}
    whole, seen = one(cfg, tmp_path / "whole", tuned)
    real_fit, real_step, crashes = training.fit, Learner.training_step, [3, 7]

    def step(module: Learner, batch: Any, index: int) -> torch.Tensor:
        if crashes and index == crashes[0]:
            raise RuntimeError(f"broken at {crashes.pop(0)}")
        return real_step(module, batch, index)

    monkeypatch.setattr(training, "fit", lambda *a, **o: real_fit(*a, **o, checkpoint_steps=2))
    monkeypatch.setattr(Learner, "training_step", step)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            one(cfg, tmp_path / "broken", tuned)
    again, seen_again = one(cfg, tmp_path / "broken", tuned)
    assert same(whole.state_dict(), again.state_dict())
    assert seen.held == seen_again.held and not crashes


def test_the_weights_of_the_best_look_come_back_and_watching_the_test_changes_nothing(tmp_path: Path) -> None:
    cfg = config()
    with Recorder(tmp_path) as record:
        embedder, seen = one(cfg, tmp_path / "a", record=record)
    watching, watched = one(cfg, tmp_path / "b", test=drawn())
    assert same(embedder.state_dict(), watching.state_dict()) and seen.held == watched.held
    assert len(watched.test) == len(watched.held) == 4
    _, held = folds(drawn().train, 2, 0)[0]
    found = scores([embedder], Task(0, held, held)).means()
    assert found["map_at_r"] == pytest.approx(max(seen.held))
    rows = read_history(tmp_path / "history.jsonl")
    assert [row["map_at_r"] for row in rows] == seen.held
    assert all(0 < row["class_weight_min"] <= 1 for row in rows)


def test_a_weighting_that_never_came_to_bear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="half of the method was inert"):
        one(config(rule={"volume": 1e6, "must_weigh": True}), tmp_path)


def test_a_training_without_hard_pairs_is_refused_where_they_are_the_point(tmp_path: Path) -> None:
    with pytest.raises(InertError, match=r"0.0% of the positive pairs were hard, not 5.0%.*rule.width"):
        one(config(rule={"least_hard": 0.05}), tmp_path / "released")
    narrow = {"hardness": 1.0, "k": 0.0, "lam": 0.0, "width": 0.05, "least_hard": 0.05}
    _, seen = one(config(rule=narrow), tmp_path / "narrow")
    assert seen.hard_share() >= 0.05 and len(seen.hard) == 3  # the first look was before the filter opened


@pytest.mark.parametrize("name", ["proxy_isa", "proxy_anchor", "multi_similarity"])
def test_a_network_that_diverges_is_not_bad_input(name: str, tmp_path: Path) -> None:
    tuned = TUNED | {"lr": 1e38} if name != "multi_similarity" else {"lr": 1e38, "proxy_lr": 1.0}
    with pytest.raises(NonFiniteError):
        one(config(loss={"name": name}, train={"clip": 1e38}), tmp_path, tuned)


@pytest.mark.parametrize("broken", [NonFiniteError("diverged"), InertError("idle")])
def test_a_trial_that_broke_counts_as_failed(
    broken: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = tune.train, [0]

    def train(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise broken
        return real(*args, **options)

    monkeypatch.setattr(tune, "train", train)
    assert tuning(tmp_path, 2)["value"] > 0
    assert calls[0] == 1 + 2  # the first trial ended at its first fold


def test_rates_fall_as_configured() -> None:
    def rates(**options: Any) -> list[float]:
        plan = Plan(40, 10, 1.0, 1.0, 0.0, 1.0, **options)
        return [plan.rate(step) for step in (0, 10, 20, 30, 40)]

    assert rates(decay="cosine") == pytest.approx([1, 0.5 + 8**-0.5, 0.5, 0.5 - 8**-0.5, 0])
    assert rates(decay="step", decay_every=20, gamma=0.25) == [1, 1, 0.25, 0.25, 0.0625]
    assert rates() == [1] * 5
    with pytest.raises(BadInputError, match="cosine"):
        rates(decay="cosinus")


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_features_wait_while_head_and_proxies_warm_up(tmp_path: Path, optimizer: str) -> None:
    cfg = config(train={"epochs": 1, "looks": 1, "warmup": 1, "optimizer": optimizer, "decay": "none"})
    embedder, _ = one(cfg, tmp_path / "waits")
    torch.manual_seed(stream(5, "weights"))
    fresh = build(cfg["net"], (1, 16, 16))
    assert all(
        torch.equal(a, b)
        for a, b in zip(embedder.features.parameters(), fresh.features.parameters(), strict=True)
    )
    assert not torch.equal(embedder.head.weight, fresh.head.weight)
    cfg["train"]["warmup"] = 0
    other, _ = one(cfg, tmp_path / "learns")
    assert not torch.equal(next(other.features.parameters()), next(fresh.features.parameters()))


def test_adamw_decays_apart_from_the_gradient_and_another_name_is_refused(tmp_path: Path) -> None:
    found = [
        one(config(train={"epochs": 1, "looks": 1, "weight_decay": 0.1, "optimizer": name}), tmp_path / name)[
            0
        ]
        for name in ("adam", "adamw")
    ]
    assert not torch.equal(found[0].head.weight, found[1].head.weight)
    with pytest.raises(BadInputError, match=r"train\.optimizer"):
        one(config(train={"optimizer": "sgd"}), tmp_path / "sgd")


def test_the_largest_of_four_places_is_that_of_torch() -> None:
    x = torch.randn(3, 5, 8, 6, requires_grad=True)
    weight = torch.randn(3, 5, 4, 3)
    ours, theirs = Halved()(x), nn.functional.max_pool2d(x, 2)
    assert torch.equal(ours, theirs)
    found, expected = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, theirs))
    assert torch.equal(found, expected)
    even = torch.ones(1, 1, 2, 2, requires_grad=True)
    Halved()(even).backward(torch.full((1, 1, 1, 1), 3.0))
    assert even.grad is not None and float(even.grad.sum()) == 3  # a tie has its gradient once


def tuning(out: Path, trials: int) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    cfg = config(tune={"trials": trials}) | {"axes": {"data": "cub_like", "loss": "proxy_isa", "seed": 900}}
    tune.run(cfg, {}, out)
    return read_json(out / tune.BEST)


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = tuning(tmp_path / "whole", 4)
    tuning(tmp_path / "parts", 2)
    assert tuning(tmp_path / "parts", 4) == whole
    assert set(whole["params"]) == {"lr", "proxy_lr", "alpha", "delta"}


def test_a_loss_without_ranges_is_refused_before_the_search(tmp_path: Path) -> None:
    cfg = config(loss={"name": "proxy_anker"}) | {"axes": {"data": "cub_like", "loss": "x", "seed": 900}}
    with pytest.raises(
        BadInputError, match=r"unknown loss\.name 'proxy_anker'\. Did you mean 'proxy_anchor'"
    ):
        tune.run(cfg, {}, tmp_path)


def test_every_loss_has_the_same_number_of_trials() -> None:
    jobs = expand(load_study("proxy_isa"), compose("proxy_isa", "laptop"))
    tuned = [job for job in jobs if job.stage.name == "tune"]
    assert len({job.config["tune"]["trials"] for job in tuned}) == 1
    names = {str(job.config["loss"]["name"]) for job in tuned}
    assert names == {
        "proxy_isa",
        "proxy_anchor",
        "proxy_nca_pp",
        "soft_triple",
        "proxy_gml",
        "multi_similarity",
        "triplet",
    }
    for job in tuned:
        assert job.axes["seed"] == 900


def learned(tmp_path: Path, rule: Mapping[str, Any] = {}, **train: Any) -> tuple[Member, dict[str, float]]:
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / tune.BEST).write_text(json.dumps({"params": TUNED}))
    cfg = config(train=train, rule=rule)
    member = Member(
        cfg,
        {"tune": [JobRef({}, tmp_path / "tune", {})]},
        tmp_path,
        {"data": "cub_like", "loss": "proxy_isa", "seed": 3},
    )
    return member, dict(learn.run([member])[0])


def test_testing_concatenates_the_models_of_the_folds(tmp_path: Path) -> None:
    member, found = learned(tmp_path, watch_test=True)
    test = drawn(3).test
    assert 0 < found["map_at_r"] <= found["r_precision"] <= 1 and found["recall_at_1"] <= 1
    assert found["selected_by_test"] >= max(found["selected_by_held"], found["last"], found["unselected"])
    assert found["selected_by_held"] == pytest.approx(found["separated_map_at_r"])
    job = JobRef({"seed": 3}, member.out, found)
    shown_ = [
        shown.part(Member({}, {"learn": [job]}, tmp_path, {"part": name})) for name in ("best_0", "class_5")
    ]
    nearest = [int(shown_[0][f"place_{place}"]) for place in range(6)]
    assert len(set(nearest)) == 6 and max(nearest) < len(test.y) and shown_[0]["of_seed"] == 3
    assert shown_[1]["image_7"] < len(test.y) and 0 < shown_[1]["explained"] <= 1
    last = shown.part(Member({}, {"learn": [job]}, tmp_path, {"part": "weights_end"}))
    half = shown.part(Member({}, {"learn": [job]}, tmp_path, {"part": "weights_half"}))
    assert half["step"] <= last["step"] / 2 and last["step"] == max(
        json.loads(line)["step"] for line in (member.out / "history.jsonl").read_text().splitlines()
    )
    for sign in ("positive", "negative"):
        assert sum(last[f"{sign}_weight_{edge:g}"] for edge in EDGES[:-1]) == pytest.approx(1.0)
    rows = [
        {"stage": "shown", "data": "cub_like", "loss": "proxy_isa", "part": part, **found_}
        for part, found_ in (("weights_half", half), ("weights_end", last))
    ]
    panels = figures.pair_weights(rows, "smoke").axes
    assert [axes.get_title() for axes in panels] == [
        "share of the positive pairs",
        "share of the negative pairs",
    ]
    assert {len(axes.patches) for axes in panels} == {2 * (len(EDGES) - 1)}
    for rule, name in (("by_test", "selected_by_test"), ("unselected", "unselected")):
        one_ = Member({}, {"learn": [job]}, tmp_path, {"chosen": rule})
        assert gain(one_) == {"gain": found[name] - found["selected_by_held"]}


def test_a_seed_whose_rule_was_inert_has_no_scores_and_nothing_that_reads_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    member, found = learned(tmp_path, {"volume": 1e6, "must_weigh": True}, watch_test=True)
    assert found == {"inert": 1.0}
    assert "seed 3, fold 0: the smallest class weight is 1.00 at half" in capsys.readouterr().out
    job = JobRef({"seed": 3}, member.out, found)
    assert gain(Member({}, {"learn": [job]}, tmp_path, {"chosen": "by_test"})) == {}
    assert shown.part(Member({}, {"learn": [job]}, tmp_path, {"part": "best_0"})) == {"of_seed": 3.0}


def test_how_the_look_was_chosen() -> None:
    a = Seen({}, held=[0.1, 0.3, 0.3], test=[0.5, 0.2, 0.4])
    b = Seen({}, held=[0.4, 0.2, 0.1], test=[0.3, 0.6, 0.0])
    found = learn.watched([a, b])
    assert found == {
        "selected_by_test": pytest.approx(0.55), "selected_by_held": pytest.approx(0.35),
        "last": pytest.approx(0.2), "unselected": pytest.approx(np.mean([1.1 / 3, 0.3])),
    }  # fmt: skip
    assert learn.watched([a, Seen({})]) == {}


def test_a_gallery_is_searched_in_place_of_the_other_test_images() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x.flatten(1)

    def images(*rows: tuple[float, float], labels: list[int]) -> InMemory:
        return InMemory(torch.tensor(rows).view(-1, 2, 1, 1), torch.tensor(labels), 2)

    query = images((1.0, 0.0), (0.0, 1.0), labels=[0, 1])
    gallery = images((1.0, 0.1), (0.1, 1.0), (-1.0, 0.0), labels=[0, 1, 1])
    found = scores([Same()], Task(0, query, query, gallery)).means()
    assert found["recall_at_1"] == 1.0 and found["map_at_r"] == pytest.approx((1.0 + 0.5) / 2)


def test_what_a_claim_cannot_show_is_said_of_the_scales_that_it_has() -> None:
    for claim in load_study("proxy_isa").claims:
        assert ("letters" in claim.limits) == ("laptop" in claim.scales), claim.id
        assert ("At paper scale" in claim.limits) == ("paper" in claim.scales), claim.id
        assert claim.limits.startswith("Small letters") == ("paper" not in claim.scales), claim.id


def test_proxy_isa_is_what_the_config_builds() -> None:
    assert isinstance(losses.build(config(), TUNED, 6, 8.0, 10, 3), ProxyISA)
    with pytest.raises(BadInputError, match="proxy_anchor"):
        losses.build(config(loss={"name": "proxy_anker"}), TUNED, 6, 8.0, 10, 3)
