"""Samples that come in chunks, in one order only: data larger than the memory.

A `Stream` can be gone through again and again, but not asked for its row number seven. So an epoch
shuffles it block by block: the rows are cut into blocks of `Stream.buffer_rows` consecutive ones,
and each block is brought into a random order before it is learnt from. Where the first block ends
is drawn for each epoch, so that two rows closer than a block meet in one block in some epochs. The
order depends on the random generator and on nothing else, neither on how the rows came in chunks
nor on the device. A stream of at most `buffer_rows` samples is one block: it has the very order
that samples in memory have.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.data.labels import TargetRows
from gpunn.data.matrices import Matrix, is_on_host
from gpunn.errors import DataError, GpunnError, OutOfMemoryError, ParameterError
from gpunn.network import Network
from gpunn.network.frames import column_names
from gpunn.network.names import check_names
from gpunn.ranges import check_count
from gpunn.training.memory import why_no_room
from gpunn.training.samples import checked_samples

SAMPLED_ROWS = 4096
"""So many rows tell streams of a known length from others, where nothing else does."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Samples in chunks, for `fit` and `evaluate` in place of `X`.

    Parameters
    ----------
    chunks : iterable of (X, y)
        Inputs (n, n_0), scaled, with their class numbers (n,) or targets (n, n_L), in chunks of any
        size. It is read once in each epoch, and must give the same rows in the same order each
        time. At most two chunks are in memory at a time. A generator can be read only once, so it
        is refused: give an object whose ``__iter__`` is a generator.
    n_samples : int, optional
        Number of samples in all chunks. Without it, the stream is read once before the training, to
        count and check them.
    buffer_rows : int
        Number of consecutive rows that are held in memory, in the network's dtype, and shuffled
        together.
    fingerprint : str, optional
        A text that identifies these samples when a training is resumed, such as the hash of a file.
        The default is a hash of all samples, or of the first 4,096 if `n_samples` is given.

    Raises
    ------
    ParameterError
        If `chunks` can be read only once, or a number is not a whole number above 0.
    """

    chunks: Iterable[tuple[ArrayLike, ArrayLike]]
    n_samples: int | None = None
    buffer_rows: int = 65_536
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.chunks, Iterator):
            raise ParameterError(
                "chunks can be read only once, but each epoch reads them: give an object whose "
                "__iter__ starts again each time, such as a class whose __iter__ is a generator"
            )
        if not isinstance(self.chunks, Iterable):
            raise ParameterError(f"chunks must be iterable, got {type(self.chunks).__name__}")
        check_count("buffer_rows", self.buffer_rows)
        if self.n_samples is not None:
            check_count("n_samples", self.n_samples)


class Known(NamedTuple):
    """A stream that has been looked at.

    Attributes
    ----------
    stream : Stream
        The stream.
    n_samples : int
        How many samples it has.
    fingerprint : str
        What tells it from others.
    names : list of str or None
        The column names of the last chunk that was looked at, if that is a data frame; every other
        data frame among the chunks has the same.
    """

    stream: Stream
    n_samples: int
    fingerprint: str
    names: list[str] | None


class Chunk(NamedTuple):
    """Samples of a chunk, checked, and its column names if it has some."""

    inputs: Matrix
    targets: Matrix
    names: list[str] | None


class BlockOrder(NamedTuple):
    """An epoch's order, which is drawn block by block as it is needed."""

    generator: np.random.Generator


class Block(NamedTuple):
    """Samples of an epoch that are in memory: rows `places` of both matrices, in that order."""

    inputs: Matrix
    targets: Matrix
    places: NDArray[np.int64]


def look_at(network: Network, stream: Stream, names: list[str] | None = None) -> Known:
    """Check a stream as far as it must be gone through before a training, and count it.

    Parameters
    ----------
    network : Network
        Which is to go through it.
    stream : Stream
        The samples.
    names : list of str or None
        The names that its columns must have, if known.

    Raises
    ------
    DataError, ShapeError
        If it is empty, or a chunk does not fit the network; the message says which.
    """
    wanted = SAMPLED_ROWS if stream.n_samples is not None else None
    digests, n_seen = (hashlib.sha256(), hashlib.sha256()), 0
    came: list[str] | None = None
    for inputs, targets, came in _checked_chunks(network, stream, names):  # noqa: B007
        rows = slice(None if wanted is None else wanted - n_seen)
        # One hash each, or it would depend on how the rows come in chunks.
        for digest, part in zip(digests, (inputs, targets), strict=True):
            values = np.ascontiguousarray(part[rows], network.dtype)
            digest.update(values.reshape(-1).view(np.uint8).data)
        n_seen += inputs.shape[0]
        if wanted is not None and n_seen >= wanted:
            break
    if not n_seen:
        raise DataError("the stream has no samples: its chunks must hold at least one")
    fingerprint = stream.fingerprint or " ".join(d.hexdigest()[:16] for d in digests)
    return Known(stream, stream.n_samples or n_seen, fingerprint, came)


def read_blocks(
    network: Network, known: Known, order: BlockOrder | None, first: int
) -> Iterator[Block]:
    """Yield the samples of an epoch from place `first` on, in an order or in their own.

    Each block is gone with the next one.

    Raises
    ------
    DataError, ShapeError
        If a chunk does not fit the network, or there are not as many samples as were counted.
    """
    rows = _Rows(network, known)
    if order is None:
        for inputs, targets in rows.chunks(first):
            yield Block(inputs, targets, np.arange(len(inputs)))
        return
    buffer = _Buffer(network, min(known.stream.buffer_rows, known.n_samples))
    for start, stop, index in _drawn(known, order):
        if stop > first:
            buffer.clear()
            for inputs, targets in rows.chunks(start, stop):
                buffer.add(inputs, targets)
            yield Block(buffer.inputs, buffer.targets(network), index[max(0, first - start) :])


def check_room(network: Network, known: Known) -> None:
    """Raise unless the host has room for what is shuffled together.

    Raises
    ------
    OutOfMemoryError
        If it has not.
    """
    n_rows = min(known.stream.buffer_rows, known.n_samples)
    n_bytes = n_rows * (network.n_inputs + network.n_outputs) * network.dtype.itemsize
    if why := why_no_room(n_bytes):
        raise OutOfMemoryError(
            f"{n_rows:,} rows cannot be shuffled together: {why}; give the stream fewer buffer_rows"
        )


def draw_blocks(known: Known, order: BlockOrder) -> None:
    """Draw an epoch's order, and leave it at that."""
    for _ in _drawn(known, order):
        pass


def _drawn(known: Known, order: BlockOrder) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield where each block begins and ends, and the order of its rows."""
    for start, stop in pairwise(_cuts(known, order.generator)):
        yield start, stop, order.generator.permutation(stop - start)


def _cuts(known: Known, generator: np.random.Generator) -> Iterator[int]:
    """Yield where an epoch's blocks begin and end."""
    n_samples, n_rows = known.n_samples, known.stream.buffer_rows
    yield 0
    if n_samples > n_rows:
        yield from range(int(generator.integers(1, n_rows + 1)), n_samples, n_rows)
    yield n_samples


class _Rows:
    """The rows of a stream, once through, as many as are wanted at a time."""

    def __init__(self, network: Network, known: Known) -> None:
        self._n_samples, self._at, self._start = known.n_samples, 0, 0
        self._chunks = _checked_chunks(network, known.stream, network.feature_names)
        self._chunk: Chunk | None = None

    def chunks(self, start: int, stop: int | None = None) -> Iterator[tuple[Matrix, Matrix]]:
        """Yield rows `start` to `stop`, by default all; those before are passed over."""
        stop = self._n_samples if stop is None else stop
        self._at = max(self._at, start)
        while self._at < stop:
            inputs, targets, _ = self._holding(self._at)
            rows = slice(self._at - self._start, min(stop - self._start, len(inputs)))
            self._at = self._start + rows.stop
            if self._at == self._n_samples:
                self._check_end(len(inputs))
            yield inputs[rows], _part(targets, rows)

    def _holding(self, row: int) -> Chunk:
        """Return the chunk that holds a row, whose first one is `_start`."""
        while self._chunk is None or row >= self._start + len(self._chunk.inputs):
            self._start += 0 if self._chunk is None else len(self._chunk.inputs)
            self._chunk = next(self._chunks, None)
            if self._chunk is None:
                raise DataError(
                    f"the stream ended after {self._start:,} samples, but it should have "
                    f"{self._n_samples:,}; it must give the same samples each time"
                )
        return self._chunk

    def _check_end(self, n_rows: int) -> None:
        if self._start + n_rows > self._n_samples or next(self._chunks, None) is not None:
            raise DataError(
                f"the stream goes on after its {self._n_samples:,} samples; it must give the same "
                "samples each time"
            )


class _Buffer:
    """Room for so many samples."""

    def __init__(self, network: Network, n_rows: int) -> None:
        self._inputs = np.empty((n_rows, network.n_inputs), network.dtype)
        self._targets: NDArray[Any] | None = None
        self._n = 0

    def clear(self) -> None:
        self._n = 0

    def add(self, inputs: Matrix, targets: Matrix) -> None:
        """Copy samples to the end."""
        # Class numbers take less room than what is made of them.
        values = targets.labels if isinstance(targets, TargetRows) else np.asarray(targets)
        if self._targets is None:
            dtype = np.int64 if isinstance(targets, TargetRows) else self._inputs.dtype
            self._targets = np.empty((len(self._inputs), *values.shape[1:]), dtype)
        if self._targets.ndim != values.ndim:
            raise DataError("the stream has class numbers in some chunks and targets in others")
        rows = slice(self._n, self._n + len(inputs))
        self._inputs[rows], self._targets[rows] = inputs, values
        self._n = rows.stop

    @property
    def inputs(self) -> NDArray[Any]:
        return self._inputs[: self._n]

    def targets(self, network: Network) -> Matrix:
        values = np.empty(0) if self._targets is None else self._targets[: self._n]
        if values.ndim > 1:
            return values
        return TargetRows(network.scaling, values, network.n_outputs, network.dtype)


def _part(targets: Matrix, rows: slice) -> Matrix:
    return targets.part(rows) if isinstance(targets, TargetRows) else targets[rows]


def _checked_chunks(network: Network, stream: Stream, names: list[str] | None) -> Iterator[Chunk]:
    """Yield the chunks that are not empty, checked against the network and these column names.

    Without names, the columns must be named as those of the first chunk that has names.
    """
    n_seen = 0
    for number, chunk in enumerate(stream.chunks, 1):
        where = f"chunk {number} of the stream, from sample {n_seen:,} on"
        try:
            X, y = chunk
        except (TypeError, ValueError):
            raise DataError(
                f"{where}: expected a pair (X, y), got {type(chunk).__name__}"
            ) from None
        if _is_empty(X) and _is_empty(y):
            continue
        try:
            came = column_names(X)
            check_names(names, came)
            inputs, targets = checked_samples(network, X, y)
        except GpunnError as error:
            raise type(error)(f"{where}: {error}") from error
        if not (is_on_host(inputs) and is_on_host(targets)):
            raise DataError(f"{where}: is on the device; give arrays on the host")
        names = names or came
        yield Chunk(inputs, targets, came)
        n_seen += inputs.shape[0]


def _is_empty(values: ArrayLike) -> bool:
    return isinstance(values, Sized) and len(values) == 0
