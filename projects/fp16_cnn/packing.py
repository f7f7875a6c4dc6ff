"""Arrays as kernels read them: aligned, rounded to their storage, weights in panels of consecutive output channels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt16
from numpy.typing import NDArray

from projects.fp16_cnn.precision import Storage

ALIGNMENT = 64  # a cache line, and a vector of 512 bits
LANES = 16  # floats in a vector
DTYPES: dict[Storage, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,  # numpy has none: the upper half of an fp32's bits
}


def padded(channels: int) -> int:
    """Channels rounded up to whole vectors."""
    return -(-channels // LANES) * LANES


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[np.generic]:
    """Zeros that start at a multiple of 64 bytes; every page is written, as untouched ones share one page of zeros."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    raw.fill(0)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def to_bf16(values: Float32[np.ndarray, "*shape"]) -> UInt16[np.ndarray, "*shape"]:
    """Round to bfloat16, nearest even; NaN stays NaN (its payload's upper bits, made quiet)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    found = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        found[nan] = (bits[nan] >> 16) | 0x40
    return found


def from_bf16(bits: UInt16[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """The fp32 numbers that bfloat16 bits stand for, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_storage(values: Float32[np.ndarray, "*shape"], storage: Storage) -> NDArray[np.generic]:
    """Round fp32 values as `storage` keeps them."""
    if storage == "bfloat16":
        return to_bf16(values)
    with np.errstate(over="ignore"):  # beyond 65504 fp16 is infinite: the network's check names the layer
        return np.ascontiguousarray(values, np.float32).astype(DTYPES[storage])


def from_storage(stored: NDArray[np.generic], storage: Storage) -> Float32[np.ndarray, "*shape"]:
    """The fp32 values of stored ones, exactly."""
    return from_bf16(stored) if storage == "bfloat16" else stored.astype(np.float32)  # type: ignore[arg-type]


def stored(values: Float32[np.ndarray, "*shape"], storage: Storage) -> NDArray[np.generic]:
    """`values` rounded to `storage` in an aligned array of their own."""
    copy = aligned(values.shape, DTYPES[storage])
    copy[...] = to_storage(values, storage)
    return copy


def panel_starts(channels: int, width: int) -> list[int]:
    """First channel of each panel of `width`: the last one overlaps its neighbour where `width` does not divide."""
    return [min(start, channels - width) for start in range(0, channels, width)]


def panel_inputs(in_channels: int, out_channels: int, groups: int, width: int) -> tuple[list[int], int]:
    """The input channels that a panel of output channels reads: (first of each panel, how many).

    A panel may span several groups: it then reads the channels of all of them, with zero weights between.
    """
    if groups == 1:
        return [0] * len(panel_starts(padded(out_channels), width)), in_channels
    inputs, outputs = in_channels // groups, out_channels // groups
    ranges: list[tuple[int, int]] = []
    for start in panel_starts(padded(out_channels), width):
        last = min(start + width, out_channels) - 1
        ranges.append((min(start, last) // outputs * inputs, (last // outputs + 1) * inputs))
    count = max(stop - start for start, stop in ranges)
    count += count % 2  # whole pairs; an odd last channel has a padded one behind it
    total = in_channels + in_channels % 2
    return [min(start, total - count) for start, _ in ranges], count


def pack_weight(
    weight: Float32[np.ndarray, "outputs inputs rows columns"],
    storage: Storage,
    groups: int,
    width: int,
    pairs: bool,
) -> NDArray[np.generic]:
    """Weights in the order in which a kernel reads them: [panel, row, column, input, lane].

    Args:
        weight: of a convolution; `inputs` are those of one group.
        width: output channels in a panel, at most the padded number of them.
        pairs: two consecutive inputs lie side by side in each lane (bf16 dot products), an odd last one beside zeros.
    """
    outputs, inputs, rows, columns = weight.shape
    starts = panel_starts(padded(outputs), width)
    firsts, count = panel_inputs(inputs * groups, outputs, groups, width)
    weight = to_storage(weight, storage)
    packed = aligned(
        (len(starts), rows, columns, count + (count % 2 if pairs else 0), width), DTYPES[storage]
    )
    for panel, (start, first) in enumerate(zip(starts, firsts, strict=True)):
        lanes = max(0, min(width, outputs - start))
        if groups == 1:
            packed[panel, :, :, :count, :lanes] = weight[start : start + lanes].transpose(2, 3, 1, 0)
            continue
        for lane in range(lanes):
            offset = (start + lane) // (outputs // groups) * inputs - first
            packed[panel, :, :, offset : offset + inputs, lane] = weight[start + lane].transpose(1, 2, 0)
    if not pairs:
        return packed
    split = packed.reshape(len(starts), rows, columns, -1, 2, width).transpose(0, 1, 2, 3, 5, 4)
    paired = aligned(split.shape, DTYPES[storage])
    paired[...] = split
    return paired


def pack_depthwise(
    weight: Float32[np.ndarray, "channels 1 rows columns"], storage: Storage, width: int
) -> NDArray[np.generic]:
    """Weights of a depthwise convolution: [panel, row, column, lane], zero in padded channels."""
    channels, _, rows, columns = weight.shape
    starts = panel_starts(padded(channels), width)
    packed = np.zeros((len(starts), rows, columns, width), np.float32)
    for panel, start in enumerate(starts):
        lanes = max(0, min(width, channels - start))
        packed[panel, :, :, :lanes] = weight[start : start + lanes, 0].transpose(1, 2, 0)
    return stored(packed, storage)
