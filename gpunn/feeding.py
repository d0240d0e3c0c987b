"""Samples batch by batch on the device, wherever they live.

Samples live on the device when they fit. Otherwise they stay on the host, and are streamed: the
rows of several batches are gathered in pinned memory and copied as one long piece, while the device
computes with the piece before.

The result is the same to the bit. The same batches come in the same order, and each begins as far
from a multiple of `ALIGNMENT` bytes as it would if all samples were there, since a BLAS may choose
by that how it adds up.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.backend import Array, StagingBuffer, row_blocks
from gpunn.memory import why_too_large
from gpunn.network import Network

PIECE_BYTES = 2**24
"""What is copied at a time, at least one batch: long enough that a copy's start costs nothing."""

ALIGNMENT = 512
"""Bytes; what a GPU's memory is handed out in multiples of."""


class Batch(NamedTuple):
    """Samples on the device: `rows` of an epoch, their inputs (n, n_0) and targets (n, n_L)."""

    rows: slice
    inputs: Array
    targets: Array


class Samples(ABC):
    """Samples to go through batch by batch, again and again.

    Attributes
    ----------
    n_samples : int
        How many there are.
    n_rows : int
        How many are in a batch; the last one may be smaller.
    streamed : str or None
        Why they are streamed; None if they live on the device.
    """

    streamed: str | None = None

    def __init__(self, n_samples: int, n_rows: int) -> None:
        self.n_samples, self.n_rows = n_samples, min(n_rows, n_samples)

    @abstractmethod
    def batches(self, order: NDArray[np.int64] | None = None, first: int = 0) -> Iterator[Batch]:
        """Yield samples in an order, or in their own; each batch is gone with the next one.

        Those before the place `first` in that order are left out.
        """


class ResidentSamples(Samples):
    """Samples that live on the device, in `inputs` (n, n_0) and `targets` (n, n_L)."""

    def __init__(self, network: Network, inputs: Array, targets: Array, n_rows: int) -> None:
        super().__init__(inputs.shape[0], n_rows)
        self._backend = network.backend
        self.inputs, self.targets = network.as_matrix(inputs), network.as_matrix(targets)

    def batches(self, order: NDArray[np.int64] | None = None, first: int = 0) -> Iterator[Batch]:
        if order is None:
            for rows in row_blocks(self.n_samples, self.n_rows, first):
                yield Batch(rows, self.inputs[rows], self.targets[rows])
            return
        backend, device_order = self._backend, self._backend.asarray(order)
        sources = (self.inputs, self.targets)
        batch = [backend.empty((self.n_rows, a.shape[1]), a.dtype) for a in sources]
        for rows in row_blocks(self.n_samples, self.n_rows, first):
            outs = [out[: rows.stop - rows.start] for out in batch]
            for source, out in zip(sources, outs, strict=True):
                backend.take_rows(source, device_order[rows], out)
            yield Batch(rows, *outs)


class StreamedSamples(Samples):
    """Samples that stay on the host, on their way to the device piece by piece."""

    def __init__(
        self,
        network: Network,
        inputs: NDArray[Any],
        targets: NDArray[Any],
        n_rows: int,
        streamed: str,
    ) -> None:
        super().__init__(inputs.shape[0], n_rows)
        self.streamed = streamed
        self._sources = (inputs, targets)
        self._line = ALIGNMENT // network.dtype.itemsize
        # A batch has room for its inputs and its targets, wherever in a line they begin.
        self._rooms = [
            (self.n_rows * source.shape[1] // self._line + 2) * self._line
            for source in self._sources
        ]
        n_batches = -(-self.n_samples // self.n_rows)
        fitting = PIECE_BYTES // (sum(self._rooms) * network.dtype.itemsize)
        self._piece_rows = self.n_rows * min(n_batches, max(1, fitting))
        size = self._piece_rows // self.n_rows * sum(self._rooms)
        self._buffers = [network.backend.make_staging_buffer(size, network.dtype) for _ in range(2)]

    def batches(self, order: NDArray[np.int64] | None = None, first: int = 0) -> Iterator[Batch]:
        pieces = self._sent_pieces(order, first)
        try:
            ahead = next(pieces, None)
            while ahead is not None:
                # The next piece is to be on its way before this one is computed with.
                (buffer, piece), ahead = ahead, next(pieces, None)
                numbers = buffer.receive()
                for rows, at in self._layout(piece):
                    yield Batch(rows, *self._views(numbers, rows, at, order is not None))
        finally:
            for buffer in self._buffers:
                buffer.wait()

    def _sent_pieces(
        self, order: NDArray[np.int64] | None, first: int
    ) -> Iterator[tuple[StagingBuffer, slice]]:
        """Gather the samples piece by piece, and yield the buffer that each was sent through."""
        pieces = row_blocks(self.n_samples, self._piece_rows, first)
        for buffer, piece in zip(cycle(self._buffers), pieces, strict=False):
            buffer.wait()
            for rows, at in self._layout(piece):
                outs = self._views(buffer.host, rows, at, order is not None)
                for source, out in zip(self._sources, outs, strict=True):
                    _gather(source, rows if order is None else order[rows], out)
            buffer.send(at + sum(self._rooms))
            yield buffer, piece

    def _layout(self, piece: slice) -> Iterator[tuple[slice, int]]:
        """Yield the rows of each batch of a piece, and where in the buffer its room begins."""
        for start in range(piece.start, piece.stop, self.n_rows):
            at = (start - piece.start) // self.n_rows * sum(self._rooms)
            yield slice(start, min(start + self.n_rows, piece.stop)), at

    def _views(self, numbers: Array, rows: slice, at: int, gathered: bool) -> list[Array]:
        """Return a batch's inputs and targets in the numbers of a buffer, on either side."""
        views = []
        for source, room in zip(self._sources, self._rooms, strict=True):
            shape = (rows.stop - rows.start, source.shape[1])
            # Resident samples are gathered to the beginning of a line, or are where they are.
            start = at if gathered else at + rows.start * shape[1] % self._line
            views.append(numbers[start : start + shape[0] * shape[1]].reshape(shape))
            at += room
        return views


def _gather(source: NDArray[Any], rows: slice | NDArray[np.int64], out: NDArray[Any]) -> None:
    """Change `out` in place to some rows, in its dtype."""
    plain = source.flags.c_contiguous and source.flags.aligned and source.dtype == out.dtype
    if plain and not isinstance(rows, slice):
        # Straight into place. With any other source, it would first copy the whole of that.
        np.take(source, rows, axis=0, out=out, mode="clip")
    else:
        out[...] = source[rows]


def place_samples(
    network: Network, inputs: Array, targets: Array, n_rows: int, reserved: int
) -> Samples:
    """Return samples for a network to go through, on its device if they fit there.

    Parameters
    ----------
    network : Network
        Whose `check_samples` they have passed.
    inputs, targets : array, shape (n, n_0) and (n, n_L)
        The samples. What is on the device already stays there.
    n_rows : int
        How many to a batch.
    reserved : int
        Bytes of the device that are needed for other things.

    Returns
    -------
    Samples
        The samples.

    Raises
    ------
    OutOfMemoryError
        If there is not even room for the pieces of streamed samples.
    """
    on_device = network.backend.owns(inputs) or network.backend.owns(targets)
    n_bytes = (inputs.size + targets.size) * network.dtype.itemsize
    why = None if on_device else why_too_large(network.backend, n_bytes, reserved)
    if why is None:
        return ResidentSamples(network, inputs, targets, n_rows)
    return StreamedSamples(network, inputs, targets, n_rows, why)
