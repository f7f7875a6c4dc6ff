"""The peers: torch (eager, compiled), ONNX Runtime and OpenVINO on one model, and what each of them really executes.

A tool's "fp16" is often something else: the types of the multiplying layers are therefore read from the tool itself
(oneDNN's log, the weights of ONNX Runtime's optimised graph, OpenVINO's execution types), never from what was asked.
"""

from __future__ import annotations

import copy
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common.errors import BadInputError
from projects.fp16_cnn.timing import Call

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
NAMES = {
    "float32": "f32",
    "float": "f32",
    "f32": "f32",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "f16",
    "f16": "f16",
}
MULTIPLIES = re.compile(r",(?:convolution|inner_product|matmul|deconvolution),([^,]+),[^,]*,[^,]*?wei:(\w+)")


@dataclass(frozen=True)
class Peer:
    """A tool, ready to run one batch of images on a number of threads.

    Attributes:
        call: one inference.
        ran: type -> multiplying layers that executed in it ("f32", "bf16", "f16").
        how: the implementations' names and their layers, most frequent first.
    """

    call: Call
    ran: Mapping[str, int]
    how: str

    def share(self, kind: str) -> float:
        """Share of the multiplying layers that executed in a type."""
        total = sum(self.ran.values())
        return self.ran.get(kind, 0) / total if total else 0.0


def layers_of(model: nn.Module) -> int:
    """Convolutions and fully connected layers."""
    return sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())


def torch_eager(model: nn.Module, images: torch.Tensor, kind: str, threads: int, folder: Path) -> Peer:
    """torch as most people run it: eager, channels_last."""
    torch.set_num_threads(threads)
    own, x = _typed(model, images, kind)
    return _watched(lambda: own(x), kind, layers_of(model))


def torch_compiled(model: nn.Module, images: torch.Tensor, kind: str, threads: int, folder: Path) -> Peer:
    """torch.compile with weights frozen, so that oneDNN packs them once.

    Raises:
        BadInputError: the machine has no C++ compiler for it.
    """
    import torch._inductor.config as inductor
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise BadInputError(
            "torch.compile needs a C++ compiler, and there is none: install g++ (or name one in CXX), or leave "
            "inductor_f32, inductor_bf16 and inductor_f16 out of peers.tools."
        ) from error
    torch.set_num_threads(threads)
    torch.compiler.reset()  # compiled code holds the number of threads
    own, x = _typed(model, images, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with inductor.patch(freezing=True):
            compiled = torch.compile(own)
            compiled(x)
            return _watched(lambda: compiled(x), kind, layers_of(model))


def onnxruntime(model: nn.Module, images: torch.Tensor, kind: str, threads: int, folder: Path) -> Peer:
    """ONNX Runtime on the exported model; fp16 by its own converter, images and logits kept in fp32.

    Raises:
        BadInputError: bf16, which it has no convolutions for.
    """
    import onnx
    import onnxruntime as ort

    if kind == "bf16":
        raise BadInputError(
            "ONNX Runtime has no bf16 convolutions on a CPU: leave ort_bf16 out of peers.tools."
        )
    path = export(model, images, kind, folder)
    optimised = folder / f"{path.stem}.optimised.onnx"
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.optimized_model_filepath = str(optimised)
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"images": images.numpy()}
    graph = onnx.load(optimised).graph
    weights = {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.initializer}
    names = {"FLOAT": "f32", "FLOAT16": "f16", "BFLOAT16": "bf16"}
    found = [
        (node.op_type, names.get(weights.get(node.input[1], ""), "f32"))
        for node in graph.node
        if node.op_type in ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul")
    ]
    casts = sum(node.op_type == "Cast" for node in graph.node)
    how = f"{_listed(Counter(f'{op} with {word} weights' for op, word in found))}; {casts} casts"
    optimised.unlink()
    return Peer(lambda: session.run(None, feed), Counter(word for _, word in found), how)


def openvino(model: nn.Module, images: torch.Tensor, kind: str, threads: int, folder: Path) -> Peer:
    """OpenVINO with the precision as its inference hint, which it may replace by another."""
    os.environ["OPENVINO_TELEMETRY"] = "0"  # its converter would report home otherwise
    import openvino as ov

    core = ov.Core()
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads}
    options |= {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    graph = _openvino_graph(model, images, folder)
    feed = {0: images.numpy()}
    watched = core.compile_model(graph, "CPU", options | {"PERF_COUNT": True}).create_infer_request()
    watched.infer(feed)
    found = [
        (str(entry.exec_type), entry.node_type)
        for entry in watched.profiling_info
        if entry.status == entry.Status.EXECUTED
        and entry.node_type in ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
    ]
    compiled = core.compile_model(graph, "CPU", options)
    request = compiled.create_infer_request()
    used = _word(compiled.get_property("INFERENCE_PRECISION_HINT"))
    how = f"hint {kind} became {used}; {_listed(Counter(name for name, _ in found))}"
    return Peer(lambda: request.infer(feed), Counter(_word(name) for name, _ in found), how)


TOOLS: dict[str, Callable[..., Peer]] = {
    "torch": torch_eager,
    "inductor": torch_compiled,
    "ort": onnxruntime,
    "openvino": openvino,
}


def export(model: nn.Module, images: torch.Tensor, kind: str, folder: Path) -> Path:
    """The model as an ONNX file in `folder`, made once for each type."""
    import onnx

    path = folder / f"{kind}.onnx"
    if path.is_file():
        return path
    if kind == "f32":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter that needs no other package is marked as old
            torch.onnx.export(
                model, (images,), str(path), dynamo=False, input_names=["images"], output_names=["logits"]
            )
        return path
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which weights underflow
        halved = convert_float_to_float16(onnx.load(export(model, images, "f32", folder)), keep_io_types=True)
    onnx.save(halved, path)
    return path


def _openvino_graph(model: nn.Module, images: torch.Tensor, folder: Path) -> Any:
    import openvino as ov

    path = folder / "openvino.xml"
    if not path.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit.trace, which the converter calls, is marked as old
            graph = ov.convert_model(model, example_input=images, input=list(images.shape))
        ov.save_model(graph, path, compress_to_fp16=False)
    return ov.Core().read_model(path)


def _typed(model: nn.Module, images: torch.Tensor, kind: str) -> tuple[nn.Module, torch.Tensor]:
    own = copy.deepcopy(model).to(TYPES[kind]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return own, images.to(TYPES[kind]).contiguous(memory_format=torch.channels_last)


def _watched(call: Call, kind: str, layers: int) -> Peer:
    """One run with oneDNN's log on; layers that it does not see run in torch's own loops, in the tensors' type."""
    call()
    mkldnn: Any = torch.backends.mkldnn
    with _printed() as text, mkldnn.verbose(mkldnn.VERBOSE_ON):
        call()
    ran, how = dnn_layers("".join(text))
    missing = layers - sum(ran.values())
    if missing > 0:
        how[f"torch's own loop in {kind}"] += missing
        ran[kind] += missing
    return Peer(call, ran, _listed(how))


def dnn_layers(log: str) -> tuple[Counter[str], Counter[str]]:
    """From oneDNN's log: layers by the weights' type, and by implementation."""
    ran: Counter[str] = Counter()
    how: Counter[str] = Counter()
    for line in log.splitlines():
        found = MULTIPLIES.search(line) if ",exec," in line else None
        if found:
            ran[NAMES.get(found[2], found[2])] += 1
            how[found[1]] += 1
    return ran, how


@contextmanager
def _printed() -> Generator[list[str]]:
    """What native code prints to standard output, as one string in the list once the block has ended."""
    text: list[str] = []
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        old = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield text
        finally:
            os.dup2(old, 1)
            os.close(old)
            file.seek(0)
            text.append(file.read().decode(errors="replace"))


def _word(name: object) -> str:
    """The type in an OpenVINO name: brgconv_avx512_bf16, <Type: 'bfloat16'>."""
    found = re.findall(r"bfloat16|float16|float32|bf16|f16|f32", str(name))
    return NAMES[found[-1]] if found else "other"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in counts.most_common())


def seeded_images(batch: int, side: int, seed: int) -> torch.Tensor:
    """Random images [batch, 3, side, side], standard normal as normalised photographs are."""
    values = np.random.default_rng(seed).standard_normal((batch, 3, side, side), dtype=np.float32)
    return torch.from_numpy(values)
