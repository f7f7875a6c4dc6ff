"""The loss against the literal transcription of its equations, the library's Proxy-Anchor, and itself in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import ProxyAnchorLoss
from torch import Tensor
from torch.nn.functional import normalize

from projects.proxy_isa.diagnostics import diagnose
from projects.proxy_isa.loss import ProxyISA
from projects.proxy_isa.terms import Cosines
from projects.proxy_isa.weights import Rule
from tests.projects.proxy_isa.literal import SMALL, B, C, D, Literal, batch, both, make

VARIANTS = {
    "released": {},
    "coefficient": {"weight": "coefficient"},
    "positives": {"weighting": "positives"},
    "negatives": {"weighting": "negatives"},
    "none": {"weighting": "none"},
    "hard": {"down": "hard"},
    "easy": {"down": "easy", "weight": "coefficient"},
    "neither": {"down": "neither"},
    "no memory": {"capacity": 0},
    "memory below a batch": {"capacity": 5},
}


def train(name: str, steps: int) -> tuple[ProxyISA, Literal, set[str]]:
    """Both along `steps` of descent on the proxies, compared at every one; the regions that were met."""
    rule = Rule(**(vars(SMALL) | VARIANTS[name]))
    loss, literal = make(rule), Literal(rule, C)
    met: set[str] = set()
    for step in range(steps):
        x, y = batch(step, spread=0.3 + 1.5 * (step % 3))
        found = diagnose(loss, x, y) if step >= rule.filter else {}
        met |= {key for key, value in found.items() if value > 0}
        ours = both(loss, loss.proxies, x, y)
        theirs = both(lambda x, y: literal(x, y, loss.proxies), loss.proxies, x, y)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-12), (name, step)
        assert loss.counted.tolist() == literal.n
        assert torch.allclose(loss.level, torch.tensor(literal.h, dtype=torch.float64), atol=1e-8)
        with torch.no_grad():
            loss.proxies -= 0.02 * ours[2]
    return loss, literal, met


def test_value_gradients_and_state_along_200_steps() -> None:
    _, literal, met = train("released", 200)
    assert {f"{sign}_{region}" for sign in ("positive", "negative") for region in ("easy", "hard")} <= met
    assert min(literal.state(c)[1] for c in range(C)) < 0.5  # saturated
    assert len(literal.queue) == SMALL.capacity and sum(literal.n) < 200 * B  # wrapped; some were hard


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "released"])
def test_every_switch_is_the_transcription(name: str) -> None:
    train(name, 30)


@given(st.integers(0, 10**6), st.sampled_from(["exponent", "coefficient"]), st.integers(0, 10))
@settings(max_examples=25, deadline=None)
def test_random_states(seed: int, weight: str, step: int) -> None:
    rule = Rule(**(vars(SMALL) | {"weight": weight}))
    draw = torch.Generator().manual_seed(seed)
    loss, literal = make(rule), Literal(rule, C)
    loss.counted.copy_(torch.randint(60, (C,), generator=draw))
    loss.level.copy_(torch.rand(C, generator=draw))
    loss.step.fill_(step)
    literal.n, literal.h, literal.step = loss.counted.tolist(), loss.level.tolist(), step
    x, y = batch(seed, size=2 + seed % 20)
    ours = both(loss, loss.proxies, x, y)
    theirs = both(lambda x, y: literal(x, y, loss.proxies), loss.proxies, x, y)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


def test_state_is_that_before_the_batch_and_moves_in_training_only() -> None:
    loss = make()
    x, y = batch(0)
    before = copy.deepcopy(loss.state_dict())
    loss.eval()
    resting = loss(x, y)
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())
    loss.train()
    assert torch.equal(loss(x, y), resting)
    assert int(loss.step) == 1 and loss.counted.sum() == B


@pytest.mark.parametrize("rule", [Rule(weighting="none"), Rule(filter=10)], ids=["none", "before any state"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_weights_it_is_the_librarys_proxy_anchor(rule: Rule, dtype: torch.dtype) -> None:
    """Before anything was counted E = 0, so that every weight is 1 as well."""
    loss = make(rule, dtype=dtype)
    peer = ProxyAnchorLoss(C, D, margin=rule.delta, alpha=rule.alpha).to(dtype)
    peer.load_state_dict({"proxies": loss.proxies.detach()})
    x, y = batch(3)
    ours, theirs = both(loss, loss.proxies, x.to(dtype), y), both(peer, peer.proxies, x.to(dtype), y)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert all(
        torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(ours, theirs, strict=True)
    )


def test_cosines_have_first_and_second_derivatives() -> None:
    x, p = batch(0)[0].requires_grad_(), batch(1)[0][:C].clone().requires_grad_()

    def cosines(x: Tensor, p: Tensor) -> Tensor:
        s: Tensor = Cosines.apply(normalize(x), p)  # pyright: ignore[reportAssignmentType]
        return s

    assert torch.allclose(cosines(x, p), torch.nn.functional.cosine_similarity(x[:, None], p[None], dim=2))
    assert torch.autograd.gradcheck(cosines, (x, p)) and torch.autograd.gradgradcheck(cosines, (x, p))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("weight", ["exponent", "coefficient"])
@pytest.mark.parametrize("autocast", [False, True])
def test_no_dtype_overflows(dtype: torch.dtype, weight: Any, autocast: bool) -> None:
    """alpha m up to 64 with opposed and equal vectors: e^70; proxies stay float32 and have float32's gradient."""
    rule = Rule(volume=2, tau=0, weight=weight, lam=1.0)
    loss = ProxyISA(C, D, rule)
    loss.level.fill_(0.5)  # cosines of ±1 are not at a bound
    x = torch.cat([loss.proxies.detach()[:3], -loss.proxies.detach()[3:6]]).to(dtype)
    y = torch.arange(6)

    def forward(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return loss(x, y)

    value, *gradients = both(forward, loss.proxies, x, y)
    assert loss.proxies.dtype == torch.float32 and gradients[0].dtype == dtype
    assert all(torch.isfinite(each).all() for each in (value, *gradients))
    fresh = ProxyISA(C, D, rule).double()
    fresh.load_state_dict({"proxies": loss.proxies.detach()}, strict=False)
    fresh.level.fill_(0.5)
    exact = both(fresh, fresh.proxies, x.double(), y)
    assert torch.allclose(value.double(), exact[0], rtol=1e-5)
    assert torch.allclose(gradients[1].double(), exact[2], rtol=1e-4, atol=1e-5)


def test_hard_positives_everywhere() -> None:
    """Nothing is counted or remembered, and the loss still has a gradient."""
    loss = make(Rule(**(vars(SMALL) | {"filter": 0, "start": 0, "lam": 0.0, "k": 0.0})))
    loss.counted.fill_(1000)
    value, gradient, _ = both(loss, loss.proxies, -loss.proxies.detach(), torch.arange(C))
    assert torch.isfinite(value) and gradient.abs().sum() > 0
    assert loss.counted.tolist() == [1000] * C
    assert loss.memory is not None and int(loss.memory.ring.pushed) == 0 and bool((loss.level == 1).all())
