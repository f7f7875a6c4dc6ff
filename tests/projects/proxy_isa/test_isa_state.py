"""The state of the loss: conversions, checkpoints, processes; its controls, diagnostics, and what it refuses."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from common.errors import BadInputError, NonFiniteError
from projects.proxy_isa.diagnostics import EDGES, diagnose
from projects.proxy_isa.loss import ProxyISA
from projects.proxy_isa.weights import Rule
from tests.projects.proxy_isa.literal import SMALL, C, D, batch, both, make


def test_half_conversions_leave_proxies_and_state_precise() -> None:
    loss = make(dtype=torch.float32)
    for step in range(10):
        loss(*(part.float() if part.is_floating_point() else part for part in batch(step)))
    before = copy.deepcopy(loss.state_dict())
    loss.half().bfloat16().to(torch.float16)
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())
    assert loss.double().proxies.dtype == loss.level.dtype == torch.float64


@pytest.mark.parametrize("control", ["none", "permuted"])
def test_a_checkpoint_resumes_to_the_bit(control: Any) -> None:
    """In the middle of a ring that has wrapped."""
    rule = Rule(**(vars(SMALL) | {"control": control}))
    straight = make(rule, dtype=torch.float32)
    resumed = make(rule, dtype=torch.float32)
    for step in range(40):
        x, y = batch(step)
        if step == 17:
            file = io.BytesIO()
            torch.save(straight.state_dict(), file)
            file.seek(0)
            resumed.load_state_dict(torch.load(file, weights_only=True))
        ours = both(straight, straight.proxies, x.float(), y)
        if step >= 17:
            theirs = both(resumed, resumed.proxies, x.float(), y)
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in straight.state_dict().items())


@pytest.mark.parametrize("control", ["permuted", "mean"])
def test_controls_keep_what_they_say(control: Any) -> None:
    loss = make(Rule(**(vars(SMALL) | {"control": control})))
    plain = make()
    for step in range(20):
        loss(*batch(step))
        plain(*batch(step))
    plain.load_state_dict(loss.state_dict())
    x, y = batch(50, size=40)
    ours, kept = loss.pairs(x, y), plain.pairs(x, y)
    assert torch.equal(loss.pairs(x, y).negative_weights, ours.negative_weights)
    for c in range(C):
        mine = (ours.positive_weights[y == c], ours.negative_weights[y != c, c])
        original = (kept.positive_weights[y == c], kept.negative_weights[y != c, c])
        if control == "permuted":
            assert all(
                torch.equal(a.sort().values, b.sort().values) for a, b in zip(mine, original, strict=True)
            )
    assert not torch.equal(ours.negative_weights, kept.negative_weights)
    if control == "mean":
        assert torch.allclose(ours.positive_weights, kept.positive_weights.mean())
        negative = torch.ones(40, C, dtype=torch.bool).scatter_(1, y[:, None], False)
        assert torch.allclose(ours.negative_weights[negative], kept.negative_weights[negative].mean())
    else:
        loss.step += 1
        assert not torch.equal(loss.pairs(x, y).negative_weights, ours.negative_weights)


def test_diagnostics_are_those_of_the_pairs() -> None:
    loss = make()
    for step in range(20):
        loss(*batch(step))
    x, y = batch(77, size=50)
    found, pairs = diagnose(loss, x, y), loss.pairs(x, y)
    assert all(type(value) is float for value in found.values())
    for sign in ("positive", "negative"):
        assert math.isclose(
            sum(found[f"{sign}_{r}"] for r in ("easy", "informative", "hard")), 1, abs_tol=1e-6
        )
        assert math.isclose(sum(found[f"{sign}_weight_{edge:g}"] for edge in EDGES[:-1]), 1, abs_tol=1e-6)
    easy = sum(
        float(pairs.negative[i, c]) < float(pairs.schedule.threshold[c])
        for i in range(50) for c in range(C) if y[i] != c
    )  # fmt: skip
    assert math.isclose(found["negative_easy"], easy / (50 * (C - 1)), rel_tol=1e-6)
    assert math.isclose(found["class_weight_min"], float(pairs.schedule.weight.min()))
    assert found["hardness_q50"] == pytest.approx(float(loss.level.median()), abs=1e-6)


BAD: dict[str, tuple[Tensor, Tensor, str]] = {
    "above": (torch.ones(2, D), torch.tensor([0, C]), r"labels \[7\] have no proxy: classes are 0 to 6"),
    "below": (torch.ones(2, D), torch.tensor([-1, 0]), r"labels \[-1\]"),
    "empty": (torch.ones(0, D), torch.zeros(0, dtype=torch.int64), "batch is empty"),
    "nan": (torch.tensor([[1.0] * D, [math.nan] * D]), torch.tensor([0, 1]), r"samples \[1\] are NaN"),
    "one class": (torch.ones(3, D), torch.tensor([4, 4, 4]), "all 3 samples are of class 4"),
    "width": (torch.ones(2, D + 1), torch.tensor([0, 1]), r"give \(batch, 5\)"),
    "float labels": (torch.ones(2, D), torch.tensor([0.0, 1.0]), "int64"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_batches_are_refused_and_leave_no_trace(name: str) -> None:
    x, y, message = BAD[name]
    loss = make(dtype=torch.float32)
    before = copy.deepcopy(loss.state_dict())
    with pytest.raises(NonFiniteError if name == "nan" else BadInputError, match=message):
        loss(x, y)
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


def test_a_miner_and_a_single_class_are_refused() -> None:
    x, y = batch(0)
    with pytest.raises(BadInputError, match="leave out miner"):
        make()(x, y, indices_tuple=(y, y, y))
    with pytest.raises(BadInputError, match="at least 2"):
        ProxyISA(1, D)


STEPS, RANKS = 12, 2


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    loss, seen = make(), []
    for step in range(STEPS):
        x, y = (part[rank::RANKS] for part in batch(step))
        value, gx, gp = both(loss, loss.proxies, x, y)
        dist.all_reduce(gp)
        seen.append((value, gx / RANKS, gp / RANKS))  # DistributedDataParallel takes the mean
    try:
        loss(x[: len(x) - rank], y[: len(y) - rank])
    except BadInputError as error:
        seen.append(str(error))
    torch.save((seen, loss.state_dict()), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=RANKS)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    single = make()
    for step in range(STEPS):
        value, gx, gp = both(single, single.proxies, *batch(step))
        for rank, (seen, _) in enumerate(ranks):
            assert torch.allclose(seen[step][0], value, rtol=1e-12)
            assert torch.allclose(seen[step][1], gx[rank::RANKS], rtol=1e-10, atol=1e-14)
            assert torch.allclose(seen[step][2], gp, rtol=1e-10, atol=1e-14)
    for seen, state in ranks:
        assert "ranks hold [6, 5] rows" in seen[-1]
        assert all(torch.equal(value, state[key]) for key, value in single.state_dict().items())
