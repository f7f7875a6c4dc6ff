"""Whole networks on the kernels, one for each precision, as the timing stages run them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from projects.fp16_cnn import networks
from projects.fp16_cnn.network import Network, compile_network
from projects.fp16_cnn.program import Program
from projects.fp16_cnn.timing import Call


def compiled(program: Program, precisions: Sequence[str], tune: bool, batch: int = 1) -> dict[str, Network]:
    """One network a precision, on one thread.

    Args:
        batch: images at once.
        tune: look for each layer's blocking by measuring; those found before are read from the cache.
    """
    return {name: compile_network(program, name, batch, 1, tune) for name in precisions}


def calls(net: str, precisions: Sequence[str], seed: int, tune: bool) -> dict[str, Call]:
    """An inference of a timed network in each precision, on noise: one image, or as many as its name says.

    Raises:
        BadInputError: there is no such network.
    """
    architecture, batch = networks.split(net)
    program = networks.program_of(architecture)
    size = (batch, *program.shape)
    images = np.random.default_rng(seed).standard_normal(size, np.float32)
    return {name: _call(found, images) for name, found in compiled(program, precisions, tune, batch).items()}


def _call(network: Network, images: np.ndarray) -> Call:
    return lambda: network.run(images)
