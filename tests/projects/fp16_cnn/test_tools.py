"""Peers give the model's answers, and say what they executed."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config as inductor
from torch import nn

from common.errors import BadInputError
from projects.fp16_cnn import compare, cpu, peers, tools

SIDE, CLASSES = 32, 5


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None]:
    before = torch.get_num_threads()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)
        yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    ).eval()  # fmt: skip


def logits(result: object) -> np.ndarray:
    """Of whatever a tool returns."""
    if isinstance(result, torch.Tensor):
        return result.float().numpy()
    return np.asarray(result if isinstance(result, np.ndarray) else result[0])  # type: ignore[index]


def tool(name: str, model: nn.Module, folder: Path, kind: str = "f32") -> tools.Peer:
    return tools.TOOLS[name](model, tools.seeded_images(2, SIDE, 0), kind, 1, folder)


@pytest.mark.parametrize("name", ["torch", "inductor", "ort", "openvino"])
def test_a_peer_computes_the_model_and_counts_its_layers(name: str, model: nn.Module, tmp_path: Path) -> None:
    if name == "inductor" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    if name == "ort":
        pytest.importorskip("onnxruntime")
    if name == "openvino":
        pytest.importorskip("openvino")
    expected = model.double()(tools.seeded_images(2, SIDE, 0).double()).numpy()
    peer = tool(name, model.float(), tmp_path)
    assert logits(peer.call()) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert dict(peer.ran) == {"f32": tools.layers_of(model)} == {"f32": 3}
    assert peer.share("f32") == 1.0


def test_onnx_runtimes_fp16_is_what_its_optimised_graph_says(model: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    peer = tool("ort", model, tmp_path, "f16")
    assert sum(peer.ran.values()) == 3
    assert "casts" in peer.how
    if not cpu.has("avx512fp16"):
        assert dict(peer.ran) == {"f32": 3}  # it multiplies fp32


def test_openvino_tells_what_became_of_the_hint(model: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    peer = tool("openvino", model, tmp_path, "f16")
    assert os.environ["OPENVINO_TELEMETRY"] == "0"
    (used,) = set(peer.ran)
    assert f"hint f16 became {used}" in peer.how


def test_what_onednn_does_not_see_runs_in_torchs_own_loops(model: nn.Module, tmp_path: Path) -> None:
    peer = tool("torch", model, tmp_path, "f16")
    assert sum(peer.ran.values()) == 3
    assert peer.share("f16") == 1.0


def test_onednns_log_is_read() -> None:
    start = "onednn_verbose,v1,primitive,exec,cpu"
    log = "\n".join(
        [
            f"{start},reorder,jit:uni,undef,src:bf16::blocked:acdb::f0 dst:bf16:p:blocked:AcdB32a2b::f0,,,32x3,0.1",
            f"{start},convolution,brg_conv_fwd:avx512_core_bf16,forward_training,src:bf16::blocked:acdb::f0 "
            "wei:bf16:ap:blocked:AcdB32a2b::f0 bia:undef::undef::: dst:bf16::blocked:acdb::f0,,alg,mb1,0.2",
            f"{start},matmul,brg_matmul:avx512_core,undef,src:f32:a:blocked:ab::f0 wei:f32::blocked:ab::f0,,,1x2,0.1",
            "onednn_verbose,v1,primitive,create:cache_hit,cpu,convolution,jit,forward,src:f32 wei:f32,,,1,0.1",
        ]
    )
    ran, how = tools.dnn_layers(log)
    assert dict(ran) == {"bf16": 1, "f32": 1}
    assert dict(how) == {"brg_conv_fwd:avx512_core_bf16": 1, "brg_matmul:avx512_core": 1}


def test_no_bf16_in_onnx_runtime(model: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(BadInputError, match="ort_bf16"):
        tool("ort", model, tmp_path, "bf16")


def test_torch_compile_without_a_compiler(model: nn.Module, tmp_path: Path) -> None:
    with inductor.patch({"cpp.cxx": ("/nowhere/g++",)}), pytest.raises(BadInputError, match="inductor_bf16"):
        tool("inductor", model, tmp_path)


@pytest.mark.parametrize("name", ["own_f23", "tensorrt_f32", "torch_fp32"])
def test_unknown_tools_are_named(name: str, model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="unknown"):
        peers.prepare([name], model, tools.seeded_images(1, SIDE, 0), 1, tmp_path)


def test_our_own_network_stands_beside_the_peers(model: nn.Module, tmp_path: Path) -> None:
    images = tools.seeded_images(2, SIDE, 0)
    found = peers.prepare(["own_f32", "own_f16", "torch_f32"], model, images, 1, tmp_path)
    assert ("own_f16" in found) == cpu.has("avx512fp16")  # what the CPU lacks is left out
    own, torchs = (logits(found[name].call()) for name in ("own_f32", "torch_f32"))
    assert own == pytest.approx(torchs, rel=1e-4, abs=1e-5)
    assert dict(found["own_f32"].ran) == {"f32": 3}


LINES = [
    {"name": name, "tool": tool, "kind": kind, "label": "one", "threads": 1, "ms": ms, "ran": ran, "how": ""}
    for name, tool, kind, ms, ran in [
        ("own_f32", "own", "f32", 10.0, {"f32": 4}),
        ("own_bf16", "own", "bf16", 5.0, {"bf16": 4}),
        ("own_f16s", "own", "f16s", 9.0, {"f32": 4}),
        ("ort_f32", "ort", "f32", 12.0, {"f32": 4}),
        ("openvino_f16", "openvino", "f16", 4.0, {"bf16": 3, "f32": 1}),
    ]
]


def test_ahead_compares_best_with_best() -> None:
    assert peers.summary(LINES) == {"ahead_f32_one": 1.2, "ahead_half_one": 0.8}


def test_a_tools_row() -> None:
    found = compare.row(LINES, "openvino_f16", noisy=False)
    assert found == {"ran_f32": 0.25, "ran_bf16": 0.75, "ran_f16": 0.0, "one_ms": 4.0, "own_ahead_one": 0.8}
    assert "one_ms" not in compare.row(LINES, "openvino_f16", noisy=True)
    assert compare.row(LINES, "inductor_f32", noisy=False) == {}
