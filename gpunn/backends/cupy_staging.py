"""Samples on their way to an NVIDIA GPU while it computes.

A buffer copies on a stream of its own, so that a copy runs beside the computations. Nothing orders
two streams but what is said here:

- the host writes to pinned memory only after the last copy from it has ended (`wait`);
- a copy begins only after the computations that may still read what it overwrites (`send`);
- computations begin only after the copy of what they read (`receive`);
- memory goes back to CuPy's pools, which hand it on at once, only after its last copy (`wait`).

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

from typing import Any

import cupy
import numpy as np

from gpunn.backends.base import Array, Backend
from gpunn.backends.staging import StagingBuffer


class CupyStagingBuffer(StagingBuffer):
    """The contract of `StagingBuffer` on one GPU."""

    def __init__(self, backend: Backend, device: Any, size: int, dtype: np.dtype[Any]) -> None:
        self._device = device
        self._numbers = backend.empty((size,), dtype)
        with device:
            # Of memory that is not pinned, CuPy's copies would be neither asynchronous nor safe.
            pinned = cupy.cuda.alloc_pinned_memory(size * dtype.itemsize)
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._computed = cupy.cuda.Event(disable_timing=True)
            self._copied = cupy.cuda.Event(disable_timing=True)
        self.host = np.frombuffer(pinned, dtype, size)

    def wait(self) -> None:
        self._stream.synchronize()

    def send(self, n: int) -> None:
        with self._device:
            self._computed.record(cupy.cuda.get_current_stream())
            self._stream.wait_event(self._computed)
            self._numbers[:n].set(self.host[:n], stream=self._stream)
            self._copied.record(self._stream)

    def receive(self) -> Array:
        with self._device:
            cupy.cuda.get_current_stream().wait_event(self._copied)
        return self._numbers
