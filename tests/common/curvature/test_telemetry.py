from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.curvature.edge import sam_edge
from common.curvature.telemetry import Probes, telemetry
from common.errors import BadInputError
from tests.common.curvature.nets import conv, dense, mlp

PROBES = Probes(rho=0.1, lr=0.05, momentum=0.9, m=6, chunk=5)


def measure(landscape, probes=PROBES):
    return telemetry(landscape.model, landscape.loss, landscape.inputs, landscape.targets, probes)


def test_all_of_it_as_floats():
    landscape = mlp()
    found = measure(landscape)
    assert all(type(value) is float for value in found.values())
    top = float(torch.linalg.eigvalsh(dense(landscape))[-1])
    value, gradient = landscape.gradient(landscape.weights())
    edge = sam_edge(float(gradient.norm()), 0.1, 2 * 1.9 / 0.05)
    assert found["loss"] == pytest.approx(value)
    assert found["gradient_norm"] == pytest.approx(float(gradient.norm()))
    assert found["lambda_max"] == pytest.approx(top, rel=1e-5)
    assert found["full_batch_sam_edge"] == pytest.approx(edge, rel=1e-9)
    assert found["full_batch_edge_ratio"] == pytest.approx(top / edge, rel=1e-5)
    assert list(found) == [
        *("loss", "gradient_norm", "lambda_max", "lambda_max_residual", "trace", "trace_standard_error"),
        *(
            "m_sharpness",
            "gradient_cosine",
            "perturbation_snr",
            "full_batch_sam_edge",
            "full_batch_edge_ratio",
        ),
    ]


@pytest.mark.parametrize("inside", [True, False])
def test_decay_raises_the_eigenvalue_that_meets_the_edge(inside):
    landscape, wd = mlp(), 0.2
    plain, found = (
        measure(landscape),
        measure(landscape, replace(PROBES, weight_decay=wd, decay_inside=inside)),
    )
    w = landscape.weights()
    gradient = landscape.gradient(w)[1] + (wd * w if inside else 0)
    edge = sam_edge(float(gradient.norm()), 0.1, 2 * 1.9 / 0.05, wd, inside)
    assert found["lambda_max"] == plain["lambda_max"]
    assert found["full_batch_edge_ratio"] == pytest.approx((plain["lambda_max"] + wd) / edge, rel=1e-9)


def test_nothing_is_touched_and_it_is_deterministic():
    landscape = conv()
    model = landscape.model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first, again = measure(landscape), measure(landscape)
    assert first == again
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_validation_hook_may_call_it():
    landscape = mlp()
    expected = measure(landscape)
    with torch.inference_mode():
        inside = replace(landscape, inputs=landscape.inputs * 1, targets=landscape.targets * 1)
        assert measure(inside) == expected
    with torch.no_grad():
        assert measure(landscape) == expected


@pytest.mark.parametrize("m", [None, 4096])
def test_4096_examples_at_once(m):
    landscape = mlp(n=4096)
    found = measure(landscape, replace(PROBES, m=m, chunk=1024))
    assert found["perturbation_snr"] == pytest.approx(1)
    assert found["lambda_max_residual"] < 1e-2 * found["lambda_max"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": 0.0}, "rho = 0"),
        ({"lr": -1.0}, "lr = -1"),
        ({"m": 5}, "m = 5 does not divide the 24"),
        ({"weight_decay": 1e3}, "weight decay 1000"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(BadInputError, match=message):
        measure(mlp(), replace(PROBES, **change))


def test_bad_weights_are_named_and_modes_restored():
    landscape = mlp()
    landscape.model.train()
    with torch.no_grad():
        landscape.model[2].bias.fill_(float("inf"))
    with pytest.raises(BadInputError, match="the loss over 24 examples is nan"):
        measure(landscape)
    assert all(module.training for module in landscape.model.modules())
