"""The contract of what brings samples to a device while it computes."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backends.arrays import Array


class StagingBuffer:
    """Numbers on their way to the device while it computes: memory on the host and on the device.

    Again and again: `wait`, write to `host`, `send`, `receive`, compute with what that returned.
    Before the buffer is given up, `wait`.

    This is the whole of it for a device that computes in the host's memory, where nothing need be
    copied; others override it.

    Parameters
    ----------
    size : int
        How many numbers it has room for.
    dtype : dtype_like
        Their dtype.

    Attributes
    ----------
    host : ndarray, shape (size,)
        What is written to on the host.
    """

    def __init__(self, size: int, dtype: DTypeLike) -> None:
        self.host: NDArray[Any] = np.empty(size, dtype)

    def wait(self) -> None:
        """Wait until nothing is being copied from `host`."""

    def send(self, n: int) -> None:
        """Begin to copy the first n numbers, once all work given to the device so far is done."""

    def receive(self) -> Array:
        """Return the numbers on the device; work given to it from now on awaits their copy."""
        return self.host
