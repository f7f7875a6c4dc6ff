"""Mixed precision: the scaler's scale changes nothing, an overflow skips the step, rounding is measured."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import NonFiniteError
from common.optim.precision import rounding_noise
from common.optim.rules import (
    ASAM,
    GSAM,
    MSAM,
    SAM,
    GradientNormPenalty,
    LookSAM,
    RandomDirection,
    Rule,
    along,
)
from common.optim.settings import Settings
from common.optim.sharpness import SharpnessAware
from tests.common.optim.quadratic import Net, bits, data


def scaled(net: Net, rule: Rule, scale: float | None, **options: Any) -> SharpnessAware:
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    base = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    return SharpnessAware(base, Settings(rule, m=8, rho=0.05, **options), module=net, scaler=scaler)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("rule", [SAM(), ASAM(), GSAM(), GradientNormPenalty(0.02), LookSAM(k=2)])
def test_the_scale_of_a_grad_scaler_changes_nothing(rule: Rule, inside: bool) -> None:
    with_, without = Net(dropout=0.0), Net(dropout=0.0)
    ours = scaled(with_, rule, 2.0**16, clip=0.5, decay_inside=inside)
    theirs = scaled(without, rule, None, clip=0.5, decay_inside=inside)
    for step in range(4):  # the scale doubles on the way: powers of two, so nothing is rounded otherwise
        one, other = ours.step(with_.loss, data(step)), theirs.step(without.loss, data(step))
        assert one.norm == pytest.approx(other.norm, rel=1e-6)
        assert not one.skipped
    torch.testing.assert_close(list(with_.parameters()), list(without.parameters()), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("when", ["first", "second"])
def test_an_overflow_in_either_pass_skips_the_step_and_lowers_the_scale(when: str) -> None:
    net = Net(norm=False)
    optimizer = scaled(net, SAM(), 2.0**16)
    calls: list[int] = []

    def overflowing(batch: Any) -> Tensor:
        calls.append(1)
        bad = when == "first" or len(calls) % 2 == 0
        return net.loss(batch) * (torch.inf if bad else 1.0)

    before = bits(net)
    assert optimizer.step(overflowing, data()).skipped
    assert bits(net) == before
    assert not optimizer.base.state
    assert optimizer.scaler is not None
    assert optimizer.scaler.get_scale() == 2.0**15
    assert not optimizer.step(net.loss, data()).skipped
    assert bits(net) != before


def test_a_scaler_resumes_with_the_optimiser() -> None:
    net = Net()
    optimizer = scaled(net, SAM(), 4.0)
    for step in range(3):
        optimizer.step(net.loss, data(step))
    again = scaled(Net(), SAM(), 4.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.scaler is not None
    assert again.scaler is not None
    assert again.scaler.state_dict() == optimizer.scaler.state_dict()


def test_rounding_noise_grows_with_size_and_falls_with_rho_and_precision() -> None:
    def noise(n: int, rho: float, dtype: torch.dtype) -> float:
        draw = torch.Generator().manual_seed(0)
        w = torch.randn(n, generator=draw) / 30
        return rounding_noise([w], along([torch.randn(n, generator=draw)], rho), dtype)

    assert noise(10**5, 0.05, torch.bfloat16) > 0.4
    assert noise(10**6, 0.05, torch.bfloat16) > noise(10**5, 0.05, torch.bfloat16)
    assert noise(10**6, 0.5, torch.bfloat16) < noise(10**6, 0.05, torch.bfloat16)
    assert noise(10**6, 0.05, torch.float16) < noise(10**6, 0.05, torch.bfloat16)
    assert noise(10**4, 0.05, torch.float32) < 1e-3


def test_bf16_warns_once_with_the_measured_ratio_and_fp32_makes_the_perturbed_pass_without_it() -> None:
    seen: list[torch.dtype] = []

    def run(**options: Any) -> None:
        net = Net(dropout=0.0)
        optimizer = scaled(net, SAM(), None, **options)

        def loss(batch: Any) -> Tensor:
            seen.append(net.body[0](batch[0]).dtype)
            return net.loss(batch)

        with torch.autocast("cpu", dtype=torch.bfloat16):
            for step in range(2):
                optimizer.step(loss, data(step, n=8))

    with pytest.warns(UserWarning, match=r"rounded to torch.bfloat16 .*/ rho = \d.*fp32=True") as caught:
        run()
    assert len(caught) == 1
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(fp32=True)
    assert seen == [torch.bfloat16, torch.float32] * 2


@pytest.mark.parametrize("rule", [SAM(), ASAM(), MSAM(), RandomDirection(1)])
def test_autocast_around_the_step_sees_the_perturbed_weights(rule: Rule) -> None:
    """Autocast keeps 16-bit copies of the weights until it ends; they must not outlive a move of the weights."""

    def losses(around: bool) -> list[Tensor]:
        net = Net(dropout=0.0)
        optimizer, found = scaled(net, rule, None), []

        def loss(batch: Any) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=True):
                return net.loss(batch)

        with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
            warnings.simplefilter("ignore")
            for step in range(3):
                report = optimizer.step(net.loss if around else loss, data(step))
                found += [one.float() for one in (report.loss, report.perturbed) if one is not None]
            found.append(net.loss(data(9)).float())
        return found

    assert [float(one) for one in losses(around=True)[:-1]] == [
        float(one) for one in losses(around=False)[:-1]
    ]


def test_after_a_step_autocast_holds_no_copy_of_moved_weights() -> None:
    net = Net(dropout=0.0)
    optimizer = SharpnessAware(
        torch.optim.SGD(net.parameters(), 0.0), Settings(SAM(), m=16, rho=5.0), module=net
    )
    net.eval()
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.simplefilter("ignore")
        before = net.loss(data())
        optimizer.step(net.loss, data())
        assert torch.equal(net.loss(data()), before), "it stands at w again"


def test_a_disabled_scaler_counts_as_none() -> None:
    net = Net(norm=False)
    base = torch.optim.SGD(net.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer = SharpnessAware(base, Settings(SAM(), m=8, rho=0.05), module=net, scaler=scaler)
    before = bits(net)
    with pytest.raises(NonFiniteError):
        optimizer.step(lambda batch: net.loss(batch) * torch.nan, data())
    assert bits(net) == before
    assert not optimizer.step(net.loss, data()).skipped
