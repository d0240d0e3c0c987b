"""One NVIDIA GPU, through CuPy.

Products are cuBLAS calls, in full float32 or float64 unless another precision was asked for: each
call says what it computes in, so that neither ``CUPY_TF32`` nor other users of CuPy's cuBLAS handle
change that. Everything else is one kernel launch a formula, made from the CUDA expressions in the
records of `gpunn.activations` and `gpunn.losses`. No kernel adds floating-point numbers in an order
that depends on how threads are scheduled, so that the same run gives the same bits.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeGuard

import cupy
import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.activations import SOFTMAX, Activation
from gpunn.backends.base import Backend
from gpunn.backends.cupy_batches import CupyBatchLearner
from gpunn.backends.cupy_online import CupySequencer
from gpunn.backends.cupy_staging import CupyStagingBuffer
from gpunn.backends.fused import BatchLearner, FusedModel, Sequencer
from gpunn.backends.staging import StagingBuffer
from gpunn.errors import OutOfMemoryError, ParameterError
from gpunn.host_memory import MemoryInfo, in_gib
from gpunn.losses import Loss

Array = Any
"""``cupy.ndarray``, which has no type to be checked."""

ENOUGH_THREADS = 2**18
"""Threads that keep a GPU's memory busy when each adds up numbers one after the other."""

FEW_ROWS = 64
"""Rows that one thread adds up in about the time of another launch."""

# The row formulas below use one thread a row: output layers are narrow, and a fixed order of
# additions keeps results the same from run to run.

_SOFTMAX_ROW = """
    T largest = row[0];
    for (int k = 1; k < n_columns; ++k) { if (!(row[k] <= largest)) largest = row[k]; }
    T total = T(0);
    for (int k = 0; k < n_columns; ++k) { row[k] = exp(row[k] - largest); total += row[k]; }
    for (int k = 0; k < n_columns; ++k) { row[k] /= total; }
"""

_SOFTMAX_BACKWARD_ROW = """
    T mean = T(0);
    for (int k = 0; k < n_columns; ++k) { mean += delta[k] * a[k]; }
    for (int k = 0; k < n_columns; ++k) { delta[k] = (delta[k] - mean) * a[k]; }
"""


@cache
def _activate_kernel(activation: Activation, biases: bool) -> Any:
    return cupy.ElementwiseKernel(
        "T bias" if biases else "",
        "T z",
        f"const T x = {'z + bias' if biases else 'z'}; z = {activation.cuda_forward};",
        f"gpunn_activate_{activation.name}",
    )


@cache
def _softmax_kernel(biases: bool) -> Any:
    add = "for (int k = 0; k < n_columns; ++k) { row[k] += bias[k]; }" if biases else ""
    return cupy.ElementwiseKernel(
        "raw T bias, int32 n_columns" if biases else "int32 n_columns",
        "raw T z",
        f"T* row = &z[(ptrdiff_t)i * n_columns]; {add} {_SOFTMAX_ROW}",
        "gpunn_activate_softmax",
    )


@cache
def _backward_kernel(activation: Activation) -> Any:
    return cupy.ElementwiseKernel(
        "T a",
        "T delta",
        f"delta *= ({activation.cuda_derivative});",
        f"gpunn_backward_{activation.name}",
    )


@cache
def _softmax_backward_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "raw T activations, int32 n_columns",
        "raw T deltas",
        f"""
        const T* a = &activations[(ptrdiff_t)i * n_columns];
        T* delta = &deltas[(ptrdiff_t)i * n_columns];
        {_SOFTMAX_BACKWARD_ROW}
        """,
        "gpunn_backward_softmax",
    )


def _fused_row(activation: Activation, loss: Loss) -> str:
    """Value from z, then the activation, then dE/dz, for one row of a cross-entropy."""
    forward = (
        _SOFTMAX_ROW
        if activation is SOFTMAX
        else f"""
        for (int k = 0; k < n_columns; ++k) {{
            const T x = row[k]; row[k] = {activation.cuda_forward};
        }}"""
    )
    log_sum = """
        T top = row[0];
        for (int k = 1; k < n_columns; ++k) { if (!(row[k] <= top)) top = row[k]; }
        T sum = T(0);
        for (int k = 0; k < n_columns; ++k) { sum += exp(row[k] - top); }
        const T log_sum = top + log(sum);
        T t_sum = T(0);
        for (int k = 0; k < n_columns; ++k) { t_sum += target[k]; }
    """
    return f"""
        {log_sum if activation is SOFTMAX else ""}
        for (int k = 0; k < n_columns; ++k) {{
            const T x = row[k]; const T t = target[k];
            error += {loss.cuda_value};
        }}
        {forward}
        for (int k = 0; k < n_columns; ++k) {{
            const T a = row[k]; const T t = target[k];
            row[k] = {loss.cuda_derivative};
        }}
    """


def _elementwise_row(activation: Activation, loss: Loss) -> str:
    """Activation, value and dE/dz in one pass over a row."""
    return f"""
        for (int k = 0; k < n_columns; ++k) {{
            const T x = row[k]; const T t = target[k];
            const T a = {activation.cuda_forward};
            error += share * ({loss.cuda_value});
            row[k] = share * ({loss.cuda_derivative}) * ({activation.cuda_derivative});
        }}
    """


def _softmax_row(loss: Loss) -> str:
    """Softmax, value and dE/dz through its Jacobian, for a loss that is not fused with it."""
    derivative = f"share * ({loss.cuda_derivative})"
    return f"""
        {_SOFTMAX_ROW}
        T mean = T(0);
        for (int k = 0; k < n_columns; ++k) {{
            const T a = row[k]; const T t = target[k];
            error += share * ({loss.cuda_value});
            mean += {derivative} * a;
        }}
        for (int k = 0; k < n_columns; ++k) {{
            const T a = row[k]; const T t = target[k];
            row[k] = ({derivative} - mean) * a;
        }}
    """


@cache
def _output_kernel(activation: Activation, loss: Loss, biases: bool, weighted: bool) -> Any:
    if loss.fused:
        body = _fused_row(activation, loss)
    elif activation is SOFTMAX:
        body = _softmax_row(loss)
    else:
        body = _elementwise_row(activation, loss)
    add = "for (int k = 0; k < n_columns; ++k) { row[k] += bias[k]; }" if biases else ""
    weigh = """
        error *= row_weights[i];
        for (int k = 0; k < n_columns; ++k) { row[k] *= row_weights[i]; }
    """
    return cupy.ElementwiseKernel(
        ("raw T bias, " if biases else "")
        + ("raw T row_weights, " if weighted else "")
        + "raw T targets, int32 n_columns, T share",
        "raw T z, raw float64 row_losses",
        f"""
        T* row = &z[(ptrdiff_t)i * n_columns];
        const T* target = &targets[(ptrdiff_t)i * n_columns];
        double error = 0;
        {add}
        {body}
        {weigh if weighted else ""}
        row_losses[i] += error;
        """,
        f"gpunn_output_{activation.name}_{loss.name}",
    )


@cache
def _column_sums_kernel(accumulate: bool) -> Any:
    before = "beta * out" if accumulate else "T(0)"
    return cupy.ElementwiseKernel(
        "raw T matrix, int64 n_rows, int64 n_columns, T alpha, T beta",
        "T out",
        f"""
        T total = T(0);
        for (ptrdiff_t r = 0; r < n_rows; ++r) {{ total += matrix[r * n_columns + i]; }}
        out = alpha * total + {before};
        """,
        "gpunn_sum_rows",
    )


@cache
def _part_sums_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "raw T matrix, int64 n_rows, int64 n_columns, int64 n_parts",
        "T out",
        """
        T total = T(0);
        for (ptrdiff_t r = i / n_columns; r < n_rows; r += n_parts) {
            total += matrix[r * n_columns + i % n_columns];
        }
        out = total;
        """,
        "gpunn_sum_parts",
    )


@cache
def _squares_kernel(squared: bool) -> Any:
    term = "number * number" if squared else "number"
    return cupy.ElementwiseKernel(
        "raw T numbers, int64 n, int64 n_parts",
        "float64 out",
        f"""
        double total = 0;
        for (ptrdiff_t k = i; k < n; k += n_parts) {{
            const double number = numbers[k];
            total += {term};
        }}
        out = total;
        """,
        "gpunn_squares",
    )


@cache
def _dropout_kernel() -> Any:
    # The place in the array, scattered; then the finalizer of MurmurHash3.
    return cupy.ElementwiseKernel(
        "int64 key, int64 limit, T scale",
        "T a",
        """
        unsigned int h = (unsigned int)i * 0x9E3779B1u + (unsigned int)key;
        h ^= h >> 16; h *= 0x85EBCA6Bu;
        h ^= h >> 13; h *= 0xC2B2AE35u;
        h ^= h >> 16;
        a *= h >= (unsigned int)limit ? scale : T(0);
        """,
        "gpunn_dropout",
    )


@cache
def _add_number_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "float64 number, float64 alpha", "float64 out", "out += alpha * number;", "gpunn_add_number"
    )


@cache
def _take_rows_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "raw T source, raw int64 indices, int64 n_columns",
        "T out",
        "out = source[indices[i / n_columns] * n_columns + i % n_columns];",
        "gpunn_take_rows",
    )


@cache
def _axpby_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "T source, T alpha, T beta",
        "T out",
        "out = beta == T(0) ? alpha * source : alpha * source + beta * out;",
        "gpunn_axpby",
    )


@cache
def _adam_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "T gradient, T step_size, T beta1, T beta2, T epsilon, T weight_decay",
        "T w, T m, T v",
        """
        const T g = weight_decay * w + gradient;
        m = beta1 * m + g;
        v = beta2 * v + g * g;
        w -= step_size * (m / (sqrt(v) + epsilon));
        """,
        "gpunn_adam_update",
    )


def _check_known(activation: Activation) -> None:
    """Raise unless there is a kernel for an activation; softmax's is written out above."""
    if activation is SOFTMAX:
        return
    if not activation.elementwise:
        raise ParameterError(
            f"a GPU has no kernel for the activation {activation.name!r}, which ties the units of "
            "a layer together: of those only softmax can be computed there; use device 'cpu'"
        )
    if not (activation.cuda_forward and activation.cuda_derivative):
        raise ParameterError(
            f"the activation {activation.name!r} has no CUDA expressions, which a GPU needs: give "
            "its record cuda_forward and cuda_derivative, or use device 'cpu'"
        )


def _compute_type(dtype: np.dtype[Any], precision: str) -> int:
    """Return cuBLAS's name for what a product of that dtype is computed in."""
    cublas = cupy.cuda.cublas
    if dtype.char == "d":
        return int(cublas.CUBLAS_COMPUTE_64F)
    return int(
        {
            "fp32": cublas.CUBLAS_COMPUTE_32F,
            "tf32": cublas.CUBLAS_COMPUTE_32F_FAST_TF32,
            "bf16": cublas.CUBLAS_COMPUTE_32F_FAST_16BF,
        }[precision]
    )


class CupyBackend(Backend):
    """The contract of `Backend` on one GPU.

    Parameters
    ----------
    device_id : int
        The number of the GPU, as CUDA counts those it may see.
    precision : {"fp32", "tf32", "bf16"}
        What the factors of a float32 product are rounded to.
    """

    def __init__(self, device_id: int = 0, precision: str = "fp32") -> None:
        self.device_id, self.precision = device_id, precision
        self.name = f"cuda:{device_id}"
        self._device = cupy.cuda.Device(device_id)

    def asarray(self, host: NDArray[Any], dtype: DTypeLike | None = None) -> Array:
        contiguous = np.ascontiguousarray(host, dtype=dtype)
        with self._device, self._room_for(contiguous.nbytes):
            array = cupy.empty(contiguous.shape, contiguous.dtype)
            # Not cupy.asarray, which makes a pinned copy of the whole first.
            array.set(contiguous)
            # Pinned memory would be read after this returned.
            cupy.cuda.get_current_stream().synchronize()
            return array

    def contiguous(self, array: Array, dtype: DTypeLike) -> Array:
        with self._device:
            return array.astype(dtype, order="C", copy=False)

    def to_host(self, array: Array) -> NDArray[Any]:
        with self._device:
            host: NDArray[Any] = cupy.asnumpy(array)
            return host

    def make_staging_buffer(self, size: int, dtype: DTypeLike) -> StagingBuffer:
        return CupyStagingBuffer(self, self._device, size, np.dtype(dtype))

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        with self._device, self._room_for(math.prod(shape) * np.dtype(dtype).itemsize):
            return cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        with self._device, self._room_for(math.prod(shape) * np.dtype(dtype).itemsize):
            return cupy.zeros(shape, dtype)

    def copy_into(self, source: Array, out: Array) -> None:
        with self._device:
            out[...] = source

    def owns(self, array: object) -> TypeGuard[Any]:
        return isinstance(array, cupy.ndarray) and array.device.id == self.device_id

    def _gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool,
        transpose_b: bool,
        alpha: float,
        beta: float,
    ) -> None:
        if out.size == 0:
            return
        # cuBLAS is column-major, where out^T = alpha op(b)^T op(a)^T + beta out^T needs no copies.
        m, n = out.shape
        k = a.shape[0] if transpose_a else a.shape[1]
        leading_a, transpose_a = _leading_dimension(a, transpose_a)
        leading_b, transpose_b = _leading_dimension(b, transpose_b)
        cublas = cupy.cuda.cublas
        runtime = cupy.cuda.runtime
        number = runtime.CUDA_R_32F if out.dtype.char == "f" else runtime.CUDA_R_64F
        factors = np.array([alpha, beta], out.dtype)
        with self._device, _plain_handle() as handle:
            cublas.gemmEx(
                handle,
                cublas.CUBLAS_OP_T if transpose_b else cublas.CUBLAS_OP_N,
                cublas.CUBLAS_OP_T if transpose_a else cublas.CUBLAS_OP_N,
                n,
                m,
                k,
                factors.ctypes.data,
                b.data.ptr,
                number,
                leading_b,
                a.data.ptr,
                number,
                leading_a,
                factors.ctypes.data + factors.itemsize,
                out.data.ptr,
                number,
                n,
                _compute_type(out.dtype, self.precision),
                cublas.CUBLAS_GEMM_DEFAULT,
            )

    def sum_rows(self, a: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        n_rows, n_columns = a.shape
        n_parts = min(math.isqrt(n_rows), ENOUGH_THREADS // max(1, n_columns))
        with self._device:
            if n_rows > FEW_ROWS and n_parts > 1:
                parts = self.empty((n_parts, n_columns), a.dtype)
                _part_sums_kernel()(a, n_rows, n_columns, n_parts, parts)
                a, n_rows = parts, n_parts
            _column_sums_kernel(beta != 0)(a, n_rows, n_columns, alpha, beta, out)

    def take_rows(self, source: Array, indices: Array, out: Array) -> None:
        with self._device:
            _take_rows_kernel()(source, indices, source.shape[1], out)

    def activate(self, z: Array, bias: Array | None, activation: Activation) -> None:
        biases = () if bias is None else (bias,)
        _check_known(activation)
        with self._device:
            if activation is SOFTMAX:
                _softmax_kernel(bool(biases))(*biases, z.shape[1], z, size=z.shape[0])
            else:
                _activate_kernel(activation, bool(biases))(*biases, z)

    def activation_backward(self, delta: Array, a: Array, activation: Activation) -> None:
        _check_known(activation)
        with self._device:
            if activation is SOFTMAX:
                _softmax_backward_kernel()(a, a.shape[1], delta, size=a.shape[0])
            else:
                _backward_kernel(activation)(a, delta)

    def loss_backward(
        self,
        z: Array,
        bias: Array | None,
        targets: Array,
        activation: Activation,
        loss: Loss,
        row_losses: Array,
        row_weights: Array | None = None,
    ) -> None:
        biases = () if bias is None else (bias,)
        weights = () if row_weights is None else (row_weights,)
        n_rows, n_columns = z.shape
        share = loss.share(n_columns)
        _check_known(activation)
        with self._device:
            _output_kernel(activation, loss, bool(biases), bool(weights))(
                *biases, *weights, targets, n_columns, share, z, row_losses, size=n_rows
            )

    def make_sequencer(self, n_rows: int, model: FusedModel) -> Sequencer | None:
        if not CupySequencer.suits(model):
            return None
        return CupySequencer(self, self._device, n_rows, model)

    def make_batch_learner(self, batch_size: int, model: FusedModel) -> BatchLearner | None:
        return CupyBatchLearner.make(self, self._device, batch_size, model)

    def axpby(self, source: Array, out: Array, *, alpha: float, beta: float) -> None:
        with self._device:
            _axpby_kernel()(source, alpha, beta, out)

    def add_squares(self, a: Array, out: Array, *, alpha: float) -> None:
        numbers, squared = a, True
        with self._device:
            while squared or numbers.size > 1:
                # Each thread adds up a few, in an order that does not depend on the others.
                n_parts = -(-numbers.size // FEW_ROWS)
                parts = self.empty((n_parts,), np.float64)
                _squares_kernel(squared)(numbers, numbers.size, n_parts, parts)
                numbers, squared = parts, False
            _add_number_kernel()(numbers, alpha, out)

    def dropout(self, a: Array, *, dropout_rate: float, scale: float, key: int) -> None:
        with self._device:
            _dropout_kernel()(int(key), int(dropout_rate * 2**32), scale, a)

    def adam_update(
        self,
        parameter: Array,
        gradient: Array,
        first_moment: Array,
        second_moment: Array,
        *,
        step_size: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        with self._device:
            _adam_kernel()(
                gradient,
                step_size,
                beta1,
                beta2,
                epsilon,
                weight_decay,
                parameter,
                first_moment,
                second_moment,
            )

    def synchronize(self) -> None:
        with self._device:
            cupy.cuda.get_current_stream().synchronize()

    def memory_info(self) -> MemoryInfo:
        with self._device:
            free, total = cupy.cuda.runtime.memGetInfo()
            # What CuPy's pool holds but nobody uses is free for us.
            return MemoryInfo(free + cupy.get_default_memory_pool().free_bytes(), total)

    @contextmanager
    def _room_for(self, n_bytes: int) -> Iterator[None]:
        """Turn CuPy's error for memory that is not there into one that says what is."""
        try:
            yield
        except cupy.cuda.memory.OutOfMemoryError as error:
            free = self.memory_info().free
            raise OutOfMemoryError(
                f"{self.name} has {in_gib(free)} free, and {in_gib(n_bytes)} more "
                "are needed: use a smaller batch or fewer hidden units"
            ) from error

    def describe(self) -> str:
        properties = cupy.cuda.runtime.getDeviceProperties(self.device_id)
        products = "" if self.precision == "fp32" else f", products in {self.precision}"
        return f"{self.name} ({properties['name'].decode()}, CuPy {cupy.__version__}{products})"


def _leading_dimension(matrix: Array, transpose: bool) -> tuple[int, bool]:
    """Return BLAS's leading dimension of a matrix, and whether BLAS must transpose it.

    A row-major matrix is its own transpose to column-major BLAS; `transpose` already counts that.
    """
    if matrix.flags.c_contiguous:
        return max(1, matrix.shape[1]), transpose
    return max(1, matrix.shape[0]), not transpose


@contextmanager
def _plain_handle() -> Iterator[int]:
    """Give CuPy's cuBLAS handle for the current stream, without TF32 and with host factors."""
    cublas = cupy.cuda.cublas
    handle = cupy.cuda.device.get_cublas_handle()
    math_mode, pointer_mode = cublas.getMathMode(handle), cublas.getPointerMode(handle)
    cublas.setMathMode(handle, cublas.CUBLAS_DEFAULT_MATH)
    cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
    try:
        yield handle
    finally:
        cublas.setMathMode(handle, math_mode)
        cublas.setPointerMode(handle, pointer_mode)
