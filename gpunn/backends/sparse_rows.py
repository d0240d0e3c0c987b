"""Samples that are mostly zeros, in SciPy's CSR format, as a factor of a network's products.

Only the first layer ever sees them: ``Z_1 = X W_1^T`` on the way forward and ``D_1^T X`` for its
gradient. Both go unit by unit, so that weights and gradients stay row-major as everywhere else,
and a unit's row of weights, which is read or written in any order, stays in the cache.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import ShapeError

Values = NDArray[Any]


class SparseRows:
    """A batch of samples (n, n_0) in CSR format.

    Parameters
    ----------
    matrix : scipy.sparse CSR matrix or array, shape (n, n_0)
        The samples.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self.shape: tuple[int, int] = matrix.shape
        self.dtype: np.dtype[Any] = matrix.dtype

    def __getitem__(self, rows: slice) -> "SparseRows":
        whole = rows.indices(self.shape[0]) == (0, self.shape[0], 1)
        return self if whole else SparseRows(self._matrix[rows])

    @property
    def n_numbers(self) -> int:
        """How many numbers are kept."""
        return int(self._matrix.nnz)

    @property
    def arrays(self) -> tuple[Values, Values, Values]:
        """The numbers, the columns that they are in, and where each row begins."""
        return self._matrix.data, self._matrix.indices, self._matrix.indptr

    def add_sums(self, weights: Values, out: Values, *, alpha: float, beta: float) -> None:
        """Change `out` (n, n_1) in place to ``alpha X weights^T + beta out``."""
        self._check(out, (self.shape[0], weights.shape[0]))
        for unit, row in enumerate(weights):
            _accumulate(self._matrix @ row, out[:, unit], alpha, beta)

    def add_gradient(self, delta: Values, out: Values, *, alpha: float, beta: float) -> None:
        """Change `out` (n_1, n_0) in place to ``alpha delta^T X + beta out``."""
        self._check(out, (delta.shape[1], self.shape[1]))
        transposed = self._matrix.T
        for unit, row in enumerate(out):
            _accumulate(transposed @ delta[:, unit], row, alpha, beta)

    def _check(self, out: Values, shape: tuple[int, int]) -> None:
        if out.shape != shape or out.dtype != self.dtype:
            raise ShapeError(
                f"product with sparse samples: expected out as {self.dtype} {shape}, "
                f"got {out.dtype} {out.shape}"
            )


def _accumulate(product: Values, out: Values, alpha: float, beta: float) -> None:
    if alpha != 1:
        np.multiply(product, alpha, out=product)
    if beta == 0:
        np.copyto(out, product)
        return
    if beta != 1:
        np.multiply(out, beta, out=out)
    np.add(out, product, out=out)
