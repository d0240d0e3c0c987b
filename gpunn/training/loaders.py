"""Samples batch by batch on the device, wherever they live.

Samples live on the device when they fit. Otherwise they stay on the host or on the disk, and are
streamed: the rows of several batches are gathered in pinned memory and copied as one long chunk,
while the device computes with the chunk before. So are those of a `Stream`, which come in chunks.

The result is the same to the bit. The same batches come in the same order, and each begins as far
from a multiple of `ALIGNMENT` bytes as it would if all samples were there, since a BLAS may choose
by that how it adds up.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backends.base import Array, Backend
from gpunn.backends.staging import StagingBuffer
from gpunn.data.matrices import Matrix, is_on_host, row_blocks
from gpunn.errors import ParameterError
from gpunn.network import Network
from gpunn.network.frames import column_names
from gpunn.network.names import check_names
from gpunn.parallel.alike import array_fingerprint
from gpunn.training.memory import why_too_large
from gpunn.training.samples import checked_samples
from gpunn.training.streams import (
    Block,
    BlockOrder,
    Known,
    Stream,
    check_room,
    draw_blocks,
    look_at,
    read_blocks,
)

CHUNK_BYTES = 2**24
"""What is copied at a time, at least one batch: long enough that a copy's start costs nothing."""

ALIGNMENT = 512
"""Bytes; what a GPU's memory is handed out in multiples of."""


Order = Any
"""The order of an epoch, of a kind that the samples themselves know; an int64 array for most."""

Fill = Callable[[slice, list[NDArray[Any]]], None]
"""Changes arrays in place to the inputs and targets at the next places of an epoch."""


class Batch(NamedTuple):
    """Samples on the device: `rows` of an epoch, their inputs (n, n_0) and targets (n, n_L)."""

    rows: slice
    inputs: Array
    targets: Array


class Loader(ABC):
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

    def draw_order(self, generator: np.random.Generator) -> Order:
        """Return a random order for an epoch."""
        return generator.permutation(self.n_samples)

    @abstractmethod
    def batches(self, order: Order | None = None, first: int = 0) -> Iterator[Batch]:
        """Yield samples in an order, or in their own; each batch is gone with the next one.

        Those before the place `first` in that order are left out.
        """


class ResidentLoader(Loader):
    """Samples that live on the device, in `inputs` (n, n_0) and `targets` (n, n_L)."""

    def __init__(self, network: Network, inputs: Array, targets: Array, n_rows: int) -> None:
        super().__init__(inputs.shape[0], n_rows)
        self._backend = network.backend
        self.inputs, self.targets = network.as_kept(inputs), network.as_matrix(targets)

    def batches(self, order: Order | None = None, first: int = 0) -> Iterator[Batch]:
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


class TransferLoader(Loader):
    """Samples on their way to the device chunk by chunk.

    Parameters
    ----------
    network : Network
        The network that goes through them.
    n_samples, n_rows : int
        How many there are, and how many are in a batch.
    streamed : str
        Why they do not live on the device.
    """

    streamed: str

    def __init__(self, network: Network, n_samples: int, n_rows: int, streamed: str) -> None:
        super().__init__(n_samples, n_rows)
        self.streamed = streamed
        self._widths = (network.n_inputs, network.n_outputs)
        self._line = ALIGNMENT // network.dtype.itemsize
        # A batch has room for its inputs and its targets, wherever in a line they begin.
        self._rooms = [
            (self.n_rows * width // self._line + 2) * self._line for width in self._widths
        ]
        n_batches = -(-self.n_samples // self.n_rows)
        fitting = CHUNK_BYTES // (sum(self._rooms) * network.dtype.itemsize)
        self._chunk_rows = self.n_rows * min(n_batches, max(1, fitting))
        size = self._chunk_rows // self.n_rows * sum(self._rooms)
        self._buffers = [network.backend.make_staging_buffer(size, network.dtype) for _ in range(2)]

    def batches(self, order: Order | None = None, first: int = 0) -> Iterator[Batch]:
        chunks = self._sent_chunks(order, first)
        try:
            ahead = next(chunks, None)
            while ahead is not None:
                # The next chunk is to be on its way before this one is computed with.
                (buffer, chunk), ahead = ahead, next(chunks, None)
                numbers = buffer.receive()
                for rows, at in self._layout(chunk):
                    yield Batch(rows, *self._views(numbers, rows, at, order is not None))
        finally:
            for buffer in self._buffers:
                buffer.wait()

    @abstractmethod
    def _begin(self, order: Order | None, first: int) -> Fill:
        """Return what gathers an epoch's samples from place `first` on."""

    def _sent_chunks(
        self, order: Order | None, first: int
    ) -> Iterator[tuple[StagingBuffer, slice]]:
        """Gather the samples chunk by chunk, and yield the buffer that each was sent through."""
        fill = self._begin(order, first)
        chunks = row_blocks(self.n_samples, self._chunk_rows, first)
        for buffer, chunk in zip(cycle(self._buffers), chunks, strict=False):
            buffer.wait()
            for rows, at in self._layout(chunk):
                fill(rows, self._views(buffer.host, rows, at, order is not None))
            buffer.send(at + sum(self._rooms))
            yield buffer, chunk

    def _layout(self, chunk: slice) -> Iterator[tuple[slice, int]]:
        """Yield the rows of each batch of a chunk, and where in the buffer its room begins."""
        for start in range(chunk.start, chunk.stop, self.n_rows):
            at = (start - chunk.start) // self.n_rows * sum(self._rooms)
            yield slice(start, min(start + self.n_rows, chunk.stop)), at

    def _views(self, numbers: Array, rows: slice, at: int, gathered: bool) -> list[Any]:
        """Return a batch's inputs and targets in the numbers of a buffer, on either side."""
        views = []
        for width, room in zip(self._widths, self._rooms, strict=True):
            shape = (rows.stop - rows.start, width)
            # Resident samples are gathered to the beginning of a line, or are where they are.
            start = at if gathered else at + rows.start * shape[1] % self._line
            views.append(numbers[start : start + shape[0] * shape[1]].reshape(shape))
            at += room
        return views


class HostLoader(TransferLoader):
    """Samples that stay where they are, on the host or on the disk, in any order."""

    def __init__(
        self, network: Network, inputs: Matrix, targets: Matrix, n_rows: int, streamed: str
    ) -> None:
        super().__init__(network, inputs.shape[0], n_rows, streamed)
        self._sources = (inputs, targets)

    def _begin(self, order: Order | None, first: int) -> Fill:
        def fill(rows: slice, outs: list[NDArray[Any]]) -> None:
            for source, out in zip(self._sources, outs, strict=True):
                _gather(source, rows if order is None else order[rows], out)

        return fill


class StreamLoader(TransferLoader):
    """Samples that come in chunks, shuffled as `gpunn.training.streams` says."""

    def __init__(self, network: Network, known: Known, n_rows: int) -> None:
        check_room(network, known)
        super().__init__(network, known.n_samples, n_rows, "they come in chunks")
        self._network, self._known = network, known

    def draw_order(self, generator: np.random.Generator) -> BlockOrder:
        return BlockOrder(generator)

    def batches(self, order: Order | None = None, first: int = 0) -> Iterator[Batch]:
        if first < self.n_samples:
            yield from super().batches(order, first)
        elif order is not None:
            # The next epoch draws from where this one, of which nothing is left, would have ended.
            draw_blocks(self._known, order)

    def _begin(self, order: Order | None, first: int) -> Fill:
        return _BlockReader(read_blocks(self._network, self._known, order, first)).fill


class _BlockReader:
    """Hands out blocks of samples in other numbers."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks, self._at = blocks, 0
        self._block: Block | None = None

    def fill(self, rows: slice, outs: list[NDArray[Any]]) -> None:
        done, n_rows = 0, rows.stop - rows.start
        while done < n_rows:
            if self._block is None or self._at == len(self._block.places):
                self._block, self._at = next(self._blocks), 0
            index = self._block.places[self._at : self._at + n_rows - done]
            for source, out in zip(self._block[:2], outs, strict=True):
                _gather(source, index, out[done : done + len(index)])
            done, self._at = done + len(index), self._at + len(index)


def _gather(source: Matrix, rows: slice | NDArray[np.int64], out: NDArray[Any]) -> None:
    """Change `out` in place to some rows, in its dtype."""
    if isinstance(source, np.ndarray) and not isinstance(rows, slice):
        flags = source.flags
        if flags.c_contiguous and flags.aligned and source.dtype == out.dtype:
            # Straight into place. With any other source, it would first copy the whole of that.
            np.take(source, rows, axis=0, out=out, mode="clip")
            return
    out[...] = source[rows]


class Given(NamedTuple):
    """Samples as they were given, checked: a stream, or inputs and targets where they are.

    With them, the names of the inputs' columns; None if they have none.
    """

    n_samples: int
    stream: Known | None
    names: list[str] | None
    inputs: Any = None
    targets: Any = None

    def fingerprints(self, backend: Backend, prefix: str = "") -> dict[str, Any]:
        """Return in plain values what tells the samples from others."""
        if self.stream is None:
            return {
                f"{prefix}inputs": array_fingerprint(backend, self.inputs),
                f"{prefix}targets": array_fingerprint(backend, self.targets),
            }
        return {
            f"{prefix}samples": self.n_samples,
            f"{prefix}stream": self.stream.fingerprint,
            f"{prefix}buffer rows": self.stream.stream.buffer_rows,
        }


def check_given(
    network: Network, X: ArrayLike | Stream, y: ArrayLike | None, names: list[str] | None
) -> Given:
    """Check samples against a network.

    Parameters
    ----------
    network : Network
        Which is to go through them.
    X : array_like, shape (n, n_0), or Stream
        Inputs.
    y : array_like, shape (n,) or (n, n_L), or None
        Class numbers or targets.
    names : list of str or None
        The names that the columns of a data frame must have, if known.

    Returns
    -------
    Given
        The samples.

    Raises
    ------
    ShapeError, DataError
        If they do not fit it, or the columns have other names or another order.
    ParameterError
        If `y` is missing, or there beside a stream.
    """
    if isinstance(X, Stream):
        if y is not None:
            raise ParameterError("a Stream has its own targets: leave out y")
        known = look_at(network, X, names)
        return Given(known.n_samples, known, known.names)
    if y is None:
        raise ParameterError("y is missing: give it, because only a Stream has its own targets")
    came = column_names(X)
    check_names(names, came)
    inputs, targets = checked_samples(network, X, y)
    return Given(inputs.shape[0], None, came, inputs, targets)


def loader_of_given(network: Network, given: Given, n_rows: int, reserved: int) -> Loader:
    """Return samples for a network to go through; see `make_loader`."""
    if given.stream is not None:
        return StreamLoader(network, given.stream, n_rows)
    return make_loader(network, given.inputs, given.targets, n_rows, reserved)


def make_loader(
    network: Network, inputs: Array, targets: Array, n_rows: int, reserved: int
) -> Loader:
    """Return samples for a network to go through, on its device if they fit there.

    Parameters
    ----------
    network : Network
        Whose `check_samples` they have passed.
    inputs, targets : array or Rows, shape (n, n_0) and (n, n_L)
        The samples. What is on the device already stays there.
    n_rows : int
        How many to a batch.
    reserved : int
        Bytes of the device that are needed for other things.

    Returns
    -------
    Loader
        The samples.

    Raises
    ------
    OutOfMemoryError
        If there is not even room for the chunks of streamed samples.
    """
    if is_on_host(inputs) and is_on_host(targets):
        copied = [a for a in (inputs, targets) if not _is_in_place(network, a)]
        n_bytes = sum(a.size for a in copied) * network.dtype.itemsize
        if why := why_too_large(network.backend, n_bytes, reserved):
            return HostLoader(network, inputs, targets, n_rows, why)
    return ResidentLoader(network, inputs, targets, n_rows)


def _is_in_place(network: Network, array: object) -> bool:
    """Whether an array can be learnt from as it is."""
    if not network.backend.owns(array):
        return False
    as_it_is = network.work_dtype == array.dtype == network.dtype
    return bool(as_it_is and array.flags.c_contiguous)
