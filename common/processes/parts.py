"""A tensor of which each process holds a part (a DTensor), and the same functions for one that is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Shaped
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from common.processes.cut import cut_of


def is_part(value: Shaped[Tensor, ...]) -> bool:
    """Whether this process holds a part only."""
    return isinstance(value, DTensor)


def whole(value: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
    """The tensor, put together where it is in parts (or a parameter that was cut); every process then has to ask."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    cut = cut_of(value)
    return cut.whole(value.detach()) if cut else value


def own(values: Sequence[Shaped[Tensor, ...]]) -> list[Shaped[Tensor, ...]]:
    """What this process holds of each, in place: a change of it is one of the tensor."""
    return [value.to_local() if isinstance(value, DTensor) else value for value in values]


def cut_like(value: Shaped[Tensor, ...], other: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
    """A whole tensor that all processes have, in parts as `other` is."""
    if not isinstance(other, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value, other.device_mesh, other.placements, src_data_rank=None)


def whole_state(module: nn.Module) -> dict[str, Shaped[Tensor, ...]]:
    """The state dict, whole on every process; no copy of what is whole already."""
    return {name: whole(value.detach()) for name, value in module.state_dict().items()}


def load_whole(module: nn.Module, state: Mapping[str, Shaped[Tensor, ...]]) -> None:
    """Take over a whole state dict."""
    held = module.state_dict()
    module.load_state_dict({name: cut_like(value, held[name]) for name, value in state.items()})


def settle(module: nn.Module) -> None:
    """Let go of the weights that a forward pass put together: the next one sees what was changed in the parts."""
    for layer in module.modules():
        if isinstance(layer, FSDPModule):
            layer.reshard()
