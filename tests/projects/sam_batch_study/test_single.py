"""Nets trained one after another: the stack's numbers, the same bits after a crash, and what stops them."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import BadInputError
from common.optim.module import SharpnessModule
from common.optim.rules import SAM, Base, GradientNormPenalty, RandomDirection
from common.study.model import Member
from common.training import stop
from common.training.data import StepSampler
from common.training.fit import fit
from projects.sam_batch_study import mlp, single
from projects.sam_batch_study.models import build
from projects.sam_batch_study.plan import Net, Plan
from projects.sam_batch_study.replicas import Replicas
from projects.sam_batch_study.rules import Rule
from projects.sam_batch_study.single import Setting, Single, settings_of, train_singly
from projects.sam_batch_study.sources import Batches, splits
from projects.sam_batch_study.task import task
from tests.projects.sam_batch_study.support import config

IMAGES = {
    "source": "glyphs", "classes": 4, "size": 16, "train": 64, "validation": 32, "look": 16, "test": 32,
    "label_noise": 0.0, "augment": False,
}  # fmt: skip
PLAN = Plan(steps=12, looks=6, warmup=0.2, momentum=0.9, decay=0.01, fit=0.0)
HIDDEN, SEED = (16, 12), 3
RESNET = {"kind": "gn_resnet", "width": 4, "blocks": [1, 1], "chunk": None}


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    """What a training leaves behind in this process is put back."""
    handlers = {number: signal.getsignal(number) for number in stop.SIGNALS}
    yield
    stop.clear()
    torch.use_deterministic_algorithms(False)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def setting(rule: Rule, plan: Plan = PLAN, chunk: int | None = None) -> Setting:
    return Setting(SEED, rule, plan, splits(SEED, IMAGES), IMAGES["look"], chunk, 0)


def trained(out: Path, model: nn.Module, net: Net, one: Setting, augment: bool = False) -> Single:
    module = Single(model, net, one, keep=True)
    fit(module, Batches(one.data.train, one.rule.batch, one.plan.steps, SEED, augment), out, guard_every=0)
    return module


def perceptron(net: Net) -> nn.Module:
    """The stack's initial weights in the module of the config."""
    widths = (256, *HIDDEN, 4)
    model = build({"kind": "mlp", "hidden": HIDDEN}, (1, 16, 16), 4)
    model.load_state_dict(mlp.module(mlp.initial(widths, SEED, net.init), widths).state_dict())
    return model


def stacked(net: Net, rule: Rule, plan: Plan) -> Replicas:
    """The same net by the other engine, on the same batches."""
    module = Replicas(rule, plan, [task(SEED, IMAGES)], HIDDEN, [net])
    keys = list(StepSampler(64, rule.batch, plan.steps, SEED))
    order: Any = lambda step: torch.tensor([index for _, index in keys[step]])  # noqa: E731
    for key in module.orders:
        module.orders[key] = order
    for k in range(0, plan.steps, module.chunk):
        module.training_step(list(range(k, k + module.chunk)), 0)
    return module


RULES = [
    (Rule("sgd", 16, 16, 16), None),
    (Rule("sgd", 64, 64, 64), 16),
    (Rule("sam", 32, 32, 32), None),
    (Rule("sam", 32, 8, 8), None),
    (Rule("sam", 64, 64, 16), 8),
    (Rule("penalty", 32, 16, 16, 0.7), 512),
]


@pytest.mark.parametrize(("rule", "chunk"), RULES, ids=str)
def test_a_perceptron_is_that_of_the_stack(tmp_path: Path, rule: Rule, chunk: int | None) -> None:
    """Weights at each look's crossing and at the end, curves' numbers, norms: to float32's tolerance."""
    net = Net(0, 1, 0.1, 0.2)
    ours = trained(tmp_path, perceptron(net), net, setting(rule, chunk=chunk))
    theirs = stacked(net, rule, PLAN)
    (expected,) = theirs.outcomes()
    found = ours.outcome()
    assert (found.updates, found.fitted) == (expected.updates, expected.fitted) == (PLAN.steps, True)
    assert asdict(found) == pytest.approx(asdict(expected), rel=1e-3)
    mine, other = ours.weights(), theirs.weights(0)
    assert mine.keys() == other.keys() and len(mine) > 2
    for name, state in other.items():
        for key, value in state.items():
            assert torch.allclose(mine[name][key].float(), value.float(), atol=1e-5), (name, key)


def test_a_perceptron_stops_where_that_of_the_stack_does(tmp_path: Path) -> None:
    rule, plan, net = (
        Rule("sam", 16, 16, 16),
        replace(PLAN, steps=40, looks=20, fit=0.8),
        Net(0, 0, 0.1, 0.05),
    )
    ours = trained(tmp_path, perceptron(net), net, setting(rule, plan))
    (expected,) = stacked(net, rule, plan).outcomes()
    assert ours.outcome().updates == expected.updates < plan.steps
    assert asdict(ours.outcome()) == pytest.approx(asdict(expected), rel=1e-3)
    assert ours.outcome().train_loss <= 0.8


def test_the_control_is_the_same_whenever_it_runs_and_another_for_each_initialisation(tmp_path: Path) -> None:
    net, one = Net(0, 0, 0.1, 0.5), setting(Rule("random", 32, 32, 32))
    first, again = (trained(tmp_path / name, perceptron(net), net, one) for name in "ab")
    assert first.outcome() == again.outcome()
    other = trained(
        tmp_path / "c", perceptron(net), replace(net, init=1), one
    )  # the same weights and batches
    assert first.outcome() != other.outcome()
    assert math.isfinite(first.outcome().norm) and first.outcome().norm > 0


def test_rules_in_terms_of_the_library() -> None:
    net = Net(0, 2, 0.1, 0.4)
    assert settings_of(Rule("sgd", 64, 64, 64), net, 0, 16).rule == Base()
    assert settings_of(Rule("sgd", 64, 64, 64), net, 0, 16).chunk == 16
    sam = settings_of(Rule("sam", 64, 32, 8), net, 0, 16)
    assert (sam.rule, sam.m, sam.sub, sam.rho, sam.chunk) == (SAM(), 32, 8, 0.4, 8)
    assert settings_of(Rule("sam", 64, 32, 8), net, 0, 32).chunk is None
    penalty = settings_of(Rule("penalty", 64, 64, 64, 0.5), net, 0, None)
    assert isinstance(penalty.rule, GradientNormPenalty) and penalty.rule.strength == pytest.approx(0.2)
    control = settings_of(Rule("random", 64, 16, 16), net, 0, None)
    assert isinstance(control.rule, RandomDirection) and control.m == 64
    assert control.rule != settings_of(Rule("random", 64, 16, 16), replace(net, init=0), 0, None).rule
    with pytest.raises(BadInputError, match="chunk = 24 must divide"):
        settings_of(Rule("sam", 64, 64, 64), net, 0, 24)
    with pytest.raises(BadInputError, match="leave sub out"):
        settings_of(Rule("penalty", 64, 64, 16, 0.5), net, 0, None)
    with pytest.raises(BadInputError, match="rho > 0"):
        settings_of(Rule("sam", 64, 64, 64), replace(net, rho=0.0), 0, None)


def member(out: Path, seed: int = SEED, batch: int = 32, **sections: Any) -> Member:
    out.mkdir(parents=True, exist_ok=True)
    given = {"images": IMAGES, "net": RESNET, "rule": {"kind": "sam"}, **sections}
    train_options = {"steps": 8, "looks": 4, "fit": 0.0} | given.pop("train", {})
    return Member(config(**given, train=train_options), {}, out, {"seed": seed, "batch": batch})


def break_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Checkpoints after every second step; a crash in these steps, each once."""
    left, real_fit, real_step = list(steps), single.fit, SharpnessModule.training_step

    def step(self: SharpnessModule, batch: Any, batch_idx: int) -> None:
        if left and batch_idx == left[0]:
            raise RuntimeError(f"broken at {left.pop(0)}")
        real_step(self, batch, batch_idx)

    monkeypatch.setattr(
        single, "fit", lambda *args, **options: real_fit(*args, **options, checkpoint_steps=2)
    )
    monkeypatch.setattr(SharpnessModule, "training_step", step)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, state in one.items():
        assert all(torch.equal(value, other[name][key]) for key, value in state.items()), name


def test_a_crash_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nets of a GroupNorm ResNet on augmented images; crashes in both, between checkpoints."""
    nets = [Net(0, 0, 0.05, 0.1), Net(0, 1, 0.05, 0.1)]
    images = IMAGES | {"augment": True}
    whole = member(tmp_path / "whole", images=images)
    (expected,) = train_singly([whole], [nets])
    broken = member(tmp_path / "broken", images=images)
    with monkeypatch.context() as patch:
        break_at(patch, 3, 7, 5)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="broken at"):
                train_singly([broken], [nets])
        (found,) = train_singly([broken], [nets])
    assert list(found.outcomes) == list(expected.outcomes)
    assert found.outcomes[0] != found.outcomes[1]
    assert_same(dict(found.weights), dict(expected.weights))
    history = (whole.out / "history.jsonl").read_bytes()
    assert history == (broken.out / "history.jsonl").read_bytes()
    assert history.count(b"validation_error") == 4


def forbidden(self: SharpnessModule, batch: Any, batch_idx: int) -> None:
    raise AssertionError("a net that has ended was trained again")


@pytest.mark.parametrize("fit_loss", [0.0, 100.0])
def test_a_net_that_has_ended_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit_loss: float
) -> None:
    one = member(tmp_path, train={"fit": fit_loss})
    (before,) = train_singly([one], [[Net(0, 0, 0.05, 0.1)]])
    history = (one.out / "history.jsonl").read_bytes()
    monkeypatch.setattr(SharpnessModule, "training_step", forbidden)
    for _ in range(2):
        (after,) = train_singly([one], [[Net(0, 0, 0.05, 0.1)]])
        assert list(after.outcomes) == list(before.outcomes)
        assert_same(dict(after.weights), dict(before.weights))
        assert (one.out / "history.jsonl").read_bytes() == history
    assert before.outcomes[0].updates == (2 if fit_loss else 8)


def test_a_crash_after_the_stop_leaves_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of the step in which it stopped is the newest: the training is resumed within its steps."""
    one = member(tmp_path, train={"fit": 100.0})
    (before,) = train_singly([one], [[Net(0, 0, 0.05, 0.1)]])
    again = member(tmp_path / "again", train={"fit": 100.0})
    real = single.fit

    def late(*args: Any, **options: Any) -> None:
        module: Single = args[0]
        monkeypatch.setattr(module, "on_train_end", crash)
        real(*args, **options, checkpoint_steps=1)

    def crash() -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(single, "fit", late)
        with pytest.raises(RuntimeError, match="broken"):
            train_singly([again], [[Net(0, 0, 0.05, 0.1)]])
    (path,) = (again.out / "net-0" / "checkpoints").glob("step-*8.ckpt")
    path.unlink()  # the last one, written before the crash
    (after,) = train_singly([again], [[Net(0, 0, 0.05, 0.1)]])
    assert list(after.outcomes) == list(before.outcomes)
    assert_same(dict(after.weights), dict(before.weights))


def test_methods_start_from_the_same_weights_and_see_the_same_batches(tmp_path: Path) -> None:
    """SGD, and SAM with a strength of nearly nothing: so no net starts on a kink either."""
    net = Net(0, 0, 0.05, 1e-8)
    (sgd,) = train_singly([member(tmp_path / "sgd", rule={"kind": "sgd"})], [[net]])
    (sam,) = train_singly([member(tmp_path / "sam")], [[net]])
    for key, value in sgd.weights["last"].items():
        assert torch.allclose(value, sam.weights["last"][key], atol=1e-6), key


def test_parts_have_folders_of_their_own_and_no_curve(tmp_path: Path) -> None:
    members = [member(tmp_path / str(seed), seed, train={"steps": 2, "looks": 1}) for seed in (0, 1)]
    found = train_singly(members, [[Net(0, 0, 0.05, 0.1)], [Net(1, 0, 0.05, 0.1)]], "extension")
    assert [len(one.outcomes) for one in found] == [1, 1]
    assert found[0].outcomes != found[1].outcomes
    for one in members:
        assert (one.out / "extension" / "net-0" / "checkpoints").is_dir()
        assert not (one.out / "history.jsonl").exists()


@pytest.mark.parametrize("kind", ["sgd", "sam", "random"])
def test_divergence_is_an_outcome(tmp_path: Path, kind: str) -> None:
    one = member(tmp_path, rule={"kind": kind}, train={"fit": 0.01})
    (found,) = train_singly([one], [[Net(0, 0, 1e38, 0.1), Net(0, 0, 0.05, 0.1)]])
    bad, good = found.outcomes
    assert (bad.train_loss, bad.fitted, bad.validation_error, bad.test_error) == (math.inf, False, 1.0, 1.0)
    assert 0 < bad.updates < 8 and math.isfinite(good.train_loss)
    assert all(bool(value.isfinite().all()) for value in found.weights["last"].values())


def test_running_statistics_are_those_of_the_first_pass(tmp_path: Path) -> None:
    """At a learning rate of nothing they are SGD's; two cells a step are two updates of them."""

    def final(kind: Any, m: int) -> nn.BatchNorm1d:
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(8)
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), norm, nn.ReLU(), nn.Linear(8, 4))
        trained(tmp_path / f"{kind} {m}", model, Net(0, 0, 1e-30, 0.5), setting(Rule(kind, 32, m, m)))
        return norm

    sgd, sam, small = final("sgd", 32), final("sam", 32), final("sam", 16)
    assert sgd.running_mean is not None and sam.running_mean is not None and sam.running_var is not None
    assert torch.equal(sgd.running_mean, sam.running_mean)
    assert sgd.running_var is not None and torch.equal(sgd.running_var, sam.running_var)
    assert (int(sam.num_batches_tracked), int(small.num_batches_tracked)) == (12, 24)  # pyright: ignore[reportArgumentType]


class Spy(nn.Sequential):
    """Keeps what it is given while it is trained."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.seen: list[Tensor] = []

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self.seen.append(input.clone())
        return super().forward(input)


def test_both_passes_see_the_same_augmented_images(tmp_path: Path) -> None:
    def seen(augment: bool) -> list[Tensor]:
        model = Spy(nn.Flatten(), nn.Linear(256, 4))
        net, one = Net(0, 0, 0.05, 0.1), setting(Rule("sam", 32, 32, 32))
        trained(tmp_path / str(augment), model, net, one, augment)
        return model.seen

    plain, moved = seen(False), seen(True)
    assert len(plain) == len(moved) == 2 * PLAN.steps
    for step in range(PLAN.steps):
        assert torch.equal(moved[2 * step], moved[2 * step + 1])
        assert not torch.equal(moved[2 * step], plain[2 * step])


def test_config_of_other_sizes_is_refused(tmp_path: Path) -> None:
    call: Callable[[], Any] = lambda: train_singly(  # noqa: E731
        [member(tmp_path, batch=48)], [[Net(0, 0, 0.05, 0.1)]]
    )
    with pytest.raises(BadInputError, match="must divide"):
        call()
