"""Some of many samples, chosen at random while they pass by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class SomeRows:
    """Keeps a random part of the rows that it is shown, each with the same probability.

    Parameters
    ----------
    n_rows : int
        How many to keep, at most.

    Attributes
    ----------
    columns : tuple of ndarray
        What was kept, in the order in which it came.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows
        self._generator = np.random.default_rng(0)
        self._keys = np.zeros(0)
        self.columns: tuple[NDArray[Any], ...] = ()

    def show(self, *columns: NDArray[Any]) -> None:
        """Take in arrays with a row for each sample."""
        # Each row draws a number, and those with the smallest are kept.
        keys = self._generator.random(len(columns[0]))
        if self.columns:
            columns = tuple(map(_joined, zip(self.columns, columns, strict=True)))
            keys = np.concatenate([self._keys, keys])
        kept = np.sort(np.argsort(keys, kind="stable")[: self._n_rows])
        self._keys, self.columns = keys[kept], tuple(column[kept] for column in columns)


class WorstRows:
    """Keeps the rows with the largest numbers.

    Parameters
    ----------
    n_rows : int
        How many to keep, at most.

    Attributes
    ----------
    columns : tuple of ndarray
        What was kept, the largest number first.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows
        self._sizes = np.zeros(0)
        self.columns: tuple[NDArray[Any], ...] = ()

    def show(self, sizes: NDArray[Any], *columns: NDArray[Any]) -> None:
        """Take in a number for each row, and arrays with a row for each."""
        if self.columns:
            columns = tuple(map(_joined, zip(self.columns, columns, strict=True)))
            sizes = np.concatenate([self._sizes, sizes])
        kept = np.argsort(-sizes, kind="stable")[: self._n_rows]
        self._sizes, self.columns = sizes[kept], tuple(column[kept] for column in columns)


def _joined(parts: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts)
