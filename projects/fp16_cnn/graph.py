"""From a torch model to a `Program`, through torch.export.

Batch norm y = (x - m) gamma / sqrt(v + eps) + beta after a layer becomes part of its weight and bias
(w' = w gamma / sqrt(v + eps), b' = (b - m) gamma / sqrt(v + eps) + beta, in float64); alone it becomes a depthwise 1x1
layer. An activation or a sum joins the layer before it where nothing else reads what it changes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from common.errors import BadInputError
from projects.fp16_cnn.lowering import LOWERINGS, Lowering, Unsupported
from projects.fp16_cnn.program import Fallback, Layer, Node, Program

IDENTITY = {"dropout", "dropout_", "feature_dropout", "clone", "contiguous", "alias", "detach", "detach_"}


def import_model(model: nn.Module, example: Tensor, fallback: bool = False) -> Program:
    """The model as a program for images of the example's size.

    Args:
        model: in any mode; it is exported in evaluation mode and left as it was.
        example: [N, C, H, W]; only its shape matters, and the batch may change later.
        fallback: run operators that have no kernel by torch in fp32 instead of refusing the model.

    Raises:
        BadInputError: the model depends on more than its input's shape, or (without `fallback`) needs an operator
            that has no kernel.
    """
    if example.dim() != 4:
        raise BadInputError(
            f"the example must be images [N, channels, height, width], not {list(example.shape)}"
        )
    graph, constants, source = _export(model, example[:1])
    _tidy(graph)
    lowering = Lowering(constants)
    lowering.values[source] = "images"
    for node in graph.nodes:
        if node.op == "call_function" and node is not source:
            _lower(lowering, node, fallback)
    (last,) = cast(Sequence[fx.Node], graph.output_node().args[0])
    output = lowering.values[last]
    batch, channels, height, width = example.shape
    nodes = tuple(_with_batch(node, batch) for node in _alive(lowering.nodes, output))
    return Program("images", (channels, height, width), batch, nodes, output)


def _export(model: nn.Module, example: Tensor) -> tuple[fx.Graph, dict[fx.Node, Tensor], fx.Node]:
    """The graph of ATen operators, the tensors behind its placeholders, and the placeholder of the images."""
    modes = {module: module.training for module in model.modules()}
    parameter = next(iter(model.parameters()), example)
    try:
        model.eval()
        program = torch.export.export(model, (example.to(parameter.dtype),))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInputError(
            f"{type(model).__name__} cannot be imported: its graph is not fixed by the shape of its input ({reason}). "
            "Control flow must not depend on the values of tensors; import the part that is a plain network."
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    held: dict[str, Any] = {**program.state_dict, **program.constants}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    constants = {node: held[names[node.name]].detach() for node in placeholders if node.name in names}
    sources = [node for node in placeholders if node.name in signature.user_inputs]
    outputs = program.graph.output_node().args[0]
    if len(sources) != 1 or len(cast(Sequence[object], outputs)) != 1:
        raise BadInputError(f"{type(model).__name__} must take one tensor of images and return one tensor")
    return program.graph, constants, sources[0]


def _tidy(graph: fx.Graph) -> None:
    """Turns in-place operators into readers of their own result; removes what changes nothing at inference."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        first = node.args[0] if node.args else None
        if operator_name(node).endswith("_") and isinstance(first, fx.Node):
            first.replace_all_uses_with(node, lambda user, node=node: order[user] > order[node])
        if operator_name(node) in IDENTITY:
            node.replace_all_uses_with(cast(fx.Node, first))
            graph.erase_node(node)


def operator_name(node: fx.Node) -> str:
    """conv2d for aten.conv2d.default; getitem for Python's own."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return getattr(packet, "__name__", str(packet))


def _lower(lowering: Lowering, node: fx.Node, fallback: bool) -> None:
    if all(read in lowering.constants for read in node.all_input_nodes):
        _evaluate(lowering, node)
        return
    name = operator_name(node)
    try:
        rule = LOWERINGS.get(name.removesuffix("_"))
        if rule is None:
            raise Unsupported
        rule(lowering, node)
    except Unsupported as error:
        reason = f" ({error})" if str(error) else ""
        if not fallback:
            raise BadInputError(
                f"{lowering.path(node) or 'the model'}: no kernel for {name}{reason}. Pass fallback=True to run it by "
                "torch in fp32, or replace the module."
            ) from None
        _fall_back(lowering, node, name)


def _evaluate(lowering: Lowering, node: fx.Node) -> None:
    """An operator of constants alone: its value is one more constant."""
    target = cast(Callable[..., Any], node.target)
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda read: lowering.constants[read])
    lowering.constants[node] = target(*args, **kwargs)


def _fall_back(lowering: Lowering, node: fx.Node, name: str) -> None:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        # An operator of several results is called again for each of them, by its getitem nodes.
        lowering.several[node] = True
        return
    first = node.args[0] if node.args else None
    inner = first if isinstance(first, fx.Node) and first in lowering.several else None
    reads = [read for read in (inner or node).all_input_nodes if read not in lowering.constants]
    for read in reads:
        lowering.materialise(read)

    def call(*tensors: Tensor) -> Tensor:
        known = {**lowering.constants, **dict(zip(reads, tensors, strict=True))}
        dtype = tensors[0].dtype

        def fetch(read: fx.Node) -> Any:
            held = known[read]
            return held.to(dtype) if isinstance(held, Tensor) and held.is_floating_point() else held

        def run(which: fx.Node) -> Any:
            args, kwargs = fx.map_arg((which.args, which.kwargs), fetch)
            return cast(Callable[..., Any], which.target)(*args, **kwargs)

        if inner is None:
            return run(node)
        return operator.getitem(run(inner), cast(int, node.args[1]))

    shapes = tuple(tuple(read.meta["val"].shape) for read in reads)
    inputs = tuple(lowering.values[read] for read in reads)
    operator_of = operator_name(inner) if inner is not None else name
    label = lowering.name(node, operator_of)
    lowering.emit(node, Fallback(label, inputs, extent(tuple(value.shape)), operator_of, call, shapes))


def extent(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height, width of a value that torch holds as [1, ...]; what has no such form counts as channels."""
    if len(shape) == 4 and shape[0] == 1:
        return shape[1], shape[2], shape[3]
    return int(torch.Size(shape).numel()), 1, 1


def _alive(nodes: dict[str, Node], output: str) -> list[Node]:
    """The nodes that the output needs, in order."""
    needed = {output}
    kept: list[Node] = []
    for node in reversed(nodes.values()):
        if node.name in needed:
            needed |= set(node.inputs)
            kept.append(node)
    return kept[::-1]


def _with_batch(node: Node, batch: int) -> Node:
    return replace(node, shape=replace(node.shape, batch=batch)) if isinstance(node, Layer) else node
