"""How well a network predicts: which classes it mistakes, and how far off its numbers are."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.tables.moments import Moments
from gpunn.network import Network


@dataclass(frozen=True)
class Confusion:
    """How many samples of each class were taken for which; only pairs that occur are kept.

    Attributes
    ----------
    n_classes : int
        How many classes there are.
    expected, predicted, counts : ndarray of int64, shape (n_pairs,)
        A true class, the class it was taken for, and how many samples this happened to.
    """

    n_classes: int
    expected: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: NDArray[np.int64]

    def _of(self, classes: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(classes, counts, self.n_classes).astype(np.int64)

    @property
    def samples(self) -> NDArray[np.int64]:
        """How many samples of each class there are."""
        return self._of(self.expected, self.counts)

    @property
    def answers(self) -> NDArray[np.int64]:
        """How often each class was predicted."""
        return self._of(self.predicted, self.counts)

    @property
    def right(self) -> NDArray[np.int64]:
        """How many samples of each class were recognised."""
        return self._of(self.expected, self.counts * (self.expected == self.predicted))

    @property
    def n_samples(self) -> int:
        """How many samples there are."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """The share of samples that were recognised."""
        return int(self.right.sum()) / self.n_samples

    def matrix(self) -> NDArray[np.int64]:
        """Return all counts, shape (n_classes, n_classes): a row is a true class."""
        matrix = np.zeros((self.n_classes, self.n_classes), np.int64)
        matrix[self.expected, self.predicted] = self.counts
        return matrix

    def mistakes(self) -> list[tuple[int, int, int]]:
        """Return true class, predicted class and count of each mistake, the most frequent first."""
        wrong = np.flatnonzero(self.expected != self.predicted)
        order = wrong[np.argsort(-self.counts[wrong], kind="stable")]
        columns = (self.expected[order], self.predicted[order], self.counts[order])
        return list(zip(*(column.tolist() for column in columns), strict=True))


class ClassScorer:
    """Adds up which classes are taken for which, part by part."""

    def __init__(self, n_classes: int) -> None:
        self._n_classes = n_classes
        self._pairs = self._counts = np.zeros(0, np.int64)

    def add(self, predicted: NDArray[np.int64], expected: NDArray[np.int64]) -> None:
        """Take in class numbers, shape (n,): those that were predicted and the true ones."""
        pairs = np.concatenate([self._pairs, expected * self._n_classes + predicted])
        counts = np.concatenate([self._counts, np.ones(len(expected), np.int64)])
        self._pairs, place = np.unique(pairs, return_inverse=True)
        self._counts = np.bincount(place, counts, len(self._pairs)).astype(np.int64)

    def confusion(self) -> Confusion:
        """Return the counts so far."""
        expected, predicted = np.divmod(self._pairs, self._n_classes)
        return Confusion(self._n_classes, expected, predicted, self._counts)


@dataclass(frozen=True)
class NumberScores:
    """How well numbers are predicted, in the units of the data.

    Attributes
    ----------
    n_samples : int
        On how many samples.
    r2_of_each, rmse_of_each : ndarray of float64, shape (n_targets,)
        Of each number to predict: the share of its variance that is predicted,
        ``1 - sum((y - p)^2) / sum((y - mean(y))^2)``, and the root of the mean of ``(y - p)^2``.
        R^2 is NaN where all numbers are the same.
    """

    n_samples: int
    r2_of_each: NDArray[np.float64]
    rmse_of_each: NDArray[np.float64]

    @property
    def r2(self) -> float:
        """The mean R^2 over the targets that have one; NaN if none has."""
        known = self.r2_of_each[~np.isnan(self.r2_of_each)]
        return float(known.mean()) if len(known) else math.nan

    @property
    def rmse(self) -> float:
        """The mean root mean squared error over the targets, whatever their units."""
        return float(self.rmse_of_each.mean())


class NumberScorer:
    """Adds up what scores need, part by part; errors are those of the network's own units."""

    def __init__(self, network: Network) -> None:
        scaling = network.output_scaling
        scale = 1.0 if scaling is None else scaling.scale
        self._scale = np.broadcast_to(np.asarray(scale, float), (network.n_outputs,))
        self._n = 0
        self._errors = np.zeros(network.n_outputs)
        self._targets = Moments.none(network.n_outputs)

    def add(self, outputs: NDArray[Any], targets: NDArray[Any]) -> None:
        """Take in outputs and targets, shape (n, n_targets), both as the network has them."""
        targets = np.asarray(targets, np.float64)
        self._n += len(targets)
        self._errors = self._errors + np.square(outputs - targets).sum(axis=0)
        self._targets = self._targets.with_rows(targets)

    def scores(self) -> NumberScores:
        """Return the scores so far."""
        spread = np.square(self._targets.deviation) * self._n
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = np.where(spread > 0, 1 - self._errors / spread, np.nan)
        return NumberScores(self._n, r2, np.sqrt(self._errors / self._n) * self._scale)
