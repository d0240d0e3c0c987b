"""The CPU, through NumPy and SciPy's BLAS.

Every product goes through SciPy's BLAS, which can accumulate into its output (`beta`). NumPy's
wheel carries a second BLAS with threads of its own; a loop that used both would have two pools of
spinning threads fighting for the same cores.

Elementwise formulas run over pieces that fit a core's L2 cache, so that a formula of several NumPy
calls reads and writes main memory once.
"""

import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.activations import Activation
from gpunn.backend import Backend, Connections, MemoryInfo
from gpunn.losses import Loss
from gpunn.numpy_online import learn_in_order

PIECE = 32_768
"""Numbers in a piece: three arrays of it, in float64, fit an L2 cache of one mebibyte."""

Tile = tuple[slice, slice]


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


def _pieces(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield the same piece of several contiguous arrays of one size."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PIECE):
        yield tuple(array[start : start + PIECE] for array in flat)


class NumpyBackend(Backend):
    """The contract of `Backend` on the CPU."""

    name = "cpu"

    def __init__(self) -> None:
        # Imported here because scipy.linalg costs more than all the rest of `import gpunn`.
        from scipy.linalg import blas

        self._gemm_of = {"f": blas.sgemm, "d": blas.dgemm}
        self._gemv_of = {"f": blas.sgemv, "d": blas.dgemv}
        self._ger_of = {"f": blas.sger, "d": blas.dger}
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
        if out.size == 0:
            return
        # BLAS is column-major, where out^T = alpha op(b)^T op(a)^T + beta out^T needs no copies.
        b, transpose_b = (b.T, transpose_b) if b.flags.c_contiguous else (b, not transpose_b)
        a, transpose_a = (a.T, transpose_a) if a.flags.c_contiguous else (a, not transpose_a)
        self._gemm_of[out.dtype.char](
            alpha, b, a, beta, out.T, transpose_b, transpose_a, overwrite_c=1
        )

    def sum_rows(
        self, a: NDArray[Any], out: NDArray[Any], *, alpha: float = 1.0, beta: float = 0.0
    ) -> None:
        if a.size == 0:  # which SciPy's wrapper refuses
            np.multiply(out, beta, out=out) if beta != 0 else out.fill(0)
            return
        ones = np.ones(a.shape[0], a.dtype)
        self._gemv_of[out.dtype.char](alpha, a.T, ones, beta, out, overwrite_y=1)

    def take_rows(self, source: NDArray[Any], indices: NDArray[Any], out: NDArray[Any]) -> None:
        # With mode="raise" NumPy would gather into a buffer first; indices are known to be good.
        np.take(source, indices, axis=0, out=out, mode="clip")

    def activate(self, z: NDArray[Any], bias: NDArray[Any] | None, activation: Activation) -> None:
        with np.errstate(over="ignore"):
            for rows, columns in _tiles(*z.shape, not activation.elementwise):
                tile = z[rows, columns]
                if bias is not None:
                    np.add(tile, bias[columns], out=tile)
                activation.forward(tile)

    def backpropagate_activation(
        self, delta: NDArray[Any], a: NDArray[Any], activation: Activation
    ) -> None:
        for tile in _tiles(*a.shape, not activation.elementwise):
            piece = a[tile]
            activation.backward(delta[tile], piece, self._scratch(piece))

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
                    row_losses[rows] += loss.value(tile, t).sum(axis=1, dtype=np.float64)
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
        share = 1 / z.shape[1] if loss.mean_over_outputs else 1.0
        activation.forward(z)
        row_losses += share * loss.value(z, targets).sum(axis=1, dtype=np.float64)
        delta = loss.derivative(z, targets)
        if share != 1.0:
            np.multiply(delta, share, out=delta)
        activation.backward(delta, z, self._scratch(z))
        np.copyto(z, delta)

    def learn_in_order(
        self,
        z: NDArray[Any],
        products: NDArray[Any],
        deltas: NDArray[Any],
        targets: NDArray[Any],
        hidden: Connections,
        top: Connections,
        loss: Loss,
        rate: float,
        *,
        textbook_rule: bool,
        row_losses: NDArray[Any],
        outputs: NDArray[Any] | None,
    ) -> bool:
        if not hidden.activation.elementwise:
            return False
        with np.errstate(over="ignore"):
            learn_in_order(
                self._gemv_of[z.dtype.char],
                self._ger_of[z.dtype.char],
                z,
                products,
                deltas,
                targets,
                hidden,
                top,
                loss,
                rate,
                textbook_rule=textbook_rule,
                row_losses=row_losses,
                outputs=outputs,
            )
        return True

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
        for w, g, v in _pieces(parameter, gradient, velocity):
            step = self._scratch(w)
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
        for w, gradient_piece, m, v in _pieces(parameter, gradient, first_moment, second_moment):
            g, square = self._scratch(w), self._scratch(w, 1)
            np.multiply(w, weight_decay, out=g)
            np.add(g, gradient_piece, out=g)
            np.multiply(g, g, out=square)
            np.multiply(g, 1 - beta1, out=g)
            np.multiply(m, beta1, out=m)
            np.add(m, g, out=m)
            np.multiply(square, 1 - beta2, out=square)
            np.multiply(v, beta2, out=v)
            np.add(v, square, out=v)
            np.sqrt(v, out=g)
            np.add(g, epsilon, out=g)
            np.divide(m, g, out=g)
            np.multiply(g, step_size, out=g)
            np.subtract(w, g, out=w)

    def synchronize(self) -> None:
        pass

    def memory_info(self) -> MemoryInfo:
        import psutil

        memory = psutil.virtual_memory()
        return MemoryInfo(free=memory.available, total=memory.total)

    def describe(self) -> str:
        return f"cpu (NumPy {np.__version__})"

    def _scratch(self, like: NDArray[Any], slot: int = 0) -> NDArray[Any]:
        """Return this thread's scratch memory in the shape and dtype of an array."""
        memory: dict[tuple[str, int], NDArray[Any]] = self._local.__dict__.setdefault("scratch", {})
        key = (like.dtype.char, slot)
        if key not in memory or memory[key].size < like.size:
            memory[key] = np.empty(max(PIECE, like.size), like.dtype)
        return memory[key][: like.size].reshape(like.shape)
