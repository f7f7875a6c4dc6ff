"""Judging a precision: exact bounds, errors, the arm that must be rejected, and the stage on a network of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from common.errors import BadInputError
from common.study.model import JobRef, Member
from projects.fp16_cnn import accuracy, execute, reference, subjects, traps
from projects.fp16_cnn.graph import import_model
from projects.fp16_cnn.learn import FILE, Trained, save
from projects.fp16_cnn.nets import build

IMAGES = {"classes": 5, "size": 24, "train": 40, "validation": 20, "draws": 120}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `learn` job whose network has random weights and calibrated batch norms."""
    torch.manual_seed(3)
    net = build("small_mobilenet", 5)
    subjects.calibrate(net, torch.randn(32, 1, 24, 24))
    found = tmp_path_factory.mktemp("learn")
    save(Trained(net, "small_mobilenet", 3, IMAGES), found / FILE)
    return found


def members(folder: Path, *precisions: str) -> list[Member]:
    inputs = {"learn": [JobRef({}, folder, {})]}
    return [Member({}, inputs, folder, {"net": "x", "precision": name, "seed": 3}) for name in precisions]


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X <= k), summed term by term."""
    from math import comb

    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(("k", "n"), [(0, 400), (1, 400), (7, 1200), (3, 5)])
def test_the_bound_is_where_the_binomial_tail_is_5_percent(k: int, n: int) -> None:
    assert binomial_tail(k, n, accuracy.upper_bound(k, n)) == pytest.approx(0.05, rel=1e-9)


def test_the_bound_of_no_failures_is_the_rule_of_three_and_of_all_is_1() -> None:
    assert accuracy.upper_bound(0, 1200) == pytest.approx(1 - 0.05 ** (1 / 1200))
    assert accuracy.upper_bound(4, 4) == 1.0


def test_judged_counts_changed_answers_and_the_worst_image() -> None:
    exact = torch.tensor([[4.0, 1.0], [1.0, 2.0], [1.0, -8.0], [0.0, 1.0]], dtype=torch.float64)
    base = exact.float()
    found = base.clone()
    found[1] = torch.tensor([3.0, 2.0])  # turned, and off by 2 of 2
    found[2, 1] = -9.0  # off by 1 of 8
    result = accuracy.judged(found, base, exact)
    assert (result["disagreeing"], result["sources"], result["disagreement"]) == (1, 4, 0.25)
    assert result["agreement"] == 0.75
    assert result["largest_relative_error"] == 1.0
    assert result["disagreement_upper"] == accuracy.upper_bound(1, 4)


def test_coarse_weights_have_so_many_bits() -> None:
    layer = nn.Conv2d(1, 4, 1, bias=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.3, -0.7, 3.6, 0.0])[:, None, None, None])
    program = accuracy.coarse(import_model(layer, torch.zeros(1, 1, 2, 2)), 1)
    assert program.layers[0].weight.flatten().tolist() == [1.5, -0.75, 4.0, 0.0]
    assert layer.bias is not None and program.layers[0].bias is not None
    torch.testing.assert_close(program.layers[0].bias, layer.bias.detach())


def test_the_stage_orders_precisions_as_their_roundings(folder: Path) -> None:
    names = ("f32", "f16w", "f16s", "bf16", "f16e64", "mantissa1")
    found = dict(zip(names, accuracy.run(members(folder, *names)), strict=True))
    errors = [found[name]["median_relative_error"] for name in ("f32", "f16w", "f16s", "bf16", "mantissa1")]
    assert errors == sorted(errors) and errors[0] < 1e-5
    assert found["f16e64"]["error_over_flush64"] == 1.0 and found["f16s"]["log2_error_over_flush64"] < 0
    assert {metrics["sources"] for metrics in found.values()} == {60.0}
    assert all(0 <= metrics["accuracy"] <= 1 for metrics in found.values())
    assert accuracy.run(members(folder, "f16s")) == [found["f16s"]]  # a member is as it were alone


@pytest.mark.parametrize("plan", ["f32", "f16s", "bf16", "f16e64", "f16e256", "f16e"])
def test_kernels_and_reference_agree_on_a_whole_network(folder: Path, plan: str) -> None:
    subject = subjects.trained(folder / FILE)
    if not execute.native(subject.program, plan):
        pytest.skip(f"this CPU has no instructions for {plan}")
    x = subject.held[:7]
    expected = reference.run(subject.program, x, torch.float32, plan)
    found = execute.logits(subject.program, plan, x)
    # A value near the middle of two numbers may round either way, and moves what follows by one unit of its storage;
    # a flush comes at most 64 or 256 terms after the last one, in kernels and reference not at the same places.
    tolerance = {"f32": 1e-5, "f16s": 4e-3, "bf16": 2e-2, "f16e": 4e-3}.get(plan, 1e-2)
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


def test_the_last_batch_may_be_smaller_and_logits_that_are_not_finite_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subjects.trained(folder / FILE)
    whole = execute.logits(subject.program, "f32", subject.held)
    monkeypatch.setattr(execute, "BATCH", 7)
    torch.testing.assert_close(
        execute.logits(subject.program, "f32", subject.held), whole, rtol=1e-4, atol=1e-4
    )
    for kernels in (True, False):
        if not kernels:
            monkeypatch.setattr(execute, "native", lambda program, plan: False)
        with pytest.raises(BadInputError, match=r"65504|not finite"):
            execute.logits(subject.program, "f16s", subject.held[:7] * 1e6)


def test_sums_of_one_sign_stop_without_a_flush(tmp_path: Path) -> None:
    found = traps.run({"axes": {"trap": "sum", "seed": 0}}, {}, tmp_path)
    assert found == {"stops_at": 1024.0, "flushed": 2304.0, "exact": 2304.0}


def test_raw_pixels_are_64_times_larger_and_overflow_where_activations_exceed_fp16(tmp_path: Path) -> None:
    options = {"net": "resnet18", "images": 1, "size": 64}
    found = traps.run({"axes": {"trap": "raw", "seed": 0}, "traps": options}, {}, tmp_path)
    assert found["overflows_normal"] == 0 and found["largest_raw"] > 20 * found["largest_normal"]
    assert (found["overflows_raw"] > 0) == (found["first_layer"] >= 0)
    assert found["overflows_raw"] == 0 or found["largest_raw"] > 6e4
    with pytest.raises(BadInputError, match="trap 'row'"):
        traps.run({"axes": {"trap": "row", "seed": 0}}, {}, tmp_path)
