"""The arrays that a batch goes through on its way through the layers."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.backends.base import Array, Backend

MANY_BATCH_SIZES = 8
"""For so many sizes of a batch, the views of work arrays are remembered."""


class WorkArrays(threading.local):
    """An array for each layer of a batch, made once for the largest batch, each thread's own.

    So several threads may read a network at once, and none writes to what another one reads.
    """

    def __init__(
        self, backend: Backend, sizes: Sequence[int], dtypes: Sequence[np.dtype[Any]]
    ) -> None:
        self._backend, self._kinds = backend, list(zip(sizes, dtypes, strict=True))
        self._of: dict[int, list[Array]] = {}

    def __call__(self, n_rows: int) -> list[Array]:
        """Return the arrays (n_rows, n_l), with whatever the memory holds."""
        try:
            return self._of[n_rows]
        except KeyError:
            self._of[n_rows] = arrays = self._make(n_rows)
            return arrays

    def _make(self, n_rows: int) -> list[Array]:
        largest = max(self._of, default=0)
        if n_rows > largest:
            self._of.clear()
            return [self._backend.empty((n_rows, size), dtype) for size, dtype in self._kinds]
        # A smaller batch, such as an epoch's last, uses the first rows of the largest.
        if len(self._of) > MANY_BATCH_SIZES:
            self._of = {largest: self._of[largest]}
        return [whole[:n_rows] for whole in self._of[largest]]
