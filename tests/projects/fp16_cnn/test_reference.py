"""What the reference rounds, against roundings written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import BadInputError
from projects.fp16_cnn import reference
from projects.fp16_cnn.graph import import_model
from projects.fp16_cnn.precision import NEVER
from projects.fp16_cnn.program import Program, precisions, storages


class Pair(nn.Module):
    """Two convolutions that read one value, a pool between, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.left = nn.Conv2d(8, 8, 1)
        self.right = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        return self.head((self.left(x) + F.relu(self.right(x))).mean((2, 3)))


@pytest.fixture
def pair() -> tuple[Pair, Program, Tensor]:
    torch.manual_seed(0)
    model = Pair().double()
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    return model, import_model(model, x), x


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_storage_rounds_weights_and_what_layers_read(
    half: torch.dtype, pair: tuple[Pair, Program, Tensor]
) -> None:
    model, program, x = pair

    def r(value: Tensor) -> Tensor:
        return value.to(half).double()

    with torch.no_grad():
        y = r(F.relu(F.conv2d(r(x), r(model.stem.weight), model.stem.bias)))
        y = F.max_pool2d(y, 2)
        # Only the residual sum reads the right branch: nothing multiplies it, but its readers' reader is in half.
        right = F.relu(F.conv2d(y, r(model.right.weight), model.right.bias))
        total = r(F.conv2d(y, r(model.left.weight), model.left.bias) + right)
        expected = F.linear(r(total.mean((2, 3))), r(model.head.weight), model.head.bias)
    name = "f16s" if half == torch.float16 else "bf16"
    torch.testing.assert_close(reference.run(program, x, quantise=name), expected, rtol=1e-12, atol=1e-12)


def test_a_value_whose_readers_disagree_is_kept_in_fp32_and_rounded_for_each(
    pair: tuple[Pair, Program, Tensor],
) -> None:
    _, program, _ = pair
    plan = {"left": "bf16", "right": "f16s", "head": "f16w"}
    stored = storages(program, plan)
    assert stored["stem"] == stored["images"] == "float32"
    assert set(storages(program, "bf16").values()) == {"bfloat16", "float32"}
    assert storages(program, "bf16")[program.output] == "float32"


def test_f16w_rounds_weights_alone(pair: tuple[Pair, Program, Tensor]) -> None:
    model, program, x = pair
    with torch.no_grad():
        for parameter in (model.stem.weight, model.left.weight, model.right.weight, model.head.weight):
            parameter.copy_(parameter.half().double())
        torch.testing.assert_close(
            reference.run(program, x, quantise="f16w"), model(x), rtol=1e-12, atol=1e-12
        )


def test_no_plan_rounds_nothing_and_f32_is_no_rounding_in_float64(pair: tuple[Pair, Program, Tensor]) -> None:
    model, program, x = pair
    with torch.no_grad():
        torch.testing.assert_close(reference.run(program, x), model(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        reference.run(program, x, quantise="f32"), reference.run(program, x), rtol=0, atol=0
    )


def test_sums_in_half_stop_at_a_power_of_two_without_a_flush() -> None:
    """0.5 added to 1024 in fp16 is 1024: any longer sum of halves ends there."""
    x = torch.full((1, 4608, 1, 1), 0.5, dtype=torch.float64)
    ones = torch.ones(1, 4608, 1, 1, dtype=torch.float64)
    assert reference.half_sums(x, ones, (1, 1), 1, NEVER).item() == 1024
    assert reference.half_sums(x, ones, (1, 1), 1, 64).item() == 2304


def test_sums_in_half_are_convolutions() -> None:
    """Small integers are exact in fp16, in any order."""
    torch.manual_seed(0)
    x = torch.randint(-4, 5, (2, 6, 7, 8)).double()
    weight = torch.randint(-4, 5, (4, 3, 3, 2)).double()
    for flush in (2, 64, NEVER):
        made = reference.half_sums(x, weight, (2, 1), 2, flush)
        torch.testing.assert_close(made, F.conv2d(x, weight, stride=(2, 1), groups=2), rtol=0, atol=0)


def test_a_plan_must_fit(pair: tuple[Pair, Program, Tensor]) -> None:
    _, program, _ = pair
    assert precisions(program, {"left": "bf16"})["right"].name == "f32"
    with pytest.raises(BadInputError, match=r"layer 'lef'.*'left'"):
        precisions(program, {"lef": "bf16"})
    with pytest.raises(BadInputError, match="precision 'fp16'"):
        precisions(program, "fp16")
