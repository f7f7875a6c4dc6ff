"""The rivals: each by its formula, their dtypes, and a memory that works with proxies and resumes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from pytorch_metric_learning import losses
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from common.errors import BadInputError
from projects.proxy_isa.rivals import RIVALS, CrossBatch, ProxyGML, Rival, build

C, D, B = 6, 8, 20


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(B) % C
    centres = torch.randn(C, D, generator=torch.Generator().manual_seed(9))
    return centres[y] + 0.8 * torch.randn(B, D, generator=draw), y


def rival(name: str, **options: object) -> Rival:
    torch.manual_seed(1)
    built = build({"name": name, **options}, C, D)
    assert isinstance(built, Rival)
    return built


def gradient(loss: Rival | CrossBatch, x: Tensor, y: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    value = loss(leaf, y)
    return [value.detach(), *torch.autograd.grad(value, [leaf, *loss.parameters()])]


@pytest.mark.parametrize("name", RIVALS)
def test_each_trains(name: str) -> None:
    """Thirty steps on free embeddings lower the loss; whether there are proxies is said."""
    loss = rival(name)
    x, y = batch()
    x = x.requires_grad_()
    assert loss.proxies == (name not in ("multi_similarity", "triplet"))
    optimizer = torch.optim.Adam([x, *loss.parameters()], 0.05)
    first = loss(x, y).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()
    assert loss(x, y).item() < first


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_proxies_stay_float32(name: str, dtype: torch.dtype) -> None:
    """The library alone turns them into bfloat16 with the first such batch."""
    loss = rival(name)
    x, y = batch()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(x.to(dtype), y)
    assert value.dtype == torch.float32
    assert all(each.dtype == torch.float32 for each in loss.parameters())
    assert torch.equal(value, loss(x.to(dtype).float(), y))


def test_the_librarys_defect_is_still_there() -> None:
    """When this fails, `Rival` need not convert any more."""
    bare = losses.ProxyAnchorLoss(C, D)
    x, y = batch()
    bare(x.bfloat16(), y)
    assert bare.proxies.dtype == torch.bfloat16


def test_proxy_nca_pp_is_its_formula() -> None:
    x, y = batch()
    for options, scale in (({}, 9.0), ({"scale": 3.0}, 3.0)):
        loss = rival("proxy_nca_pp", **options)
        (proxies,) = loss.parameters()
        squared = torch.cdist(normalize(x), normalize(proxies)) ** 2
        assert torch.allclose(loss(x, y), cross_entropy(-scale * squared, y), rtol=1e-4)


def test_proxy_gml_is_its_released_formula() -> None:
    """The graph, the masked softmax and the proxies' term, written as in github.com/YuehuaZhu/ProxyGML."""
    n, r, lam = 3, 0.4, 0.3
    loss = rival("proxy_gml", per_class=n, ratio=r, weight=lam)
    (proxies,) = loss.parameters()
    x, y = batch()
    centres, owner = normalize(proxies).T, torch.arange(C).repeat_interleave(n)
    onehot = torch.nn.functional.one_hot(owner, C).float()
    similarity = normalize(x) @ centres
    same = (y[:, None] == owner).float()
    _, found = torch.topk(similarity + 1000 * same, math.ceil(r * C * n), dim=1)
    logits = (torch.zeros_like(similarity).scatter(1, found, 1) * similarity) @ onehot
    weights = logits.exp() * (logits != 0)
    likelihood = (weights / weights.sum(1, keepdim=True))[torch.arange(B), y]
    expected = -likelihood.log().mean() + lam * cross_entropy((centres.T @ centres) @ onehot, owner)
    assert torch.allclose(loss(x, y), expected, rtol=1e-5)


def test_proxy_gml_keeps_its_own_proxies() -> None:
    """However small the ratio."""
    assert ProxyGML(C, D, per_class=4, ratio=1e-6).kept == 4
    assert ProxyGML(C, D, per_class=4, ratio=5.0).kept == 4 * C


def test_memory_with_proxies_is_a_larger_batch() -> None:
    """Remembered features are samples without a gradient of their own."""
    plain, loss = rival("proxy_anchor"), CrossBatch(rival("proxy_anchor"), 50)
    (x0, y), (x1, _) = batch(0), batch(1)
    loss(x0, y)
    ours = gradient(loss, x1, y)
    theirs = gradient(plain, torch.cat([x1, normalize(x0)]), torch.cat([y, y]))
    assert torch.allclose(ours[0], theirs[0], rtol=1e-5)
    assert torch.allclose(ours[1], theirs[1][:B], atol=1e-6)
    assert torch.allclose(ours[2], theirs[2], atol=1e-5)


def test_memory_without_proxies_is_references_only() -> None:
    """Every triplet of an anchor in the batch, none with itself."""
    torch.manual_seed(1)
    loss = CrossBatch(rival("triplet", margin=0.3, mine="all"), 50)
    (x0, y), (x1, _) = batch(0), batch(1)
    loss(x0, y)
    every, labels = torch.cat([normalize(x1), normalize(x0)]), torch.cat([y, y])
    distance = torch.cdist(normalize(x1), every)
    violations = [
        float(distance[a, p] - distance[a, n]) + 0.3
        for a in range(B)
        for p in range(2 * B) if labels[p] == y[a] and p != a
        for n in range(2 * B) if labels[n] != y[a]
    ]  # fmt: skip
    positive = [each for each in violations if each > 0]
    assert loss(x1, y).item() == pytest.approx(sum(positive) / len(positive), rel=1e-4)


@pytest.mark.parametrize("name", RIVALS)
def test_memory_resumes_to_the_bit(name: str) -> None:
    """Position, contents and warm-up survive a state_dict; the library's forgets them and refuses proxies."""
    straight = build({"name": name, "memory": 33, "memory_start": 3}, C, D)
    assert isinstance(straight, CrossBatch)
    resumed = build({"name": name, "memory": 33, "memory_start": 3}, C, D)
    for step in range(9):
        x, y = batch(step)
        if step == 5:
            resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
        ours = gradient(straight, x, y)
        if step >= 5:
            assert all(torch.equal(a, b) for a, b in zip(ours, gradient(resumed, x, y), strict=True))


def test_memory_waits_for_its_start_and_for_training() -> None:
    plain = rival("multi_similarity")
    loss = CrossBatch(rival("multi_similarity"), 50, start=2)
    for step in range(2):
        assert torch.equal(loss(*batch(step)), plain(*batch(step)))
    assert not torch.equal(loss(*batch(2)), plain(*batch(2)))
    loss.eval()
    before = int(loss.ring.pushed)
    loss(*batch(3))
    assert int(loss.ring.pushed) == before == 3 * B


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "proxy_ancor"}, "Did you mean 'proxy_anchor'"),
        ({}, "which rival"),
        ({"name": "triplet", "margn": 1}, "Did you mean 'margin'"),
        ({"name": "triplet", "mine": "hardest"}, "Did you mean 'hard'"),
        ({"name": "triplet", "memory": -1}, "at least 1"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        build(options, C, D)


def test_bad_batches() -> None:
    for loss in (rival("proxy_nca_pp"), build({"name": "triplet", "memory": 9}, C, D)):
        with pytest.raises(BadInputError, match="have no proxy"):
            loss(torch.ones(2, D), torch.tensor([0, C]))
        with pytest.raises(BadInputError, match="all 2 samples are of class 3"):
            loss(torch.ones(2, D), torch.tensor([3, 3]))
