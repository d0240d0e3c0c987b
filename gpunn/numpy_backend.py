"""The CPU, through NumPy and SciPy's BLAS.

Every product goes through SciPy's BLAS; see `gpunn.numpy_blas`.

Elementwise formulas run over pieces that fit a core's L2 cache, so that a formula of several NumPy
calls reads and writes main memory once.
"""

import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.activations import Activation
from gpunn.backend import Backend, Connections, MemoryInfo, Sequencer
from gpunn.losses import Loss
from gpunn.numpy_blas import Blas
from gpunn.numpy_online import NumpySequencer

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

PIECE = 32_768
"""Numbers in a piece: three arrays of it, in float64, fit an L2 cache of one mebibyte."""

WORTH_SHARING = 8
"""Fewer pieces than this are done before another thread has heard of them."""

Tile = tuple[slice, slice]
_Item = TypeVar("_Item")


@lru_cache(maxsize=256)
def _tiles(n_rows: int, n_columns: int, whole_rows: bool) -> tuple[Tile, ...]:
    """Cut a matrix into tiles of at most `PIECE` numbers, or at least one row each."""
    width = n_columns if whole_rows else min(n_columns, PIECE)
    height = max(1, PIECE // max(1, width))
    return tuple(
        (slice(i, i + height), slice(j, j + width))
        for i in range(0, n_rows, height)
        for j in range(0, n_columns, max(1, width))
    )


@cache
def _pool(n_threads: int) -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(n_threads, thread_name_prefix="gpunn")


def _do_all(items: Sequence[_Item], work: Callable[[_Item], None]) -> None:
    # What NumPy ignores is set for each thread by itself.
    with np.errstate(over="ignore"):
        for item in items:
            work(item)


@lru_cache(maxsize=256)
def _pieces(size: int) -> tuple[slice, ...]:
    """Cut a flat array into pieces of at most `PIECE` numbers."""
    return tuple(slice(start, start + PIECE) for start in range(0, size, PIECE))


class NumpyBackend(Backend):
    """The contract of `Backend` on the CPU."""

    name = "cpu"

    def __init__(self) -> None:
        self._blas = Blas()
        self._local = threading.local()

    def asarray(self, host: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
        return np.ascontiguousarray(host, dtype=dtype)

    def to_host(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.copy()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def copy_into(self, source: NDArray[Any], out: NDArray[Any]) -> None:
        np.copyto(out, source)

    def owns(self, array: object) -> bool:
        return type(array) is np.ndarray

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
        ones = np.ones(a.shape[0], a.dtype)
        self._blas.gemv[out.dtype.char](alpha, a.T, ones, beta, out, overwrite_y=1)

    def take_rows(self, source: NDArray[Any], indices: NDArray[Any], out: NDArray[Any]) -> None:
        # With mode="raise" NumPy would gather into a buffer first; indices are known to be good.
        np.take(source, indices, axis=0, out=out, mode="clip")

    def activate(self, z: NDArray[Any], bias: NDArray[Any] | None, activation: Activation) -> None:
        def work(tile: Tile) -> None:
            piece = z[tile]
            if bias is not None:
                np.add(piece, bias[tile[1]], out=piece)
            activation.forward(piece)

        self._spread(_tiles(*z.shape, not activation.elementwise), work)

    def backpropagate_activation(
        self, delta: NDArray[Any], a: NDArray[Any], activation: Activation
    ) -> None:
        def work(tile: Tile) -> None:
            piece = a[tile]
            activation.backward(delta[tile], piece, self._scratch(piece))

        self._spread(_tiles(*a.shape, not activation.elementwise), work)

    def output_delta(
        self,
        z: NDArray[Any],
        bias: NDArray[Any] | None,
        targets: NDArray[Any],
        activation: Activation,
        loss: Loss,
        row_losses: NDArray[Any],
    ) -> None:
        with np.errstate(over="ignore"):
            for rows, _ in _tiles(*z.shape, True):
                tile, t = z[rows], targets[rows]
                if bias is not None:
                    np.add(tile, bias, out=tile)
                if loss.fused:
                    row_losses[rows] += loss.of_rows(tile, t)
                    activation.forward(tile)
                    np.copyto(tile, loss.derivative(tile, t))
                else:
                    self._output_delta(tile, t, activation, loss, row_losses[rows])

    def _output_delta(
        self,
        z: NDArray[Any],
        targets: NDArray[Any],
        activation: Activation,
        loss: Loss,
        row_losses: NDArray[Any],
    ) -> None:
        share = loss.share(z.shape[1])
        activation.forward(z)
        row_losses += loss.of_rows(z, targets)
        delta = loss.derivative(z, targets)
        if share != 1.0:
            np.multiply(delta, share, out=delta)
        activation.backward(delta, z, self._scratch(z))
        np.copyto(z, delta)

    def make_sequencer(
        self,
        n_rows: int,
        hidden: Connections,
        top: Connections,
        loss: Loss,
        *,
        textbook_rule: bool,
    ) -> Sequencer | None:
        return NumpySequencer(self._blas, n_rows, hidden, top, loss, textbook_rule)

    def sgd_update(
        self,
        parameter: NDArray[Any],
        gradient: NDArray[Any],
        velocity: NDArray[Any],
        *,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        whole = [array.reshape(-1) for array in (parameter, gradient, velocity)]

        def work(piece: slice) -> None:
            w, g, v = (array[piece] for array in whole)
            step = self._scratch(w)
            if weight_decay == 0:
                np.multiply(g, -learning_rate, out=step)
            else:
                np.multiply(w, weight_decay, out=step)
                np.add(step, g, out=step)
                np.multiply(step, -learning_rate, out=step)
            np.multiply(v, momentum, out=v)
            np.add(v, step, out=v)
            if nesterov:
                np.add(w, step, out=w)
                np.multiply(v, momentum, out=step)
                np.add(w, step, out=w)
            else:
                np.add(w, v, out=w)

        self._spread(_pieces(parameter.size), work)

    def adam_update(
        self,
        parameter: NDArray[Any],
        gradient: NDArray[Any],
        first_moment: NDArray[Any],
        second_moment: NDArray[Any],
        *,
        step_size: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        whole = [array.reshape(-1) for array in (parameter, gradient, first_moment, second_moment)]

        def work(piece: slice) -> None:
            w, g, m, v = (array[piece] for array in whole)
            step, square = self._scratch(w), self._scratch(w, 1)
            if weight_decay != 0:
                np.multiply(w, weight_decay, out=step)
                np.add(g, step, out=step)
                g = step
            np.multiply(g, g, out=square)
            np.multiply(square, 1 - beta2, out=square)
            np.multiply(v, beta2, out=v)
            np.add(v, square, out=v)
            np.multiply(g, 1 - beta1, out=step)
            np.multiply(m, beta1, out=m)
            np.add(m, step, out=m)
            np.sqrt(v, out=step)
            np.add(step, epsilon, out=step)
            np.divide(m, step, out=step)
            np.multiply(step, step_size, out=step)
            np.subtract(w, step, out=w)

        self._spread(_pieces(parameter.size), work)

    def synchronize(self) -> None:
        pass

    def memory_info(self) -> MemoryInfo:
        import psutil

        memory = psutil.virtual_memory()
        return MemoryInfo(free=memory.available, total=memory.total)

    def describe(self) -> str:
        return f"cpu (NumPy {np.__version__})"

    def _spread(self, tiles: Sequence[_Item], work: Callable[[_Item], None]) -> None:
        """Do the work on all tiles, on as many threads as BLAS has; NumPy releases the GIL."""
        if len(tiles) < WORTH_SHARING:
            _do_all(tiles, work)
            return
        n_threads = min(self._blas.n_threads, len(tiles))
        others = [
            _pool(n_threads - 1).submit(_do_all, tiles[k::n_threads], work)
            for k in range(1, n_threads)
        ]
        _do_all(tiles[::n_threads], work)
        for other in others:
            other.result()

    def _scratch(self, like: NDArray[Any], slot: int = 0) -> NDArray[Any]:
        """Return this thread's scratch memory in the shape and dtype of an array."""
        memory: dict[tuple[str, int], NDArray[Any]] = self._local.__dict__.setdefault("scratch", {})
        key = (like.dtype.char, slot)
        if key not in memory or memory[key].size < like.size:
            memory[key] = np.empty(max(PIECE, like.size), like.dtype)
        return memory[key][: like.size].reshape(like.shape)
