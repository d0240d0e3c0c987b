"""The dot products of a block's samples with each other, on any device."""

import numpy as np
from numpy.typing import DTypeLike

from gpunn.backends.base import Array, Backend


class Gram:
    """The dot products of a block's samples, which single steps correct their sums by.

    Parameters
    ----------
    backend : Backend
        The device.
    size : int
        How many products there are at a time at most.
    dtype : dtype_like
        The samples' dtype.
    biases : bool
        Whether 1 is added, for the input of the biases.
    """

    def __init__(self, backend: Backend, size: int, dtype: DTypeLike, *, biases: bool) -> None:
        self._backend = backend
        self._products = backend.empty((size,), dtype)
        self._ones = backend.asarray(np.ones(size, dtype)) if biases else None

    def of(self, left: Array, right: Array) -> Array:
        """Return ``left right^T`` (+ 1), in memory that the next call overwrites."""
        shape = (left.shape[0], right.shape[0])
        size = shape[0] * shape[1]
        products: Array = self._products[:size].reshape(shape)
        beta = 0.0
        if self._ones is not None:
            self._backend.copy_into(self._ones[:size].reshape(shape), products)
            beta = 1.0
        self._backend.gemm(left, right, products, transpose_b=True, beta=beta)
        return products
