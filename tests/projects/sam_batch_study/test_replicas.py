"""The training of a stack: alone or together, stopped or not, the same bits; torch's SGD step for step."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from common.errors import BadInputError
from projects.sam_batch_study import mlp
from projects.sam_batch_study.plan import Net, plan_of
from projects.sam_batch_study.replicas import Replicas
from projects.sam_batch_study.rules import Rule
from projects.sam_batch_study.task import Order, task
from tests.projects.sam_batch_study import support
from tests.projects.sam_batch_study.support import PLAN, replicas, run, small

RULES = [
    Rule("sgd", 32, 32, 32),
    Rule("sam", 32, 32, 32),
    Rule("sam", 64, 32, 32),
    Rule("sam", 128, 128, 32),
    Rule("random", 32, 32, 32),
    Rule("penalty", 128, 128, 128, 0.8),
]
NETS = [Net(0, 0, 0.1, 0.1), Net(0, 1, 0.1, 0.1), Net(0, 0, 0.2, 0.3), Net(1, 0, 0.1, 0.1)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.kind} {rule.batch} {rule.m} {rule.sub}")
def test_a_stack_has_the_bits_of_its_members_alone(rule: Rule) -> None:
    together = run(replicas(NETS, rule))
    for j, net in enumerate(NETS):
        alone = run(replicas([replace(net, owner=0)], rule, seeds=(net.owner,)))
        for name in ("rows", "velocity", "best_rows", "best_error", "stopped_at", "loss", "norm"):
            assert torch.equal(getattr(together, name)[j], getattr(alone, name)[0]), name
        assert together.outcomes()[j] == alone.outcomes()[0]


def test_so_at_the_size_of_the_laptop_study() -> None:
    """50 classes, layers of 128: sizes at which a product might be cut in another way."""
    images = support.IMAGES | {"classes": 50, "train": 512}
    tasks = [task(seed, images) for seed in (0, 1)]
    for rule in (Rule("sam", 64, 64, 64), Rule("sam", 512, 64, 64), Rule("sam", 512, 512, 128)):
        nets = [Net(0, 0, 0.1, 0.1), Net(0, 0, 0.1, 0.2), Net(1, 0, 0.1, 0.1)]
        plan = replace(PLAN, steps=6, looks=2)
        together = run(Replicas(rule, plan, tasks, (128, 128), nets))
        for j, net in enumerate(nets):
            alone = run(Replicas(rule, plan, [tasks[net.owner]], (128, 128), [replace(net, owner=0)]))
            assert torch.equal(together.rows[j], alone.rows[0])
            assert together.outcomes()[j] == alone.outcomes()[0]


def test_sgd_is_that_of_torch_with_its_scheduler() -> None:
    plan = replace(PLAN, decay=0.01)
    rule, net = Rule("sgd", 32, 32, 32), Net(0, 0, 0.1, 0.0)
    ours = run(replicas([net], rule, plan, seeds=(0,)))
    mine = small(0)
    model = mlp.module(mlp.initial(ours.widths, 0, 0), ours.widths)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=net.lr, momentum=plan.momentum, weight_decay=plan.decay
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.rate)
    order = Order(0, 0, len(mine.train.y), rule.batch)
    for k in range(plan.steps):
        chosen = order(k)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(mine.train.x[chosen]), mine.train.y[chosen]).backward()
        optimizer.step()
        scheduler.step()
    last = ours.weights(0)["last"]
    for name, value in model.state_dict().items():
        assert torch.allclose(last[name], value, atol=1e-5), name
    loss = nn.functional.cross_entropy(model(mine.train.x), mine.train.y).item()
    assert ours.outcomes()[0].train_loss == pytest.approx(loss, rel=1e-4)


def test_outcomes_are_measured_on_the_right_images() -> None:
    ours = run(replicas([Net(0, 0, 0.05, 0.0)], Rule("sgd", 32, 32, 32), seeds=(0,)))
    model = mlp.module(ours.rows[0], ours.widths)
    best = mlp.module(ours.best_rows[0], ours.widths)
    mine, outcome = small(0), ours.outcomes()[0]

    def error(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
        return float((net(x).argmax(1) != y).float().mean())

    assert outcome.test_error == error(model, mine.test.x, mine.test.y)
    assert outcome.validation_error == error(model, mine.validation.x, mine.validation.y)
    assert outcome.stopped_error == error(best, mine.test.x, mine.test.y)
    assert float(ours.best_error[0]) == error(best, mine.look.x, mine.look.y)
    assert outcome.updates == PLAN.steps


def test_a_net_stops_at_the_look_at_which_it_has_fitted() -> None:
    nets = [Net(0, 0, 0.05, 0.0), Net(0, 0, 1e-4, 0.0)]
    plan = replace(PLAN, steps=120, looks=60, fit=0.5)
    rule = Rule("sgd", 32, 32, 32)
    fast, slow = (both := run(replicas(nets, rule, plan, seeds=(0,)))).outcomes()
    assert fast.fitted and fast.updates < plan.steps and fast.updates % plan.every == 0
    assert fast.train_loss <= plan.fit
    assert not slow.fitted and slow.updates == plan.steps
    never = run(replicas(nets[:1], rule, replace(plan, fit=0.0), seeds=(0,)))
    assert never.outcomes()[0].updates == plan.steps and never.outcomes()[0].fitted
    assert not torch.equal(never.rows[0], both.rows[0])


def test_a_hopeless_net_stops_half_way_and_only_where_it_was_to_fit() -> None:
    plan = replace(PLAN, fit=0.01, hopeless=0.5)
    assert not plan.stops(3.0, 8) and plan.stops(3.0, 12) and not plan.stops(0.4, 12)
    assert plan.stops(0.4, 24) and plan.stops(math.nan, 4) and plan.stops(0.01, 4)
    assert not replace(plan, fit=0.0).stops(3.0, 12)
    slow = run(replicas([Net(0, 0, 1e-4, 0.0)], Rule("sgd", 32, 32, 32), plan, seeds=(0,))).outcomes()[0]
    assert slow.updates == 12 and not slow.fitted


def test_a_net_that_diverges_is_wrong_everywhere_and_harms_no_other() -> None:
    nets = [Net(0, 0, 1e6, 0.1), Net(0, 0, 0.1, 0.1)]
    rule = Rule("sam", 32, 32, 32)
    both = run(replicas(nets, rule, seeds=(0,)))
    bad, good = both.outcomes()
    assert not math.isfinite(bad.train_loss) or bad.train_loss > 10
    assert bad.test_error > 0.7
    assert good == run(replicas(nets[1:], rule, seeds=(0,))).outcomes()[0]


def test_weights_are_kept_where_the_loss_crossed_a_level() -> None:
    plan = replace(PLAN, steps=120, looks=60)
    ours = run(replicas([Net(0, 0, 0.05, 0.0)], Rule("sgd", 32, 32, 32), plan, seeds=(0,)))
    kept = ours.weights(0)
    steps = {name: int(step) for name, step in kept["steps"].items()}
    assert list(steps) == sorted(steps, key=steps.__getitem__) and "loss 0.5" in steps
    shorter = replicas([Net(0, 0, 0.05, 0.0)], Rule("sgd", 32, 32, 32), plan, seeds=(0,))
    for k in range(0, steps["loss 0.5"], shorter.chunk):
        shorter.training_step(list(range(k, k + shorter.chunk)), 0)
    there = mlp.module(shorter.rows[0], shorter.widths).state_dict()
    assert all(torch.equal(there[name], value) for name, value in kept["loss 0.5"].items())
    assert float(shorter.loss[0]) <= 0.5


def test_each_pass_takes_every_image_once_in_an_order_of_seed_and_initialisation() -> None:
    order, n = Order(3, 0, 128, 32), 128
    passes = [torch.cat([order(4 * epoch + k) for k in range(4)]) for epoch in range(2)]
    assert all(torch.equal(each.sort().values, torch.arange(n)) for each in passes)
    assert not torch.equal(*passes)
    assert torch.equal(Order(3, 0, 128, 32)(6), order(6))
    assert not torch.equal(Order(3, 1, 128, 32)(6), order(6))


def test_label_noise_is_in_the_training_part_alone() -> None:
    clean, noisy = small(0), small(0, 0.25)
    assert float((clean.train.y != noisy.train.y).float().mean()) == 0.25
    assert torch.equal(clean.train.x, noisy.train.x)
    assert torch.equal(clean.validation.y, noisy.validation.y) and torch.equal(clean.test.y, noisy.test.y)


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    plan = replace(PLAN, steps=100, looks=10, warmup=0.1)
    rates = [plan.rate(k) for k in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.01


def test_a_plan_counts_updates_or_passes() -> None:
    cfg = support.config(train={"steps": 40, "looks": 8})
    assert plan_of(cfg, 32).steps == 40
    by_passes = support.config(train={"passes": 6, "looks": 6})
    assert [plan_of(by_passes, batch).steps for batch in (32, 64, 128)] == [24, 12, 6]
    with pytest.raises(BadInputError, match=r"batch = 48 must divide images.train = 128"):
        plan_of(cfg, 48)
    with pytest.raises(BadInputError, match=r"train\.passes must be at least 1, or null, not 0"):
        plan_of(support.config(train={"passes": 0}), 32)


def test_the_chunk_divides_the_steps_between_looks() -> None:
    for steps, looks, batch in ((640, 40, 64), (640, 40, 2048), (24, 6, 32), (7, 7, 128)):
        module = replicas(
            [Net(0, 0, 0.1, 0.0)], Rule("sgd", 32, 32, 32), replace(PLAN, steps=steps, looks=looks), (0,)
        )
        module.rule = Rule("sgd", batch, batch, batch)
        assert module.plan.every % module.chunk == 0
        assert module.chunk == 1 or module.chunk * batch <= 16384
