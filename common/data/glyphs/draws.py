"""Random bits as a pure function of a key, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import UInt64
from numpy.typing import NDArray


def bits(count: int, *key: int | str) -> UInt64[NDArray[np.uint64], " count"]:
    """The first `count` words of the Philox stream whose key is the hash of `key`: a prefix of every longer one."""
    number = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(number)).random_raw(count)


def uniform(words: UInt64[NDArray[np.uint64], "*shape"]) -> NDArray[np.float64]:
    """Numbers in [0, 1), float64, of the words' shape: their 53 high bits."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
