"""Matrices on the host whose rows are worked out when they are asked for.

A data set that is larger than the memory stays where it is, in a mapped file. What is made of it,
such as scaled inputs or a part held out for testing, must then not be a copy of the whole; it is an
object that has the shape of one, and gives rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

BLOCK_VALUES = 2**17
"""Values that are worked on at once: 1 MiB in float64, which stays in the processor's cache."""


class Rows(ABC):
    """A matrix whose rows are worked out when they are asked for.

    NumPy makes an array of it wherever it would of a list; that is the whole of it, in memory.

    Parameters
    ----------
    shape : (int, int)
        Its shape.
    dtype : data type
        The type of its values.
    """

    ndim = 2

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)

    @property
    def size(self) -> int:
        """How many values it has."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows as an array."""

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        whole = np.empty(self.shape, dtype or self.dtype)
        for rows in blocks(self):
            whole[rows] = self[rows]
        return whole


Matrix = NDArray[Any] | Rows


class SelectedRows(Rows):
    """Some rows of a matrix, in an order; see `select`."""

    def __init__(self, matrix: Matrix, index: NDArray[np.int64]) -> None:
        super().__init__((len(index), matrix.shape[1]), matrix.dtype)
        self._matrix, self._index = matrix, index

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(self._matrix[self._index[rows]])

    def as_in_file(self) -> "SelectedRows":
        """Return the same rows in the order of the file, in which they are read fastest."""
        return SelectedRows(self._matrix, np.sort(self._index))


def is_on_host(matrix: object) -> TypeGuard[Matrix]:
    """Whether something is a matrix of the host, and none of a GPU."""
    return isinstance(matrix, np.ndarray | Rows)


def stays_on_disk(matrix: Matrix) -> bool:
    """Whether a matrix is not in memory, but mapped or worked out."""
    return isinstance(matrix, np.memmap | Rows)


def select(matrix: Matrix, index: NDArray[np.int64]) -> Matrix:
    """Return some rows in an order: an array of an array, `Rows` of what stays on the disk."""
    return SelectedRows(matrix, index) if stays_on_disk(matrix) else matrix[index]


def blocks(matrix: Matrix) -> Iterator[slice]:
    """Yield slices that go through all rows, of about `BLOCK_VALUES` values each."""
    step = max(1, BLOCK_VALUES // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), step):
        yield slice(start, start + step)


def row_blocks(n_rows: int, step: int, first: int = 0) -> Iterator[slice]:
    """Yield slices that go through so many rows, `step` of them at a time, from row `first` on."""
    for start in range(first, n_rows, step):
        yield slice(start, min(start + step, n_rows))
