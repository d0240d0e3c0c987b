"""What is found out about a network from samples with answers, part by part."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.matrices import Matrix
from gpunn.errors import DataError
from gpunn.network import Network
from gpunn.reports.samples import SomeRows, WorstRows
from gpunn.training.evaluation import evaluate_rows
from gpunn.training.scores import ClassScorer, Confusion, NumberScorer, NumberScores

MOST_MISTAKES = 24
SOME_SAMPLES = 1000
"""What asks a network many times, or draws a dot for each sample, takes so many of them."""

N_BINS = 10


@dataclass(frozen=True)
class Mistakes:
    """The mistakes that a network was most sure of.

    Attributes
    ----------
    numbers : ndarray of int64, shape (n,)
        Which samples they are, counted from 0.
    inputs, outputs : ndarray, shape (n, n_0) and (n, n_L)
        What went in, and what came out.
    expected : ndarray of int64, shape (n,)
        The true classes.
    """

    numbers: NDArray[np.int64]
    inputs: NDArray[Any]
    outputs: NDArray[Any]
    expected: NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """How often a network is right, by how sure it is.

    Attributes
    ----------
    confidences, accuracies, shares : ndarray, shape (n_bins,)
        Of each bin the mean confidence, the share of right answers and the share of all samples;
        the first two are NaN where a bin is empty.
    """

    confidences: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error, ``sum_b share_b |accuracy_b - confidence_b|``.

        Source: M. P. Naeini et al., *Obtaining well calibrated probabilities using Bayesian
        binning* (2015).
        """
        return float(np.nansum(self.shares * np.abs(self.accuracies - self.confidences)))


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes
    ----------
    n_samples : int
        On how many samples.
    loss : float
        Their mean loss.
    some : tuple of ndarray
        Inputs, answers and outputs of some samples, as the network has them.
    confusion, mistakes, calibration
        For classes; the last one is None if outputs are no probabilities.
    scores : NumberScores or None
        For numbers.
    """

    n_samples: int
    loss: float
    some: tuple[NDArray[Any], ...]
    confusion: Confusion | None = None
    mistakes: Mistakes | None = None
    calibration: Calibration | None = None
    scores: NumberScores | None = None


def find(
    network: Network, parts: Iterable[tuple[Matrix, NDArray[Any], NDArray[np.int64]]]
) -> Findings:
    """Ask a network about samples, and find out how right it is.

    Parameters
    ----------
    network : Network
        The network.
    parts : iterable of (X, y, numbers)
        The samples, scaled as in training, their class numbers or targets, and which ones they are.

    Raises
    ------
    DataError
        If there are no samples, outputs are not finite, or targets of classes are no classes.
    """
    rows = SomeRows(SOME_SAMPLES)
    about = _AboutClasses(network) if network.predicts_classes else _AboutNumbers(network)
    n_samples, loss = 0, 0.0
    for X, y, numbers in parts:
        outcome = evaluate_rows(network, X, y)
        assert outcome.outputs is not None
        assert outcome.expected is not None
        _check(network, y, outcome.outputs)
        inputs = np.atleast_2d(np.asarray(X[:]))
        about.add(inputs, outcome.expected, outcome.outputs, numbers)
        rows.show(inputs, outcome.expected, outcome.outputs)
        n_samples += len(outcome.outputs)
        loss += (outcome.loss - loss) * (len(outcome.outputs) / n_samples)
    if not n_samples:
        raise DataError("there are no samples to report on; give at least one")
    return about.findings(n_samples, loss, rows.columns)


class _AboutClasses:
    def __init__(self, network: Network) -> None:
        self._scorer = ClassScorer(network.n_outputs)
        self._worst = WorstRows(MOST_MISTAKES)
        kind = network.architecture.output_activation
        self._bins = np.zeros((3, N_BINS)) if kind in ("softmax", "sigmoid") else None

    def add(
        self,
        X: NDArray[Any],
        y: NDArray[np.int64],
        outputs: NDArray[Any],
        numbers: NDArray[np.int64],
    ) -> None:
        predicted = outputs.argmax(axis=1)
        confidences = np.nan_to_num(outputs.max(axis=1).astype(np.float64))
        self._scorer.add(predicted, y)
        wrong = np.flatnonzero(predicted != y)
        columns = (numbers[wrong], X[wrong], outputs[wrong], y[wrong])
        self._worst.show(confidences[wrong], *columns)
        if self._bins is not None:
            places = np.minimum((confidences * N_BINS).astype(int), N_BINS - 1)
            for row, values in enumerate((np.ones(len(y)), confidences, predicted == y)):
                self._bins[row] += np.bincount(places, values, N_BINS)

    def findings(self, n_samples: int, loss: float, some: tuple[NDArray[Any], ...]) -> Findings:
        calibration = None
        if self._bins is not None:
            counts, confidences, hits = self._bins
            with np.errstate(invalid="ignore"):
                calibration = Calibration(confidences / counts, hits / counts, counts / n_samples)
        return Findings(
            n_samples,
            loss,
            some,
            confusion=self._scorer.confusion(),
            mistakes=Mistakes(*self._worst.columns),
            calibration=calibration,
        )


class _AboutNumbers:
    def __init__(self, network: Network) -> None:
        self._scorer = NumberScorer(network)

    def add(
        self, X: NDArray[Any], y: NDArray[Any], outputs: NDArray[Any], numbers: NDArray[np.int64]
    ) -> None:
        self._scorer.add(outputs, y)

    def findings(self, n_samples: int, loss: float, some: tuple[NDArray[Any], ...]) -> Findings:
        return Findings(n_samples, loss, some, scores=self._scorer.scores())


def _check(network: Network, y: NDArray[Any], outputs: NDArray[Any]) -> None:
    """Raise unless answers can be compared with what is right."""
    if not np.isfinite(outputs).all():
        raise DataError(
            "the network answers with NaN or infinite numbers, so there is nothing to report: its "
            "training has diverged, so train it again with a smaller learning rate"
        )
    targets = np.asarray(y)
    if targets.ndim != 2 or not network.predicts_classes:
        return
    middle = (network.scaling.target_low + network.scaling.target_high) / 2
    if ((targets > middle).sum(axis=1) != 1).any():
        raise DataError(
            "a row of targets stands for no class, or for several: give class numbers or, if the "
            "outputs are numbers to predict, set network.output_scaling = gpunn.Scaling()"
        )
