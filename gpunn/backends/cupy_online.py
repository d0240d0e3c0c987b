"""One sample at a time on a GPU, fused: the ordered part of `gpunn.training.online` in one launch.

A sample of a small network is a few microseconds of arithmetic, less than a launch costs. So one
kernel goes through a whole block of samples. The block's large products stay with cuBLAS.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

from typing import Any

import numpy as np

from gpunn.backends.base import Array, Backend
from gpunn.backends.cupy_kernels import WARP, load_kernel, outputs_numbers, pointer, suits
from gpunn.backends.fused import FusedModel, Sequencer
from gpunn.backends.gram import Gram

MOST_THREADS = 1024
MOST_SHARED_BYTES = 48 * 1024
"""What every GPU gives a block of threads without being asked for more."""

MOST_HIDDEN = 16_384
"""A block of threads is on one multiprocessor; wider layers are better spread over all of them."""


def _n_threads(n_hidden: int) -> int:
    return min(MOST_THREADS, -(-n_hidden // WARP) * WARP)


def _shared_bytes(model: FusedModel) -> int:
    weights = model.top.weights
    n_outputs, n_hidden = weights.shape
    return outputs_numbers(_n_threads(n_hidden), n_outputs) * int(weights.dtype.itemsize)


class CupySequencer(Sequencer):
    """The contract of `Sequencer` on one GPU."""

    def __init__(self, backend: Backend, device: Any, n_rows: int, model: FusedModel) -> None:
        self._device = device
        self._hidden, self._top = model.hidden, model.top
        self._n_outputs, self._n_hidden = model.top.weights.shape
        self._dtype = model.top.weights.dtype
        self._share = model.loss.share(self._n_outputs)
        self._n_threads = _n_threads(self._n_hidden)
        self._shared_bytes = _shared_bytes(model)
        self._kernel = load_kernel("gpunn_learn_in_order", model)
        self.z = backend.empty((n_rows, self._n_hidden), self._dtype)
        self.deltas = backend.empty((n_rows, self._n_hidden), self._dtype)
        self._products = Gram(
            backend, n_rows * n_rows, self._dtype, biases=self._hidden.biases is not None
        )

    @staticmethod
    def suits(model: FusedModel) -> bool:
        """Say whether the kernel can learn in a network."""
        return (
            suits(model)
            and model.top.weights.shape[1] <= MOST_HIDDEN
            and _shared_bytes(model) <= MOST_SHARED_BYTES
        )

    def learn(
        self,
        inputs: Array,
        targets: Array,
        scale: float,
        row_losses: Array,
        outputs: Array | None,
    ) -> None:
        n_rows = inputs.shape[0]
        number = self._dtype.type
        arguments = (
            self.z,
            self.deltas,
            self._products.of(inputs, inputs),
            pointer(self._hidden.biases),
            self._top.weights,
            pointer(self._top.biases),
            targets,
            row_losses,
            pointer(outputs),
            number(scale),
            number(self._share),
            np.int32(n_rows),
            np.int32(self._n_hidden),
            np.int32(self._n_outputs),
        )
        with self._device:
            self._kernel((1,), (self._n_threads,), arguments, shared_mem=self._shared_bytes)
