"""How well a network does on some samples: its loss and its accuracy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.network import Network
from gpunn.network.frames import column_names
from gpunn.network.names import warn_of_missing_names
from gpunn.parallel.alike import check_same
from gpunn.training.loaders import Given, Loader, check_given, loader_of_given
from gpunn.training.memory import bytes_per_sample
from gpunn.training.streams import Stream


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on some samples.

    Attributes
    ----------
    loss : float
        The mean loss.
    accuracy : float or None
        The share of samples whose largest output is that of the right class; None for a single
        output, or if outputs are numbers to predict (`Network.output_scaling`).
    outputs : ndarray, shape (n, n_L), or None
        The outputs, on the host; None for a `Stream`, because they might not fit there.
    expected : ndarray, shape (n,) of class numbers, or (n, n_L) of targets, or None
        What would have been right, beside `outputs`.
    class_labels : list, or None
        What the classes are called, if the network knows.
    """

    loss: float
    accuracy: float | None
    outputs: NDArray[Any] | None
    expected: NDArray[Any] | None = None
    class_labels: list[int | str] | None = None

    def plot(self, axes: Any = None) -> list[Any]:
        """Draw which classes were taken for which, or predicted against true numbers.

        See `gpunn.plots.evaluation.plot_evaluation` for the argument and what is returned.
        """
        from gpunn.plots.evaluation import plot_evaluation

        return plot_evaluation(self, axes)


def evaluate(network: Network, X: ArrayLike | Stream, y: ArrayLike | None = None) -> Evaluation:
    """Measure the loss and accuracy of a network on some samples.

    Parameters
    ----------
    network : Network
        The network.
    X : array_like, shape (n, n_0), or Stream
        Inputs, scaled as in training; an array, a data frame, a tensor or lists.
    y : array_like, shape (n,) or (n, n_L), optional
        Class numbers or targets. Leave it out if X is a `Stream`.

    Returns
    -------
    Evaluation
        The mean loss, the accuracy and the outputs.

    Raises
    ------
    ShapeError
        If the samples do not fit the network.
    DataError
        If they hold something that is not a number, or a class number outside 0 to n_L - 1, or
        columns have other names or another order than `Network.feature_names`.

    Warns
    -----
    UserWarning
        If only the inputs have names, or only the network.
    """
    known = network.names_to_compare(column_names(X))
    given = check_given(network, X, y, known)
    warn_of_missing_names(known, given.names)
    return _measure_given(network, given)


def evaluate_rows(network: Network, X: ArrayLike, y: ArrayLike) -> Evaluation:
    """Measure as `evaluate` does, for a caller who has compared the names of columns already."""
    return _measure_given(network, check_given(network, X, y, None))


def _measure_given(network: Network, given: Given) -> Evaluation:
    if network.sharing.is_split:
        facts = given.fingerprints(network.backend)
        check_same(network.sharing.ranks, "what is measured on", facts)
    n_rows = min(given.n_samples, network.rows_at_once)
    samples = loader_of_given(network, given, n_rows, n_rows * bytes_per_sample(network))
    return measure(network, Holdout(samples), keep_outputs=given.stream is None)


class Holdout(NamedTuple):
    """Samples that are measured on and not learnt from.

    Attributes
    ----------
    loader : Loader
        The samples, in batches.
    weights : ndarray, shape (n,), float64, or None
        What each counts.
    score : callable or None
        ``score(outputs)``, how good the outputs are, the larger the better; None for accuracy.
    scores_accuracy : bool
        Whether that score is the share of right answers.
    """

    loader: Loader
    weights: NDArray[np.float64] | None = None
    score: Callable[[NDArray[Any]], float] | None = None
    scores_accuracy: bool = False


def measure(
    network: Network, holdout: Holdout, *, keep_outputs: bool = False, loss_share: float = 1.0
) -> Evaluation:
    """Measure a network on samples that are in their place; see `evaluate`.

    The loss is a mean over the samples, or over their weights, times `loss_share`.
    """
    loader, backend = holdout.loader, network.backend
    outputs = backend.empty((loader.n_rows, network.n_outputs), network.dtype)
    row_losses = backend.zeros((loader.n_rows,), np.float64)
    weights, total = None, float(loader.n_samples)
    if holdout.weights is not None:
        weights = backend.asarray(holdout.weights, network.dtype)
        total = float(holdout.weights.sum())
    kept, expected = None, None
    if keep_outputs or holdout.score is not None:
        kept = np.empty((loader.n_samples, network.n_outputs), network.dtype)
    classifies = network.predicts_classes and holdout.score is None
    if keep_outputs:
        shape = (loader.n_samples,) if classifies else (loader.n_samples, network.n_outputs)
        expected = np.empty(shape, np.int64 if classifies else network.dtype)
    n_hits = 0
    for rows, inputs, targets in loader.batches():
        n_rows = inputs.shape[0]
        row_weights = None if weights is None else weights[rows]
        network.add_losses(inputs, targets, row_losses[:n_rows], outputs[:n_rows], row_weights)
        host = backend.to_host(outputs[:n_rows])
        if classifies:
            wanted = backend.to_host(targets).argmax(axis=1)
            n_hits += int(np.count_nonzero(host.argmax(axis=1) == wanted))
        elif expected is not None:
            wanted = backend.to_host(targets)
        if kept is not None:
            kept[rows] = host
        if expected is not None:
            expected[rows] = wanted
    loss = float(backend.to_host(row_losses).sum()) * loss_share / total
    accuracy = n_hits / loader.n_samples if classifies else None
    return Evaluation(loss, accuracy, kept, expected, network.class_labels)
