"""Bad input: a clear error, and the weights as they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import BadInputError, NonFiniteError
from common.optim import large_batch
from common.optim.rules import GSAM, MSAM, SAM, Base, GradientNormPenalty, LookSAM
from common.optim.schedules import ByNorm, Constant, ProportionalToLr
from common.optim.settings import Settings
from common.optim.sharpness import SharpnessAware
from tests.common.optim.quadratic import Net, bits, data


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Settings(SAM(), m=8, rho=0.0), "rho must be > 0.*rule Base"),
        (lambda: Settings(SAM(), m=8, rho=-0.1), "rho must be > 0"),
        (lambda: Settings(SAM(), m=8, rho=math.nan), "not nan"),
        (lambda: Settings(SAM(), m=8), "every rule needs a rho"),
        (lambda: Settings(Base(), m=8, rho=0.1), "takes none"),
        (lambda: Constant(0.0), "rho must be > 0"),
        (lambda: ProportionalToLr(0.1, lr_max=0.0), "lr_min < lr_max"),
        (lambda: ByNorm(1.0, power=math.inf), "power"),
        (lambda: Settings(SAM(), m=0, rho=0.1), "m must be at least 1"),
        (lambda: Settings(SAM(), m=8, rho=0.1, chunk=3), "chunk = 3 must divide m = 8"),
        (lambda: Settings(SAM(), m=8, rho=0.1, sub=9), "sub = 9"),
        (lambda: Settings(SAM(), m=8, rho=0.1, sub=2, chunk=4), "chunk = 4 must divide sub"),
        (lambda: Settings(GSAM(), m=8, rho=0.1, sub=2), "mixes both gradients"),
        (lambda: Settings(MSAM(), m=8, rho=0.1, sub=2), "first pass"),
        (lambda: Settings(SAM(), m=8, rho=0.1, start=-1), "start"),
        (lambda: Settings(SAM(), m=8, rho=0.1, clip=0.0), "clip"),
        (lambda: Settings(LookSAM(), m=8, rho=0.1, every=2), "interval k"),
        (lambda: LookSAM(k=0), "k must be"),
        (lambda: GradientNormPenalty(-1.0), "strength"),
    ],
)
def test_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()


@pytest.mark.parametrize(
    ("base", "settings", "message"),
    [
        (lambda net: torch.optim.SGD(net.parameters(), 0.1), Settings(MSAM(), m=8, rho=0.1), "momentum"),
        (
            lambda net: torch.optim.AdamW(net.parameters()),
            Settings(SAM(), m=8, rho=0.1, decay_inside=True),
            "decoupled",
        ),
        (
            lambda net: large_batch.lamb(net, 0.1),
            Settings(SAM(), m=8, rho=0.1, decay_inside=True),
            "decoupled",
        ),
        (
            lambda net: torch.optim.Adafactor(net.parameters(), weight_decay=0.1),
            Settings(SAM(), m=8, rho=0.1, decay_inside=True),
            "not known to be one",
        ),
        (
            lambda net: torch.optim.SGD(net.parameters(), 0.1, maximize=True),
            Settings(SAM(), m=8, rho=0.1),
            "maximize",
        ),
        (
            lambda net: torch.optim.SGD(net.requires_grad_(False).parameters(), 0.1),
            Settings(SAM(), m=8, rho=0.1),
            "no trainable",
        ),
        (
            lambda net: torch.optim.SGD(net.bfloat16().parameters(), 0.1),
            Settings(SAM(), m=8, rho=0.1, fp32=True),
            "stored in 16 bits",
        ),
    ],
)
def test_a_base_that_does_not_fit_is_refused(base: Any, settings: Settings, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        SharpnessAware(base(Net()), settings)


class Experts(nn.Module):
    """Its second call uses other parameters than its first."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3)
        self.calls = 0

    def loss(self, batch: Any) -> Tensor:
        self.calls += 1
        return nn.functional.cross_entropy((self.one if self.calls % 2 else self.two)(batch[0]), batch[1])


class Words(nn.Module):
    """A sparse gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 2, sparse=True)

    def loss(self, batch: Any) -> Tensor:
        return self.table(batch[1]).square().mean()


@pytest.mark.parametrize(
    ("net", "loss", "batch", "error", "message"),
    [
        (Net(), None, data(), BadInputError, "step needs the loss"),
        (Net(), Net().loss, data(n=12), BadInputError, r"m = 8 must divide B = 12. Near it: \[.*6.*12\]"),
        (Net(), Net().loss, (), BadInputError, "first dimension"),
        (Net(), lambda b: b[0].mean(1), data(), BadInputError, "one number"),
        (Net(), lambda b: 1.0, data(), BadInputError, "one number"),
        (Net(), Net(seed=1).loss, data(), BadInputError, "no parameter of the base optimiser received"),
        (Experts(), "loss", data(), BadInputError, "parameter one.bias .3. has a gradient in one|one.weight"),
        (Words(), "loss", data(), BadInputError, "table.weight .* sparse gradient"),
        (Net(), "nan", data(), NonFiniteError, "norm of the gradient became nan at step 0"),
    ],
)
def test_a_bad_step_leaves_the_weights(net: Any, loss: Any, batch: Any, error: Any, message: str) -> None:
    if isinstance(loss, str):
        own, factor = net.loss, math.nan if loss == "nan" else 1.0

        def loss(part: Any) -> Tensor:
            return own(part) * factor

    optimizer = SharpnessAware(
        torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), Settings(SAM(), m=8, rho=0.1), module=net
    )
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(error, match=message):
        optimizer.step(loss, batch)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert all(p.grad is None for p in net.parameters())
    assert not optimizer.base.state
    assert optimizer.steps == 0


def test_a_schedule_that_gives_nonsense_is_refused() -> None:
    net = Net()
    settings = Settings(SAM(), m=16, rho=lambda lr, norm: -lr)
    with pytest.raises(BadInputError, match=r"schedule of rho gave -0\.1"):
        SharpnessAware(torch.optim.SGD(net.parameters(), 0.1), settings).step(net.loss, data())


def test_the_state_of_another_optimiser_is_refused() -> None:
    def make(net: nn.Module, rule: Any, base: Any = torch.optim.SGD, **options: Any) -> SharpnessAware:
        return SharpnessAware(base(net.parameters(), 0.1), Settings(rule, m=8, rho=0.1), **options)

    net = Net()
    mine = make(net, SAM())
    mine.step(net.loss, data())
    before = (bits(net), mine.steps)
    others = {
        "rule is GSAM": make(Net(), GSAM()).state_dict(),
        "base optimiser is Adam": make(Net(), SAM(), torch.optim.Adam).state_dict(),
        "shapes": make(Words(), SAM()).state_dict(),
        "no state of SharpnessAware": torch.optim.SGD(net.parameters(), 0.1).state_dict(),
        "scaler": make(Net(), SAM(), scaler=torch.amp.GradScaler("cpu")).state_dict(),
    }
    for message, saved in others.items():
        with pytest.raises(BadInputError, match=message):
            mine.load_state_dict(saved)
    assert (bits(net), mine.steps) == before


def test_a_scaler_and_an_apply_exclude_each_other() -> None:
    scaler = torch.amp.GradScaler("cpu")
    base = torch.optim.SGD(Net().parameters(), 0.1)
    with pytest.raises(BadInputError, match="leave out apply"):
        SharpnessAware(base, Settings(Base(), m=8), scaler=scaler, apply=lambda: None)
