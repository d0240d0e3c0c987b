"""Some of many samples, chosen at random while they pass by."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _KeptRows(ABC):
    """Keeps some of the rows that it is shown, by a number for each.

    Parameters
    ----------
    n_rows : int
        How many to keep, at most.

    Attributes
    ----------
    columns : tuple of ndarray
        What was kept.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows
        self._keys = np.zeros(0)
        self.columns: tuple[NDArray[Any], ...] = ()

    @abstractmethod
    def _chosen(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return which rows are kept, in the order in which they are."""

    def _add(self, keys: NDArray[Any], columns: tuple[NDArray[Any], ...]) -> None:
        keys = np.concatenate([self._keys, keys])
        if self.columns:
            columns = tuple(map(np.concatenate, zip(self.columns, columns, strict=True)))
        kept = self._chosen(keys)
        self._keys, self.columns = keys[kept], tuple(column[kept] for column in columns)


class SomeRows(_KeptRows):
    """Keeps a random part of the rows, each with the same probability, in the order they came."""

    def __init__(self, n_rows: int) -> None:
        super().__init__(n_rows)
        self._generator = np.random.default_rng(0)

    def show(self, *columns: NDArray[Any]) -> None:
        """Take in arrays with a row for each sample."""
        # Each row draws a number, and those with the smallest are kept.
        self._add(self._generator.random(len(columns[0])), columns)

    def _chosen(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.sort(np.argsort(keys, kind="stable")[: self._n_rows])


class WorstRows(_KeptRows):
    """Keeps the rows with the largest numbers, the largest first."""

    def show(self, sizes: NDArray[Any], *columns: NDArray[Any]) -> None:
        """Take in a number for each row, and arrays with a row for each."""
        self._add(sizes, columns)

    def _chosen(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.argsort(-keys, kind="stable")[: self._n_rows]
