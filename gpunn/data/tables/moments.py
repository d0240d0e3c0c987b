"""Means, deviations and extremes of columns that are gone through part by part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of each column; NaN in it counts as missing.

    Attributes
    ----------
    counts : ndarray of float64, shape (n_columns,)
        How many values have been seen.
    mean : ndarray of float64, shape (n_columns,)
        Their mean.
    squares : ndarray of float64, shape (n_columns,)
        The sum of their squared distances from the mean.
    low, high : ndarray of float64, shape (n_columns,)
        The smallest and the largest.

    Source of the update: T. F. Chan, G. H. Golub and R. J. LeVeque, *Algorithms for computing the
    sample variance* (1983).
    """

    counts: Values
    mean: Values
    squares: Values
    low: Values
    high: Values

    @classmethod
    def none(cls, n_columns: int) -> Self:
        """Return what is known of no rows."""
        zeros, most = np.zeros(n_columns), np.full(n_columns, np.inf)
        return cls(zeros, zeros, zeros, most, -most)

    @classmethod
    def of_words(cls, counts: NDArray[np.int64], n_rows: int) -> Self:
        """Return what is known of inputs that are 1 in so many rows, and 0 in all others."""
        share = counts / n_rows
        squares = counts * (1 - share)
        low, high = (counts == n_rows).astype(np.float64), (counts > 0).astype(np.float64)
        return cls(np.full(len(counts), float(n_rows)), share, squares, low, high)

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """Return what is known of some columns side by side."""
        names = ("counts", "mean", "squares", "low", "high")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def column(self, k: int, n_rows: int) -> Self:
        """Return what is known of one column, of which missing values become the mean."""
        one = slice(k, k + 1)
        counts = np.array([float(n_rows)])
        return type(self)(counts, self.mean[one], self.squares[one], self.low[one], self.high[one])

    def with_rows(self, rows: Values) -> Self:
        """Return what is known with more rows, shape (n, n_columns)."""
        given = ~np.isnan(rows)
        n_more = given.sum(axis=0).astype(np.float64)
        mean = np.where(given, rows, 0.0).sum(axis=0) / np.maximum(n_more, 1)
        squares = np.where(given, np.square(rows - mean), 0.0).sum(axis=0)
        counts = self.counts + n_more
        share = n_more / np.maximum(counts, 1)
        step = mean - self.mean
        return type(self)(
            counts,
            self.mean + step * share,
            self.squares + squares + np.square(step) * self.counts * share,
            np.fmin(self.low, np.fmin.reduce(rows, axis=0, initial=np.inf)),
            np.fmax(self.high, np.fmax.reduce(rows, axis=0, initial=-np.inf)),
        )

    @property
    def deviation(self) -> Values:
        """The standard deviation of each column; exactly 0 where all values are the same."""
        deviation = np.sqrt(self.squares / np.maximum(self.counts, 1))
        return np.where(self.low >= self.high, 0.0, deviation)
