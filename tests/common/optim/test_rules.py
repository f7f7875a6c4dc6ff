"""One step of each rule on a quadratic, against its closed form in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.optim.rules import (
    ASAM,
    GSAM,
    MSAM,
    SAM,
    Base,
    GradientNormPenalty,
    LookSAM,
    RandomDirection,
    Rule,
)
from common.optim.settings import Settings
from common.optim.sharpness import SharpnessAware
from tests.common.optim.quadratic import N, Net, Quadratic, data

LR, RHO = 0.01, 0.1


def after(q: Quadratic, rule: Rule, steps: int = 1, momentum: float = 0.0, **options: object) -> Tensor:
    base = torch.optim.SGD(q.params, LR, momentum=momentum)
    rho = None if isinstance(rule, Base) else RHO
    optimizer = SharpnessAware(base, Settings(rule, **({"m": N, "rho": rho} | options)))  # type: ignore[arg-type]
    for _ in range(steps):
        optimizer.step(q.loss, q.c)
    return q.w()


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-13, atol=1e-14)


def sam(q: Quadratic, w: Tensor, rho: float = RHO, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
    g1 = q.gradient(w, c)
    return g1, q.gradient(w + rho * g1 / g1.norm(), c)


def test_base() -> None:
    q = Quadratic()
    close(after(q, Base()), q.w0 - LR * q.gradient(q.w0))


def test_sam() -> None:
    q = Quadratic()
    close(after(q, SAM()), q.w0 - LR * sam(q, q.w0)[1])


@pytest.mark.parametrize("eta", [0.0, 0.01])
def test_asam(eta: float) -> None:
    q = Quadratic()
    g, t = q.gradient(q.w0), q.w0.abs() + eta
    close(after(q, ASAM(eta)), q.w0 - LR * q.gradient(q.w0 + RHO * t**2 * g / (t * g).norm()))


def test_gsam() -> None:
    q = Quadratic()
    g1, g2 = sam(q, q.w0)
    orthogonal = g1 - (g1 @ g2) / (g2 @ g2) * g2
    close(after(q, GSAM(alpha=0.4)), q.w0 - LR * (g2 - 0.4 * orthogonal))


def test_gradient_norm_penalty() -> None:
    q = Quadratic()
    g1, g2 = sam(q, q.w0)
    close(after(q, GradientNormPenalty(0.03)), q.w0 - LR * (0.7 * g1 + 0.3 * g2))


def test_the_penalty_is_the_gradient_of_the_penalised_loss_as_rho_vanishes() -> None:
    q = Quadratic()
    w = q.w0.clone().requires_grad_()
    g = q.a @ (w - q.c.mean(0))
    (penalty,) = torch.autograd.grad(g.norm(), w)
    expected = q.w0 - LR * (g.detach() + 0.03 * penalty)
    torch.testing.assert_close(after(q, GradientNormPenalty(0.03), rho=1e-6), expected, rtol=1e-8, atol=1e-8)


def test_looksam() -> None:
    q = Quadratic()
    w, v = q.w0, torch.zeros(5, dtype=torch.float64)
    for step in range(5):
        g1, g2 = sam(q, w)
        if step % 3 == 0:
            v = g2 - (g2 @ g1) / (g1 @ g1) * g1
            w = w - LR * g2
        else:
            w = w - LR * (g1 + 0.7 * g1.norm() / v.norm() * v)
    close(after(q, LookSAM(k=3, alpha=0.7), steps=5), w)


def test_msam() -> None:
    q = Quadratic()
    w, v = q.w0, torch.zeros(5, dtype=torch.float64)
    for step in range(4):
        eps = -RHO * v / v.norm() if step else 0.0
        v = 0.9 * v + q.gradient(w + eps)
        w = w - LR * v
    close(after(q, MSAM(), steps=4, momentum=0.9), w)


def test_random_direction_has_norm_rho_and_depends_on_the_key_alone() -> None:
    q = Quadratic()
    rule = RandomDirection(seed=3)
    eps = torch.cat(rule.perturbation([p.detach() for p in q.params], [], RHO, (0, 0)))
    torch.testing.assert_close(eps.norm(), torch.tensor(RHO, dtype=torch.float64))
    torch.manual_seed(1)
    close(after(q, rule), q.w0 - LR * q.gradient(q.w0 + eps))
    other = torch.cat(rule.perturbation([p.detach() for p in q.params], [], RHO, (1, 0)))
    assert abs(float(eps @ other)) < 0.99 * RHO**2


@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("m", [2, 4, 8])
def test_m_is_the_perturbation_batch_however_it_is_computed(m: int, chunk: int | None) -> None:
    q = Quadratic()
    g2 = torch.stack([sam(q, q.w0, c=part)[1] for part in q.c.split(m)]).mean(0)
    close(after(q, SAM(), m=m, chunk=chunk), q.w0 - LR * g2)


def test_sub_batch_perturbs_with_the_first_examples() -> None:
    q = Quadratic()
    g = q.gradient(q.w0, q.c[:2])
    close(after(q, SAM(), sub=2), q.w0 - LR * q.gradient(q.w0 + RHO * g / g.norm()))


def test_interval_and_late_phase() -> None:
    q = Quadratic()
    w = q.w0
    for step in range(7):
        g1, g2 = sam(q, w)
        w = w - LR * (g2 if step in (2, 5) else g1)
    close(after(q, SAM(), steps=7, every=3, start=2), w)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.sampled_from([1e-6, 0.5, 3.0, 1e6]))
@pytest.mark.parametrize("rule", [SAM(), ASAM(), GSAM(), GradientNormPenalty(0.02), LookSAM(k=2)])
def test_the_scale_of_the_loss_changes_no_perturbation(rule: Rule, seed: int, factor: float) -> None:
    one, other = Quadratic(seed), Quadratic(seed)
    for q, scale in ((one, 1.0), (other, factor)):
        optimizer = SharpnessAware(torch.optim.SGD(q.params, LR / scale), Settings(rule, m=N, rho=RHO))
        for _ in range(3):
            optimizer.step(lambda c, q=q, scale=scale: scale * q.loss(c), q.c)
    torch.testing.assert_close(one.w(), other.w(), rtol=1e-9, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rho=st.floats(1e-3, 1.0))
def test_sam_finds_the_worst_point_of_a_linear_loss(seed: int, rho: float) -> None:
    q = Quadratic(seed)
    g = [p.detach().clone() for p in q.params]
    eps = torch.cat(SAM().perturbation(q.params, g, rho, (0, 0)))
    torch.testing.assert_close(eps.norm(), torch.tensor(rho, dtype=torch.float64))
    torch.testing.assert_close(torch.cat(g) @ eps, rho * torch.cat(g).norm())


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("rule", [SAM(), GSAM(0.4), GradientNormPenalty(0.03)])
def test_weight_decay_inside_is_part_of_the_loss_and_outside_is_not(rule: Rule, inside: bool) -> None:
    q, decay = Quadratic(), 0.3
    base = torch.optim.SGD(q.params, LR, weight_decay=decay)
    SharpnessAware(base, Settings(rule, m=N, rho=RHO, decay_inside=inside)).step(q.loss, q.c)
    inner = decay if inside else 0.0
    g1 = q.gradient(q.w0) + inner * q.w0
    moved = q.w0 + RHO * g1 / g1.norm()
    g2 = q.gradient(moved) + inner * moved
    a, b = rule.mix([g1], [g2], RHO)
    close(q.w(), q.w0 - LR * (a * g1 + b * g2 + (decay - inner) * q.w0))


def test_looksam_between_its_passes_takes_the_decay_as_it_was_remembered() -> None:
    """With decay inside, g + alpha ||g|| v / ||v|| is of the decayed loss in both; the base adds the decay once."""
    q, decay, rule = Quadratic(), 0.3, LookSAM(k=2)
    base = torch.optim.SGD(q.params, LR, weight_decay=decay)
    optimizer = SharpnessAware(base, Settings(rule, m=N, rho=RHO, decay_inside=True))
    optimizer.step(q.loss, q.c)
    w = q.w()
    g1 = q.gradient(q.w0) + decay * q.w0
    moved = q.w0 + RHO * g1 / g1.norm()
    g2 = q.gradient(moved) + decay * moved
    v = g2 - (g1 @ g2) / (g1 @ g1) * g1
    g = q.gradient(w) + decay * w
    optimizer.step(q.loss, q.c)
    close(q.w(), w - LR * (g + rule.alpha * g.norm() * v / v.norm()))


def test_looksam_remembers_nothing_where_the_schedule_gives_no_rho() -> None:
    """Not the rounding noise of two equal gradients: those steps are the base optimiser's."""
    nets = Net(dropout=0.0), Net(dropout=0.0)
    for net, rule, rho in zip(nets, (LookSAM(k=2), Base()), (lambda lr, norm: 0.0, None), strict=True):
        optimizer = SharpnessAware(torch.optim.SGD(net.parameters(), 0.1), Settings(rule, m=16, rho=rho))
        for step in range(4):
            optimizer.step(net.loss, data(step))
    torch.testing.assert_close(list(nets[0].parameters()), list(nets[1].parameters()), rtol=1e-6, atol=1e-7)
