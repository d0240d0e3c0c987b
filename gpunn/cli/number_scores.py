"""How well a network predicts numbers: R^2 and the root of the mean squared error."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.train_data import Samples
from gpunn.network import Network
from gpunn.training.streams import Stream


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
        """The mean R^2 over the targets."""
        return float(self.r2_of_each.mean())

    @property
    def rmse(self) -> float:
        """The mean root mean squared error over the targets."""
        return float(self.rmse_of_each.mean())


class NumberScorer:
    """Adds up what scores need, part by part; errors are those of the network's own units."""

    def __init__(self, network: Network) -> None:
        scaling = network.output_scaling
        assert scaling is not None
        self._scale = np.broadcast_to(np.asarray(scaling.scale, float), (network.n_outputs,))
        self._n = 0
        self._errors = self._sums = self._squares = np.zeros(network.n_outputs)

    def add(self, outputs: NDArray[Any], targets: NDArray[Any]) -> None:
        """Take in outputs and targets, shape (n, n_targets), both as the network has them."""
        targets = np.asarray(targets, np.float64)
        self._n += len(targets)
        self._errors = self._errors + np.square(outputs - targets).sum(axis=0)
        # Targets have a mean near 0 there, so that little is lost when its square is subtracted.
        self._sums = self._sums + targets.sum(axis=0)
        self._squares = self._squares + np.square(targets).sum(axis=0)

    def scores(self) -> NumberScores:
        """Return the scores so far."""
        spread = self._squares - np.square(self._sums) / self._n
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = np.where(spread > 0, 1 - self._errors / spread, np.nan)
        return NumberScores(self._n, r2, np.sqrt(self._errors / self._n) * self._scale)


def score_numbers(network: Network, samples: Samples, outputs: NDArray[Any] | None) -> NumberScores:
    """Return how well a network predicts some samples, of which a stream has kept no outputs."""
    scorer = NumberScorer(network)
    if outputs is not None and samples.y is not None:
        scorer.add(outputs, samples.y)
    elif isinstance(samples.X, Stream):
        for X, y in samples.X.chunks:
            if len(np.asarray(X)):
                scorer.add(network.predict(X), np.asarray(y))
    return scorer.scores()
