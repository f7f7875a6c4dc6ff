"""Whole networks on the kernels, one for each precision, as the timing stages run them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from projects.fp16_cnn import networks
from projects.fp16_cnn.network import Network, compile_network
from projects.fp16_cnn.program import Program
from projects.fp16_cnn.timing import Call


def compiled(program: Program, precisions: Sequence[str], tune: bool) -> dict[str, Network]:
    """One network a precision, for one image on one thread.

    Args:
        tune: look for each layer's blocking by measuring; those found before are read from the cache.
    """
    return {name: compile_network(program, name, 1, 1, tune) for name in precisions}


def calls(net: str, precisions: Sequence[str], seed: int, tune: bool) -> dict[str, Call]:
    """An inference of a torchvision architecture in each precision, on one image of noise.

    Raises:
        BadInputError: there is no such model.
    """
    program = networks.program_of(net)
    size = (1, *program.shape)
    image = np.random.default_rng(seed).standard_normal(size, np.float32)
    return {name: _call(network, image) for name, network in compiled(program, precisions, tune).items()}


def _call(network: Network, image: np.ndarray) -> Call:
    return lambda: network.run(image)
