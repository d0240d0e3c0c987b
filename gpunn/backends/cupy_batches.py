"""Many mini-batches on an NVIDIA GPU in one launch, fused.

A step on a small network is a dozen launches of a few microseconds each, and little arithmetic. So
one kernel, whose blocks wait for each other, goes through as many steps as wanted; see
``gpunn_learn_batches`` in ``cuda/batches.cu``. The weights stay in the multiprocessors' own memory
meanwhile, which is also what limits the size of such networks.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.base import Array, Backend
from gpunn.backends.cupy_kernels import load_kernel, outputs_numbers, pointer, suits
from gpunn.backends.fused import BatchLearner, FusedModel

N_THREADS = 256

MOST_MULTIPLICATIONS = 2**23
"""In a product of a step. With more, a recorded step (`gpunn.training.recorded`) is faster.

784-200-10 on an H100, samples a second:

| samples in a step | multiplications | this kernel | a recorded step |
| --- | --- | --- | --- |
| 10 | 1.6 million | 615,000 | 207,000 |
| 100 | 15.7 million | 2,740,000 | 3,440,000 |

Up to 50 samples (7.8 million), where cuBLAS is slow at such products, this kernel stays ahead.
"""


class Tiling(NamedTuple):
    """How the first weights are shared out among the blocks of threads, one a multiprocessor."""

    units: int
    inputs: int
    shared_bytes: int


def choose_tiling(
    batch_size: int, layer_sizes: tuple[int, int, int], itemsize: int, device: Any
) -> Tiling | None:
    """Return the tiles that leave the least work to a block, or None if none fit in its memory."""
    n_inputs, n_hidden, n_outputs = layer_sizes
    n_blocks = device.attributes["MultiProcessorCount"]
    most_bytes = device.attributes["MaxSharedMemoryPerBlockOptin"]
    sample = n_hidden + outputs_numbers(N_THREADS, n_outputs)
    best: Tiling | None = None
    # Fewest inputs' tiles first: among equals, these have the fewest sums to add up.
    for n_input_tiles in range(1, min(n_inputs, n_blocks) + 1):
        inputs = math.ceil(n_inputs / n_input_tiles)
        units = math.ceil(n_hidden / (n_blocks // n_input_tiles))
        numbers = (batch_size + units) * (inputs | 1) + max(batch_size * units, sample)
        tiling = Tiling(units, inputs, numbers * itemsize)
        fits = tiling.shared_bytes <= most_bytes
        if fits and (best is None or units * inputs < best.units * best.inputs):
            best = tiling
    return best


class CupyBatchLearner(BatchLearner):
    """The contract of `BatchLearner` on one GPU."""

    def __init__(
        self,
        backend: Backend,
        device: Any,
        batch_size: int,
        tiling: Tiling,
        model: FusedModel,
    ) -> None:
        self._device, self._tiling = device, tiling
        self._hidden, self._top = model.hidden, model.top
        self._dtype = model.top.weights.dtype
        self._n_hidden, self._n_inputs = model.hidden.weights.shape
        self._n_outputs = model.top.weights.shape[0]
        self._share = model.loss.share(self._n_outputs)
        self._kernel = load_kernel(
            "gpunn_learn_batches", model, "warp.cu", "outputs.cu", "batches.cu", cooperative=True
        )
        with device:
            self._n_blocks = device.attributes["MultiProcessorCount"]
            # The most there is, since all learners of such networks share the kernel.
            self._kernel.max_dynamic_shared_size_bytes = device.attributes[
                "MaxSharedMemoryPerBlockOptin"
            ]
        self._backend, self._batch_size = backend, batch_size

    @classmethod
    def make(
        cls, backend: Backend, device: Any, batch_size: int, model: FusedModel
    ) -> "CupyBatchLearner | None":
        """Return a learner, or None if the kernel cannot learn so in that network."""
        weights, weights_above = model.hidden.weights, model.top.weights
        if not suits(model):
            return None
        if not device.attributes["CooperativeLaunch"]:
            return None
        if batch_size * weights.size > MOST_MULTIPLICATIONS:
            return None
        n_outputs, n_hidden = weights_above.shape
        sizes = (weights.shape[1], n_hidden, n_outputs)
        tiling = choose_tiling(batch_size, sizes, int(weights.dtype.itemsize), device)
        if tiling is None:
            return None
        return cls(backend, device, batch_size, tiling, model)

    @cached_property
    def _scratch(self) -> list[Any]:
        """Sums, A_1, D_1 and D_2 of a batch, and the count of blocks; made when first needed."""
        n_parts = math.ceil(self._n_inputs / self._tiling.inputs)
        n, n_hidden = self._batch_size, self._n_hidden
        shapes = ((n_parts, n, n_hidden), (n, n_hidden), (n, n_hidden), (n, self._n_outputs))
        arrays = [self._backend.empty(shape, self._dtype) for shape in shapes]
        return [*arrays, self._backend.zeros((1,), np.uint32)]

    def learn(
        self,
        inputs: Array,
        targets: Array,
        batch_size: int,
        *,
        scale: float,
        kept: float,
        row_losses: Array,
    ) -> None:
        number = self._dtype.type
        arguments = (
            inputs,
            targets,
            row_losses,
            self._hidden.weights,
            pointer(self._hidden.biases),
            self._top.weights,
            pointer(self._top.biases),
            *self._scratch,
            number(scale),
            number(kept),
            number(self._share),
            np.int32(inputs.shape[0] // batch_size),
            np.int32(batch_size),
            np.int32(self._n_inputs),
            np.int32(self._n_hidden),
            np.int32(self._n_outputs),
            np.int32(self._tiling.units),
            np.int32(self._tiling.inputs),
        )
        with self._device:
            self._scratch[-1].fill(0)
            self._kernel(
                (self._n_blocks,),
                (N_THREADS,),
                arguments,
                shared_mem=self._tiling.shared_bytes,
            )
