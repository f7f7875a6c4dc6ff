from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.errors import BadInputError, NonFiniteError
from common.training.data import StepIndices
from common.training.fit import fit
from common.training.guards import FiniteGuard, check_finite, check_parameters

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_value_that_is_not_finite_raises_and_says_where(bad: float) -> None:
    check_finite(torch.tensor(1e38), 3)
    with pytest.raises(NonFiniteError, match=f"^loss became {bad} at step 3$"):
        check_finite(torch.tensor(bad), 3)
    with pytest.raises(NonFiniteError, match=r"\(elements \[1\] of 3\)"):
        check_finite(torch.tensor([0.0, bad, 1.0]), 3)


def test_only_multiples_of_every_are_checked() -> None:
    check_finite(torch.tensor(NAN), 3, every=2)
    with pytest.raises(NonFiniteError):
        check_finite(torch.tensor(NAN), 4, every=2)


def test_a_parameter_is_named() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    net.register_buffer("mask", torch.tensor([-INF]))  # a buffer may be infinite
    check_parameters(net, 0)
    with torch.no_grad():
        net[1].bias[0] = NAN
    with pytest.raises(NonFiniteError, match=r"parameter 1\.bias"):
        check_parameters(net, 0)


def test_one_gradient_that_is_not_finite_is_found_before_the_step() -> None:
    net = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(batch_idx=4))
    net(torch.ones(3)).sum().backward()
    FiniteGuard().on_before_optimizer_step(trainer, Any, optimizer)
    net.weight.grad[1, 2] = INF
    FiniteGuard(every=3).on_before_optimizer_step(trainer, Any, optimizer)
    with pytest.raises(NonFiniteError, match="gradient norm became inf at step 4"):
        FiniteGuard().on_before_optimizer_step(trainer, Any, optimizer)


@pytest.mark.parametrize("device", ["gpu", "auto", *([] if torch.cuda.is_available() else ["cuda"])])
def test_a_device_is_taken_at_its_word(tmp_path: Any, device: str) -> None:
    import pytorch_lightning as pl

    with pytest.raises(BadInputError, match="device"):
        fit(pl.LightningModule(), StepIndices(1), tmp_path, device=device)
