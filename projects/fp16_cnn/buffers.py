"""Activations in memory: NHWC with a zero border and whole vectors of channels, so that kernels test nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from common.errors import BadInputError
from projects.fp16_cnn.packing import DTYPES, aligned, from_storage, padded, to_storage
from projects.fp16_cnn.precision import BYTES, Storage


@dataclass(frozen=True)
class Layout:
    """How a tensor of activations lies in memory.

    Attributes:
        height, width, channels: of the tensor itself. What kernels leave in padded channels is finite, and meets only
            zero weights.
        border: zeros above, below, left and right of it, written once and never again.
        compact: channels are not padded to vectors: within a layer only, for inputs that are read one by one.
    """

    batch: int
    height: int
    width: int
    channels: int
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    storage: Storage = "float32"
    compact: bool = False

    @property
    def channels_padded(self) -> int:
        """Channels rounded up to whole vectors of 16, unless the layout is compact."""
        return self.channels if self.compact else padded(self.channels)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the array: batch, rows and columns with the border, padded channels."""
        top, bottom, left, right = self.border
        return self.batch, self.height + top + bottom, self.width + left + right, self.channels_padded

    @property
    def strides(self) -> tuple[int, int, int]:
        """Bytes from an image, a row, a column to the next."""
        _, rows, columns, channels = self.shape
        column = channels * BYTES[self.storage]
        return rows * columns * column, columns * column, column

    @property
    def origin(self) -> int:
        """Bytes from the array's start to the first element inside the border."""
        return self.border[0] * self.strides[1] + self.border[2] * self.strides[2]

    @property
    def nbytes(self) -> int:
        """Of the whole array."""
        return self.batch * self.strides[0]


class Buffer:
    """Memory of one `Layout`, zero at first.

    Attributes:
        array: [N, H + border, W + border, padded channels]; float32, float16, or uint16 that holds bf16.
        pointer: its address, a multiple of 64.
    """

    def __init__(self, layout: Layout, memory: NDArray[np.uint8] | None = None) -> None:
        """Args: memory: at least `layout.nbytes`, aligned; its border must be zero. None: a piece of its own."""
        self.layout = layout
        if memory is None:
            self.array = aligned(layout.shape, DTYPES[layout.storage])
        else:
            self.array = memory[: layout.nbytes].view(DTYPES[layout.storage]).reshape(layout.shape)
        self.pointer = self.array.ctypes.data

    @property
    def interior(self) -> NDArray[np.generic]:
        """A view without border and padded channels: [N, H, W, C]."""
        layout = self.layout
        top, left = layout.border[0], layout.border[2]
        return self.array[:, top : top + layout.height, left : left + layout.width, : layout.channels]

    def write(self, values: Float32[np.ndarray, "batch height width channels"]) -> None:
        """Round `values` to the storage and put them inside the border.

        Raises:
            BadInputError: another shape.
        """
        layout = self.layout
        expected = (layout.batch, layout.height, layout.width, layout.channels)
        if tuple(values.shape) != expected:
            raise BadInputError(
                f"activations of shape {tuple(values.shape)}, the buffer holds {expected} (NHWC)."
            )
        self.interior[...] = to_storage(values, layout.storage)

    def read(self) -> Float32[np.ndarray, "batch height width channels"]:
        """The values as fp32, without border and padded channels."""
        return from_storage(self.interior, self.layout.storage)
