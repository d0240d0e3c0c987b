"""One NVIDIA GPU, through CuPy.

Products are cuBLAS calls, in full float32 or float64 unless another precision was asked for: each
call says what it computes in, so that neither ``CUPY_TF32`` nor other users of CuPy's cuBLAS handle
change that. Everything else is one kernel launch a formula, made from the CUDA expressions in the
records of `gpunn.activations` and `gpunn.losses`. No kernel adds floating-point numbers in an order
that depends on how threads are scheduled, so that the same run gives the same bits.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeGuard

import cupy
import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.activations import SOFTMAX, Activation
from gpunn.backends.base import AdamStep, Backend, LayerParams, Number
from gpunn.backends.cupy_batches import CupyBatchLearner
from gpunn.backends.cupy_blas import BFLOAT16, SIDE_WORKSPACE_BYTES, WORKSPACE_BYTES, Cublas
from gpunn.backends.cupy_elementwise import (
    adam_kernel,
    add_number_kernel,
    axpby_kernel,
    column_sums_kernel,
    convert_kernel,
    dropout_kernel,
    dropout_part_kernel,
    part_sums_kernel,
    scale_kernel,
    squares_kernel,
    take_rows_kernel,
)
from gpunn.backends.cupy_formulas import (
    activate_kernel,
    backward_kernel,
    check_known,
    output_kernel,
    softmax_backward_kernel,
    softmax_kernel,
)
from gpunn.backends.cupy_hidden import CupyHiddenPass
from gpunn.backends.cupy_online import CupySequencer, rows_in_block
from gpunn.backends.cupy_ranks import make_nccl_sum
from gpunn.backends.cupy_recorder import RECORDING_BYTES, CupyRecorder
from gpunn.backends.cupy_staging import CupyStagingBuffer
from gpunn.backends.cupy_thin import CupyThinTop, top_bytes
from gpunn.backends.fused import (
    BatchLearner,
    FusedModel,
    HiddenPass,
    Sequencer,
    StepRecorder,
    StepShape,
    ThinTop,
    UpdateRule,
)
from gpunn.backends.rank_sum import RankLinks, RankSum
from gpunn.backends.staging import StagingBuffer
from gpunn.errors import OutOfMemoryError
from gpunn.host_memory import MemoryInfo, in_gib
from gpunn.losses import Loss

Array = Any
"""``cupy.ndarray``, which has no type to be checked."""

ENOUGH_THREADS = 2**18
"""Threads that keep a GPU's memory busy when each adds up numbers one after the other."""

FEW_ROWS = 64
"""Rows that one thread adds up in about the time of another launch."""


class _OfThread(threading.local):
    """What each thread has of its own: what it computes must not be overwritten by another."""

    def __init__(self) -> None:
        self.beside = False
        self.side: Any = None
        self.cublas: dict[bool, Cublas] = {}
        self.scratch: dict[tuple[bool, str, str], Any] = {}


def _is_there(number: Number) -> bool:
    """Whether a number is on the device."""
    return isinstance(number, cupy.ndarray)


class CupyBackend(Backend):
    """The contract of `Backend` on one GPU.

    Parameters
    ----------
    device_id : int
        The number of the GPU, as CUDA counts those it may see.
    precision : {"fp32", "tf32", "bf16"}
        What the factors of a float32 product are rounded to.
    """

    records_steps = True

    def __init__(self, device_id: int = 0, precision: str = "fp32") -> None:
        self.device_id, self.precision = device_id, precision
        self.name = f"cuda:{device_id}"
        self._device = cupy.cuda.Device(device_id)
        self._of_thread = _OfThread()

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

    def work_dtype(self, dtype: DTypeLike) -> np.dtype[Any]:
        rounds = self.precision == "bf16" and np.dtype(dtype) == np.float32
        return BFLOAT16 if rounds else np.dtype(dtype)

    def copy_into(self, source: Array, out: Array) -> None:
        with self._device:
            if source.dtype == out.dtype:
                out[...] = source
            else:
                convert_kernel(out.dtype == BFLOAT16)(source, out)

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
        beta: Number,
    ) -> None:
        if out.size == 0:
            return
        with self._device:
            if _is_there(beta):
                # cuBLAS takes its factors from the host: this one is a pass of its own.
                scale_kernel()(beta, out)
                beta = 1.0
            self._cublas.multiply(a, b, out, transpose_a, transpose_b, alpha, beta, self.precision)

    @property
    def _cublas(self) -> Cublas:
        mine, beside = self._of_thread.cublas, self._of_thread.beside
        if beside not in mine:
            n_bytes = SIDE_WORKSPACE_BYTES if beside else WORKSPACE_BYTES
            with self._room_for(n_bytes):
                mine[beside] = Cublas(n_bytes)
        return mine[beside]

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return memory that a method may use until it returns; it is kept for the next call."""
        key, size = (self._of_thread.beside, name, np.dtype(dtype).char), math.prod(shape)
        memory = self._of_thread.scratch.get(key)
        if memory is None or memory.size < size:
            self._of_thread.scratch[key] = memory = self.empty((size,), dtype)
        return memory[:size].reshape(shape)

    def kept_memory(self) -> list[Any]:
        """Return this thread's memory that its calls use beside their arguments."""
        workspaces = [cublas.workspace for cublas in self._of_thread.cublas.values()]
        return [*workspaces, *self._of_thread.scratch.values()]

    def sum_rows(self, a: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        n_rows, n_columns = a.shape
        n_parts = min(math.isqrt(n_rows), ENOUGH_THREADS // max(1, n_columns))
        with self._device:
            if n_rows > FEW_ROWS and n_parts > 1:
                parts = self._scratch("sums", (n_parts, n_columns), out.dtype)
                part_sums_kernel(a.dtype == BFLOAT16)(a, n_rows, n_columns, n_parts, parts)
                a, n_rows = parts, n_parts
            column_sums_kernel(beta != 0, a.dtype == BFLOAT16)(
                a, n_rows, n_columns, alpha, beta, out
            )

    def take_rows(self, source: Array, indices: Array, out: Array) -> None:
        with self._device:
            take_rows_kernel()(source, indices, source.shape[1], out)

    def activate(self, z: Array, bias: Array | None, activation: Activation) -> None:
        biases = () if bias is None else (bias,)
        check_known(activation)
        with self._device:
            if activation is SOFTMAX:
                softmax_kernel(bool(biases))(*biases, z.shape[1], z, size=z.shape[0])
            else:
                activate_kernel(activation, bool(biases), z.dtype == BFLOAT16)(*biases, z)

    def activation_backward(self, delta: Array, a: Array, activation: Activation) -> None:
        check_known(activation)
        with self._device:
            if activation is SOFTMAX:
                softmax_backward_kernel()(a, a.shape[1], delta, size=a.shape[0])
            else:
                backward_kernel(activation, a.dtype == BFLOAT16)(a, delta)

    def loss_backward(
        self,
        z: Array,
        bias: Array | None,
        targets: Array,
        activation: Activation,
        loss: Loss,
        row_losses: Array,
        row_weights: Array | None = None,
        scale: Number = 1.0,
    ) -> None:
        biases = () if bias is None else (bias,)
        weights = () if row_weights is None else (row_weights,)
        n_rows, n_columns = z.shape
        share = loss.share(n_columns)
        check_known(activation)
        with self._device:
            output_kernel(activation, loss, bool(biases), bool(weights), _is_there(scale))(
                *biases, *weights, targets, n_columns, share, scale, z, row_losses, size=n_rows
            )

    def do_both(self, work: Callable[[], None], beside: Callable[[], None]) -> None:
        with self._device:
            main = cupy.cuda.get_current_stream()
            if not main.is_capturing():
                work()
                self._do_beside(beside)
                return
            # In a recording the two are branches, which a GPU may follow at the same time.
            if self._of_thread.side is None:
                events = (cupy.cuda.Event(disable_timing=True) for _ in "ab")
                self._of_thread.side = (cupy.cuda.Stream(non_blocking=True), *events)
            side, begun, done = self._of_thread.side
            begun.record(main)
            with side:
                side.wait_event(begun)
                self._do_beside(beside)
                done.record(side)
            work()
            main.wait_event(done)

    def _do_beside(self, work: Callable[[], None]) -> None:
        """Do work with memory of its own for what its calls use beside their arguments."""
        self._of_thread.beside = True
        try:
            work()
        finally:
            self._of_thread.beside = False

    def rows_in_block(self, model: FusedModel) -> int:
        return rows_in_block(model, self._device)

    def make_sequencer(self, n_rows: int, model: FusedModel) -> Sequencer | None:
        if not CupySequencer.suits(model):
            return None
        return CupySequencer(self, self._device, n_rows, model)

    def make_batch_learner(self, batch_size: int, model: FusedModel) -> BatchLearner | None:
        return CupyBatchLearner.make(self, self._device, batch_size, model)

    def make_thin_top(
        self, n_rows: int, model: FusedModel, rule: UpdateRule, dropout_rate: float
    ) -> ThinTop | None:
        return CupyThinTop.make(self, self._device, n_rows, model, rule, dropout_rate)

    def make_hidden_pass(
        self, n_rows: int, layer: LayerParams, rule: UpdateRule, dropout_rate: float
    ) -> HiddenPass | None:
        return CupyHiddenPass.make(self, self._device, n_rows, layer, rule, dropout_rate)

    def make_recorder(self, shape: StepShape) -> StepRecorder | None:
        return CupyRecorder(self, self._device, shape)

    def make_rank_sum(self, ranks: RankLinks) -> RankSum | None:
        return make_nccl_sum(self._device, ranks)

    def axpby(self, source: Array, out: Array, *, alpha: Number, beta: Number) -> None:
        with self._device:
            axpby_kernel()(source, alpha, beta, out)

    def add_squares(self, a: Array, out: Array, *, alpha: Number) -> None:
        numbers, squared = a, True
        with self._device:
            while squared or numbers.size > 1:
                # Each thread adds up a few, in an order that does not depend on the others.
                n_parts = -(-numbers.size // FEW_ROWS)
                name = "squares" if squared else f"squares {n_parts}"
                parts = self._scratch(name, (n_parts,), np.float64)
                squares_kernel(squared)(numbers, numbers.size, n_parts, parts)
                numbers, squared = parts, False
            add_number_kernel(np.dtype(getattr(alpha, "dtype", "d")).name)(numbers, alpha, out)

    def dropout(
        self,
        a: Array,
        *,
        dropout_rate: float,
        scale: float,
        key: Number,
        first: int = 0,
        skipped: int = 0,
    ) -> None:
        limit = int(dropout_rate * 2**32)
        with self._device:
            if first or skipped:
                kernel = dropout_part_kernel(a.dtype == BFLOAT16)
                kernel(key, limit, scale, a.shape[1], first % 2**32, skipped % 2**32, a)
            else:
                dropout_kernel(a.dtype == BFLOAT16)(key, limit, scale, a)

    def adam_update(
        self,
        parameter: Array,
        gradient: Array,
        first_moment: Array,
        second_moment: Array,
        step: AdamStep,
    ) -> None:
        with self._device:
            adam_kernel()(gradient, *step, parameter, first_moment, second_moment)

    def synchronize(self) -> None:
        with self._device:
            cupy.cuda.get_current_stream().synchronize()

    def step_bytes(self, layer_sizes: Sequence[int], n_rows: int, dtype: DTypeLike) -> int:
        kept_in, itemsize = self.work_dtype(dtype), np.dtype(dtype).itemsize
        n_bytes = RECORDING_BYTES
        if not self._of_thread.cublas:
            n_bytes += WORKSPACE_BYTES
        if len(layer_sizes) > 2:
            processors = self._device.attributes["MultiProcessorCount"]
            itemsizes = (itemsize, kept_in.itemsize)
            n_hidden, n_outputs = layer_sizes[-2:]
            n_bytes += top_bytes(n_rows, n_hidden, n_outputs, itemsizes, processors)
        if kept_in != dtype:
            n_weights = sum(n_in * n_out for n_in, n_out in pairwise(layer_sizes))
            n_bytes += n_weights * kept_in.itemsize
        return n_bytes

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
                f"{self.name} has {in_gib(free)} free, but {in_gib(n_bytes)} more are needed: use "
                "a smaller batch or fewer hidden units"
            ) from error

    def describe(self) -> str:
        properties = cupy.cuda.runtime.getDeviceProperties(self.device_id)
        products = "" if self.precision == "fp32" else f", products in {self.precision}"
        return f"{self.name} ({properties['name'].decode()}, CuPy {cupy.__version__}{products})"
