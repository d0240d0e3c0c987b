"""One sample at a time on a GPU, fused: the ordered part of `gpunn.training.online` in one launch.

A sample of a small network is a few microseconds of arithmetic, less than a launch costs. So one
kernel goes through a whole block of samples. The block's large products stay with cuBLAS.

There are two such kernels. That of ``online.cu`` keeps the top layer in the registers of its
threads, and has all sizes compiled in. Where registers do not hold it, that of ``in_order.cu``
does the same from memory.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.arrays import is_on_gpu
from gpunn.backends.base import Array, Backend
from gpunn.backends.cupy_kernels import WARP, load_kernel, outputs_numbers, pointer, suits
from gpunn.backends.fused import FusedModel, Sequencer
from gpunn.backends.gram import Gram

MOST_THREADS = 1024
MOST_SHARED_BYTES = 48 * 1024
"""What every GPU gives a block of threads without being asked for more."""

ROWS = ((256, 128), (512, 64), (1024, 32))
"""Up to how many hidden units how many samples are best learnt in a block.

784-H-10 on an H100, samples a second: 200 units, blocks of 64: 1,030,000, of 128: 1,150,000; 1,000
units, blocks of 32: 392,000. The rest has not been measured; wider layers have blocks of 64.
"""

MOST_HIDDEN = 16_384
"""A block of threads is on one multiprocessor; wider layers are better spread over all of them."""

UNITS = (1, 2, 4, 8)
GROUPS = (16, 8, 4)
"""Hidden units of a thread, and samples whose sums it keeps at a time, the best first."""

OTHER_REGISTERS = 20
"""What a thread needs besides its numbers: addresses, and what formulas take.

With this nvcc keeps all numbers of the usual networks in registers, and in float64 next to all.
"""


class Layout(NamedTuple):
    """How ``online.cu`` shares out a network among threads."""

    n_threads: int
    units: int
    group: int
    keeps_deltas: bool
    shared_bytes: int


def _whole_warps(n_threads: int) -> int:
    return -(-n_threads // WARP) * WARP


def _registers(n_threads: int) -> int:
    """Return how many registers of 32 bits each thread of a block can have."""
    # A multiprocessor is four parts with 16,384 registers each, and takes warps by turns.
    warps_of_part = -(-n_threads // WARP // 4)
    return min(255, 16_384 // (warps_of_part * WARP) // 8 * 8)


def choose_layout(
    n_hidden: int, n_outputs: int, n_rows: int, itemsize: int, most_shared_bytes: int
) -> Layout | None:
    """Return the layout with the fewest units a thread that registers hold, or None."""
    if n_outputs > WARP:
        return None
    for units, group, keeps_deltas in product(UNITS, GROUPS, (True, False)):
        n_threads = _whole_warps(-(-n_hidden // units))
        # Weights and sums, an activation and a delta of each unit; what outputs are added up from.
        kept = units * (n_outputs + group + 2) + n_outputs
        # Shared memory has what `Block` lists in ``online.cu``; rows of products are whole groups.
        numbers = (-(-n_rows // group) * group) ** 2 + keeps_deltas * n_rows * n_hidden
        numbers += n_rows * (3 * n_outputs + 2) + 2 * n_threads // WARP * n_outputs
        if (
            n_threads <= MOST_THREADS
            and kept * itemsize // 4 + OTHER_REGISTERS <= _registers(n_threads)
            and numbers * itemsize <= most_shared_bytes
        ):
            return Layout(n_threads, units, group, keeps_deltas, numbers * itemsize)
    return None


class _Way(NamedTuple):
    """A kernel, what it is launched with, and the sizes that it takes besides the samples."""

    kernel: Any
    n_threads: int
    shared_bytes: int
    sizes: tuple[np.int32, ...]


def _way_in_registers(model: FusedModel, n_rows: int, layout: Layout) -> _Way:
    n_outputs, n_hidden = model.top.weights.shape
    sizes = {
        "N_HIDDEN": n_hidden,
        "N_OUTPUTS": n_outputs,
        "N_ROWS": n_rows,
        "N_THREADS": layout.n_threads,
        "UNITS": layout.units,
        "GROUP": layout.group,
        "KEEPS_DELTAS": int(layout.keeps_deltas),
    }
    kernel = load_kernel(
        "gpunn_learn_in_registers", model, "warp.cu", "online.cu", sizes=sizes.items()
    )
    if layout.shared_bytes > MOST_SHARED_BYTES:
        kernel.max_dynamic_shared_size_bytes = layout.shared_bytes
    return _Way(kernel, layout.n_threads, layout.shared_bytes, ())


def _bytes_in_memory(model: FusedModel) -> int:
    n_outputs, n_hidden = model.top.weights.shape
    n_threads = min(MOST_THREADS, _whole_warps(n_hidden))
    return outputs_numbers(n_threads, n_outputs) * int(model.top.weights.dtype.itemsize)


def _way_in_memory(model: FusedModel) -> _Way:
    n_outputs, n_hidden = model.top.weights.shape
    kernel = load_kernel("gpunn_learn_in_order", model, "warp.cu", "outputs.cu", "in_order.cu")
    sizes = (np.int32(n_hidden), np.int32(n_outputs))
    n_threads = min(MOST_THREADS, _whole_warps(n_hidden))
    return _Way(kernel, n_threads, _bytes_in_memory(model), sizes)


def rows_in_block(model: FusedModel, device: Any) -> int:
    """Return how many single samples are best learnt in a block; fewer in small shared memory."""
    n_outputs, n_hidden = model.top.weights.shape
    itemsize = int(model.top.weights.dtype.itemsize)
    most_bytes = device.attributes["MaxSharedMemoryPerBlockOptin"]
    best = next((rows for most, rows in ROWS if n_hidden <= most), 64)
    for rows in (best, best // 2, best // 4):
        if choose_layout(n_hidden, n_outputs, rows, itemsize, most_bytes) is not None:
            return rows
    return best


class CupySequencer(Sequencer):
    """The contract of `Sequencer` on one GPU."""

    def __init__(self, backend: Backend, device: Any, n_rows: int, model: FusedModel) -> None:
        self._device = device
        self._hidden, self._top = model.hidden, model.top
        n_outputs, n_hidden = model.top.weights.shape
        dtype = model.top.weights.dtype
        self._share = dtype.type(model.loss.share(n_outputs))
        most_bytes = device.attributes["MaxSharedMemoryPerBlockOptin"]
        layout = choose_layout(n_hidden, n_outputs, n_rows, int(dtype.itemsize), most_bytes)
        with device:
            self._way = (
                _way_in_memory(model)
                if layout is None
                else _way_in_registers(model, n_rows, layout)
            )
        # All that `learn` needs is here, since it must not allocate: it may be recorded.
        self.z = backend.empty((n_rows, n_hidden), dtype)
        self.deltas = backend.empty((n_rows, n_hidden), dtype)
        self._scale: Any = backend.empty((1,), dtype)
        # Without the 1 for the biases' input, which the kernels add themselves.
        self._products = Gram(backend, n_rows * n_rows, dtype, biases=False)

    @staticmethod
    def suits(model: FusedModel) -> bool:
        """Say whether the kernels can learn in a network."""
        return (
            suits(model)
            and model.top.weights.shape[1] <= MOST_HIDDEN
            and _bytes_in_memory(model) <= MOST_SHARED_BYTES
        )

    def prepare(self, inputs: Array) -> None:
        self._of_inputs = self._products.of(inputs, inputs)

    def _scale_at(self, scale: float | Array) -> Any:
        if is_on_gpu(scale):
            return scale
        self._scale.fill(scale)
        return self._scale

    def learn(
        self,
        inputs: Array,
        targets: Array,
        scale: float | Array,
        row_losses: Array,
        outputs: Array | None,
    ) -> None:
        with self._device:
            arguments = (
                self.z,
                self.deltas,
                self._of_inputs,
                pointer(self._hidden.biases),
                self._top.weights,
                pointer(self._top.biases),
                targets,
                row_losses,
                pointer(outputs),
                self._scale_at(scale),
                self._share,
                np.int32(inputs.shape[0]),
                *self._way.sizes,
            )
            kernel, n_threads, shared_bytes, _ = self._way
            kernel((1,), (n_threads,), arguments, shared_mem=shared_bytes)
