"""Fully sharded data parallel (FSDP2): each process keeps a part of every weight, gradient and optimiser state.

A checkpoint holds the whole weights and the optimiser's own format, so that one process can continue it.
"""

from __future__ import annotations

import functools
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from typing_extensions import override

from common.errors import BadInputError
from common.processes.parts import whole

BLOCK = 1_000_000  # parameters from which on an entry of a list or sequence of layers is a unit of its own


class Sharded(ModelParallelStrategy):
    """Shards the module's children, each a unit with its large blocks inside, over all processes.

    A child's weights are whole only inside its ``forward``: nothing else may use them in training.

    Args:
        module: what is trained.
        size: number of processes.
        backend: "gloo" or "nccl".

    Raises:
        BadInputError: the module has parameters beside its children's; nothing would average their gradients.
    """

    def __init__(self, module: pl.LightningModule, size: int, backend: str) -> None:
        super().__init__(size, 1, save_distributed_checkpoint=False, process_group_backend=backend)
        own = [name for name, _ in module.named_parameters(recurse=False)]
        if own:
            raise BadInputError(
                f"{type(module).__name__} has parameters of its own ({', '.join(own)}), which cannot be sharded: put "
                "them into a layer, or set parallel.strategy=ddp."
            )
        # Lightning asks for this hook, inside which the processes are known.
        module.configure_model = functools.partial(self._shard, module)

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read through our own checkpoint files, then hand each process its part."""
        state = self.checkpoint_io.load_checkpoint(checkpoint_path)
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, state["state_dict"], options=options)
        for optimizer, saved in zip(self.optimizers, state["optimizer_states"], strict=True):
            set_optimizer_state_dict(
                self.model, optimizer, _by_name(saved, optimizer, self.model), options=options
            )
        return state

    def gather(self) -> None:
        """Give every process the whole weights, in ordinary layers, as if it had trained alone."""
        assert self.model is not None
        for layer in list(self.model.modules()):
            for name, parameter in list(layer.named_parameters(recurse=False)):
                grads = parameter.requires_grad
                setattr(layer, name, nn.Parameter(whole(parameter).detach().clone(), requires_grad=grads))
            if isinstance(layer, FSDPModule):
                _restore(layer)

    def _shard(self, module: nn.Module) -> None:
        mesh = self.device_mesh["data_parallel"]
        children = [child for child in module.children() if any(True for _ in child.parameters())]
        for child in children:
            for block in _blocks(child):
                fully_shard(block, mesh=mesh)
            fully_shard(child, mesh=mesh)


def _by_name(saved: dict[str, Any], optimizer: Any, model: nn.Module) -> dict[str, Any]:
    """An optimiser's state by the names of its parameters; in the checkpoint these are numbers in its groups."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = list(zip(saved["param_groups"], optimizer.param_groups, strict=True))
    name = {i: names[p] for old, new in groups for i, p in zip(old["params"], new["params"], strict=True)}
    return {
        "state": {name[i]: state for i, state in saved["state"].items()},
        "param_groups": [{**old, "params": [name[i] for i in old["params"]]} for old, _ in groups],
    }


def _blocks(child: nn.Module) -> list[nn.Module]:
    """Large entries of lists and sequences, the inner ones first."""
    lists = [layer for layer in child.modules() if isinstance(layer, nn.Sequential | nn.ModuleList)]
    found = {block: None for layer in reversed(lists) for block in layer}
    containers = (nn.ModuleList, nn.ModuleDict)  # have no forward
    return [
        block
        for block in found
        if block is not child
        and not isinstance(block, containers)
        and sum(parameter.numel() for parameter in block.parameters()) >= BLOCK
    ]


def _restore(layer: Any) -> None:
    """Undo ``fully_shard``, which made the layer an instance of a class derived from its own, with two hooks."""
    state = layer._get_fsdp_state()
    for hook in (state._pre_forward_hook_handle, state._post_forward_hook_handle):
        hook.remove()
    layer.__class__ = type(layer).__mro__[2]
