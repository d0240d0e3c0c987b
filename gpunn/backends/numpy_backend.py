"""The CPU, through NumPy and SciPy's BLAS.

Products go through the BLAS that it is given, SciPy's by default; see `gpunn.backends.numpy_blas`.

Elementwise formulas run over pieces that fit a core's L2 cache; see `gpunn.backends.numpy_pieces`.
"""

# The contract takes any device's arrays, and this device its own alone.
# mypy: disable-error-code="override"

import math
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.activations import Activation
from gpunn.backends.base import ALL, AdamStep, Array, Backend, Number
from gpunn.backends.fused import FusedModel, Sequencer
from gpunn.backends.numpy_blas import Blas
from gpunn.backends.numpy_online import NumpySequencer
from gpunn.backends.numpy_pieces import (
    PIECE,
    ScratchMemory,
    Tile,
    aligned,
    blocks_of_rows,
    pieces,
    spread,
    tiles,
)
from gpunn.backends.sparse_rows import SparseRows
from gpunn.backends.staging import StagingBuffer
from gpunn.host_memory import MemoryInfo, free_memory, host_memory
from gpunn.losses import Loss

GOLDEN = 0x9E3779B1
"""A prime near 2^32 over the golden ratio, which scatters consecutive numbers."""

# An inner function evaluates its annotations whenever it is made, and this one costs nothing.
Values = NDArray[Any]


@cache
def _places() -> NDArray[np.uint32]:
    return np.arange(PIECE, dtype=np.uint32)


@lru_cache(maxsize=256)
def _number(value: float, code: str) -> NDArray[Any]:
    # NumPy converts Python's numbers at every call, and these only once.
    number = np.array(value, code)
    number.flags.writeable = False
    return number


@lru_cache(maxsize=64)
def _ones(code: str, n: int) -> NDArray[Any]:
    ones = np.ones(n, code)
    ones.flags.writeable = False
    return ones


class NumpyBackend(Backend):
    """The contract of `Backend` on the CPU."""

    name = "cpu"
    multiplies_sparse_rows = True

    def __init__(self, blas: Blas | None = None) -> None:
        self._blas = blas or Blas()
        self._memory = ScratchMemory()

    def share_cores(self, n_processes: int) -> None:
        """Use only so many threads that several processes on this machine have cores enough."""
        self._blas.share_cores(n_processes)

    @property
    def blas_path(self) -> str | None:
        """The file of the library that multiplies, if it has threads to set."""
        return self._blas.path

    def asarray(self, host: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
        return np.ascontiguousarray(host, dtype=dtype)

    def contiguous(self, array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
        return np.ascontiguousarray(array, dtype)

    def to_host(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.copy()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return aligned(math.prod(shape), np.dtype(dtype)).reshape(shape)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def copy_into(self, source: NDArray[Any], out: NDArray[Any]) -> None:
        np.copyto(out, source)

    def make_staging_buffer(self, size: int, dtype: DTypeLike) -> StagingBuffer:
        buffer = StagingBuffer(0, dtype)
        buffer.host = self.empty((size,), dtype)
        return buffer

    def owns(self, array: object) -> TypeGuard[Array]:
        return type(array) is np.ndarray

    def gemm(
        self,
        a: Any,
        b: Any,
        out: NDArray[Any],
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        factors = transpose_a, transpose_b, alpha, beta
        if type(out) is np.ndarray and self._blas.multiply(a, b, out, *factors):
            return
        if isinstance(a, SparseRows):
            self._add_sums(a, b, out, alpha, beta)
        elif isinstance(b, SparseRows):
            self._add_gradient(a, b, out, alpha, beta)
        else:
            super().gemm(
                a,
                b,
                out,
                transpose_a=transpose_a,
                transpose_b=transpose_b,
                alpha=alpha,
                beta=beta,
            )

    def _add_sums(
        self, rows: SparseRows, weights: Values, out: Values, alpha: float, beta: float
    ) -> None:
        rows.add_sums(weights, out, alpha=alpha, beta=beta)

    def _add_gradient(
        self, delta: Values, rows: SparseRows, out: Values, alpha: float, beta: float
    ) -> None:
        rows.add_gradient(delta, out, alpha=alpha, beta=beta)

    def _check_matrices(self, a: NDArray[Any], b: NDArray[Any], out: NDArray[Any]) -> None:
        # The usual case in a third of the time, five times a step; the contract knows all others.
        usual = (
            type(a) is type(b) is type(out) is np.ndarray
            and a.ndim == b.ndim == out.ndim == 2
            and a.dtype == b.dtype == out.dtype
            and out.dtype.char in "fd"
            and a.flags.c_contiguous
            and b.flags.c_contiguous
            and out.flags.c_contiguous
        )
        if not usual:
            super()._check_matrices(a, b, out)

    def _gemm(
        self,
        a: NDArray[Any],
        b: NDArray[Any],
        out: NDArray[Any],
        transpose_a: bool,
        transpose_b: bool,
        alpha: float,
        beta: float,
    ) -> None:
        self._blas.gemm(a, b, out, transpose_a, transpose_b, alpha, beta)

    def sum_rows(
        self, a: NDArray[Any], out: NDArray[Any], *, alpha: float = 1.0, beta: float = 0.0
    ) -> None:
        if a.size == 0:  # which SciPy's wrapper refuses
            np.multiply(out, beta, out=out) if beta != 0 else out.fill(0)
            return
        # The product a^T 1, which BLAS accumulates into `out`. The ones are made for the next power
        # of two, so that few sizes are remembered; a.T is column-major, and no copy.
        ones = _ones(a.dtype.char, 1 << (a.shape[0] - 1).bit_length())[: a.shape[0]]
        self._blas.scipys.gemv[out.dtype.char](alpha, a.T, ones, beta, out, overwrite_y=1)

    def take_rows(self, source: NDArray[Any], indices: NDArray[Any], out: NDArray[Any]) -> None:
        # With mode="raise" NumPy would gather into a buffer first; indices are known to be good.
        source.take(indices, axis=0, out=out, mode="clip")

    def update_blocks(
        self, weights: NDArray[Any], delta: NDArray[Any], inputs: Any
    ) -> Iterable[tuple[slice, NDArray[Any]]]:
        blocks = blocks_of_rows(weights.shape[0], weights.nbytes)
        # Several threads lose more on the smaller products than they gain from the cache, but those
        # with sparse samples go unit by unit anyway.
        whole = self._blas.n_threads > 1 and not isinstance(inputs, SparseRows)
        if len(blocks) == 1 or whole:
            return ((ALL, delta),)
        return ((rows, self._columns_of(delta, rows)) for rows in blocks)

    def _columns_of(self, delta: NDArray[Any], columns: slice) -> NDArray[Any]:
        """Return some columns as a matrix, in scratch memory."""
        part = delta[:, columns]
        out = self._memory(part.shape, part.dtype, 5)
        np.copyto(out, part)
        return out

    def activate(self, z: NDArray[Any], bias: NDArray[Any] | None, activation: Activation) -> None:
        def work(tile: Tile) -> None:
            piece = z[tile]
            if bias is not None:
                np.add(piece, bias[tile[1]], out=piece)
            if activation.elementwise:
                activation.forward(piece, self._scratch(piece))
            else:
                a = self._columns(piece, 1)
                activation.forward(a, self._scratch(a))
                np.copyto(piece, a.T)

        spread(tiles(*z.shape, not activation.elementwise), work, self._blas)

    def activation_backward(
        self, delta: NDArray[Any], a: NDArray[Any], activation: Activation
    ) -> None:
        def work(tile: Tile) -> None:
            piece, outputs = delta[tile], a[tile]
            if activation.elementwise:
                activation.backward(piece, outputs, self._scratch(piece))
            else:
                columns = self._columns(piece, 1)
                activation.backward(columns, self._columns(outputs, 2), self._scratch(columns))
                np.copyto(piece, columns.T)

        spread(tiles(*a.shape, not activation.elementwise), work, self._blas)

    def loss_backward(
        self,
        z: NDArray[Any],
        bias: NDArray[Any] | None,
        targets: NDArray[Any],
        activation: Activation,
        loss: Loss,
        row_losses: NDArray[Any],
        row_weights: NDArray[Any] | None = None,
        scale: Number = 1.0,
    ) -> None:
        # Infinite numbers of a training that diverges make NaN, which is found in its loss.
        with np.errstate(over="ignore", invalid="ignore"):
            for rows, _ in tiles(*z.shape, True):
                piece, errors = z[rows], row_losses[rows]
                weights = None if row_weights is None else row_weights[rows]
                a, t = self._columns(piece, 1, bias), self._columns(targets[rows], 2)
                delta = self._output_columns(a, t, activation, loss, errors, weights)
                if weights is not None:
                    np.multiply(delta, weights, delta)
                if scale != 1:
                    np.multiply(delta, scale, delta)
                np.copyto(piece, delta.T)

    def _output_columns(
        self,
        a: NDArray[Any],
        t: NDArray[Any],
        activation: Activation,
        loss: Loss,
        errors: NDArray[Any],
        weights: NDArray[Any] | None,
    ) -> NDArray[Any]:
        """Return dE/dz for `a`, which holds z and becomes the outputs; matrices are (n_L, n).

        The samples' weights are in the errors, but not in what is returned.
        """
        n_outputs, n_samples = a.shape
        out = self._memory(a.shape, a.dtype, 3)
        scratch = self._memory((n_outputs + 1, n_samples), a.dtype, 0)
        sums = self._memory((n_samples,), np.dtype(np.float64), 4)
        if not loss.fused:
            activation.forward(a, scratch[:-1])
        loss.add_losses(a, t, errors, out, scratch, sums, weights)
        loss.derivative(a, t, out, scratch)
        if loss.mean_over_outputs:
            np.multiply(out, loss.share(n_outputs), out)
        if not loss.fused:
            activation.backward(out, a, scratch[:-1])
        return out

    def make_sequencer(self, n_rows: int, model: FusedModel) -> Sequencer | None:
        return NumpySequencer(self._blas, n_rows, model)

    def axpby(self, source: NDArray[Any], out: NDArray[Any], *, alpha: float, beta: float) -> None:
        code = out.dtype.char
        factor, factor_out = _number(alpha, code), _number(beta, code)

        def work(x: Values, y: Values) -> None:
            if beta == 0:
                np.multiply(x, factor, y)
                return
            if alpha != 1:
                x = np.multiply(x, factor, self._scratch(x))
            if beta != 1:
                np.multiply(y, factor_out, y)
            np.add(y, x, y)

        self._piece_by_piece(work, source, out)

    def add_squares(self, a: NDArray[Any], out: NDArray[Any], *, alpha: float) -> None:
        flat = a.reshape(-1)
        out += alpha * float(self._blas.dot[flat.dtype.char](flat, flat))

    def dropout(
        self,
        a: NDArray[Any],
        *,
        dropout_rate: float,
        scale: float,
        key: int,
        first: int = 0,
        skipped: int = 0,
    ) -> None:
        if skipped:
            for row, numbers in enumerate(a):
                place = first + row * (numbers.size + skipped)
                self.dropout(numbers, dropout_rate=dropout_rate, scale=scale, key=key, first=place)
            return
        flat, limit = a.reshape(-1), np.uint32(int(dropout_rate * 2**32))

        def work(piece: slice) -> None:
            numbers = flat[piece]
            h = self._memory((numbers.size,), np.dtype(np.uint32), 5)
            shifted = self._memory((numbers.size,), np.dtype(np.uint32), 6)
            # The place in the array, scattered; then the finalizer of MurmurHash3.
            start = ((first + piece.start) * GOLDEN + key) % 2**32
            np.multiply(_places()[: numbers.size], np.uint32(GOLDEN), h)
            np.add(h, np.uint32(start), h)
            for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
                np.right_shift(h, np.uint32(shift), shifted)
                np.bitwise_xor(h, shifted, h)
                np.multiply(h, np.uint32(factor), h)
            kept = self._scratch(numbers)
            np.greater_equal(h, limit, kept)
            np.multiply(kept, _number(scale, kept.dtype.char), kept)
            np.multiply(numbers, kept, numbers)

        spread(pieces(a.size), work, self._blas)

    def adam_update(
        self,
        parameter: NDArray[Any],
        gradient: NDArray[Any],
        first_moment: NDArray[Any],
        second_moment: NDArray[Any],
        step: AdamStep,
    ) -> None:
        code = parameter.dtype.char
        size, keep1, keep2, least, decay = (_number(value, code) for value in step)

        def work(w: Values, g: Values, m: Values, v: Values) -> None:
            scratch = self._scratch(w)
            if step.weight_decay != 0:
                g = np.add(g, np.multiply(w, decay, scratch), scratch)
            np.multiply(m, keep1, m)
            np.add(m, g, m)
            square = np.multiply(g, g, scratch)
            np.multiply(v, keep2, v)
            np.add(v, square, v)
            np.sqrt(v, scratch)
            np.add(scratch, least, scratch)
            np.divide(m, scratch, scratch)
            np.multiply(scratch, size, scratch)
            np.subtract(w, scratch, w)

        self._piece_by_piece(work, parameter, gradient, first_moment, second_moment)

    def synchronize(self) -> None:
        pass

    def memory_info(self) -> MemoryInfo:
        return MemoryInfo(free_memory(), host_memory().total)

    def describe(self) -> str:
        return f"cpu (NumPy {np.__version__})"

    def _piece_by_piece(self, work: Callable[..., None], *arrays: NDArray[Any]) -> None:
        """Do elementwise work on arrays of one shape."""
        size = arrays[0].size
        if size <= PIECE:
            with np.errstate(over="ignore"):
                work(*arrays)
            return
        flat = [array.reshape(-1) for array in arrays]
        spread(
            pieces(size),
            lambda piece: work(*(array[piece] for array in flat)),
            self._blas,
        )

    def _scratch(self, like: NDArray[Any], slot: int = 0) -> NDArray[Any]:
        """Return this thread's scratch memory in the shape and dtype of an array."""
        return self._memory(like.shape, like.dtype, slot)

    def _columns(
        self, rows: NDArray[Any], slot: int, bias: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return samples, plus a bias, as columns in scratch memory; see `gpunn.activations`."""
        columns = self._memory(rows.shape[::-1], rows.dtype, slot)
        if bias is None:
            np.copyto(columns, rows.T)
        else:
            np.add(rows.T, bias[:, np.newaxis], columns)
        return columns
