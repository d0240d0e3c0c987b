"""How a network does on some samples: its error and its accuracy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend import Array
from gpunn.errors import DataError
from gpunn.feeding import Samples, place_samples
from gpunn.memory import bytes_per_sample
from gpunn.network import Network, host_array


@dataclass(frozen=True)
class Evaluation:
    """How a network does on some samples.

    Attributes
    ----------
    loss : float
        The mean error.
    accuracy : float or None
        The share of samples whose largest output is the target's; None for a single output.
    outputs : ndarray, shape (n, n_L)
        The outputs, on the host.
    """

    loss: float
    accuracy: float | None
    outputs: NDArray[Any]


def as_targets(network: Network, y: ArrayLike) -> ArrayLike:
    """Return targets for labels, or targets as they are.

    Parameters
    ----------
    network : Network
        Whose outputs the targets are for; its `scaling` says what "yes" and "no" are.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers 0 to n_L - 1, or targets. With a single output, (n,) are its targets.

    Returns
    -------
    array_like, shape (n, n_L)
        The targets.

    Raises
    ------
    DataError
        If a class number is not one of the network's.
    """
    if network.backend.owns(y) and not isinstance(y, np.ndarray):
        return y
    y = host_array(y, "targets", network.backend.name)
    if y.ndim != 1:
        return y
    if network.n_outputs == 1:
        return y[:, np.newaxis]
    return network.scaling.encode_labels(y, network.n_outputs, network.dtype)


def evaluate(network: Network, X: ArrayLike, y: ArrayLike) -> Evaluation:
    """Measure a network's error and accuracy on some samples.

    Parameters
    ----------
    network : Network
        The network.
    X : array_like, shape (n, n_0)
        Inputs, scaled as in training.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers or targets.

    Returns
    -------
    Evaluation
        The mean loss, the accuracy and the outputs.

    Raises
    ------
    ShapeError
        If the samples do not fit the network.
    DataError
        If they hold something that is no number, or a class that is not one of the network's.
    """
    inputs, targets = checked_samples(network, X, y)
    n_rows = min(inputs.shape[0], network.rows_at_once)
    reserved = n_rows * bytes_per_sample(network)
    return evaluate_samples(network, place_samples(network, inputs, targets, n_rows, reserved))


def evaluate_samples(network: Network, samples: Samples) -> Evaluation:
    """Measure a network on samples that are in their place; see `evaluate`."""
    backend = network.backend
    outputs = backend.empty((samples.n_rows, network.n_outputs), network.dtype)
    row_losses = backend.zeros((samples.n_rows,), np.float64)
    host = np.empty((samples.n_samples, network.n_outputs), network.dtype)
    n_hits = 0
    for rows, inputs, targets in samples.batches():
        n_rows = inputs.shape[0]
        network.add_losses(inputs, targets, row_losses[:n_rows], outputs[:n_rows])
        host[rows] = backend.to_host(outputs[:n_rows])
        if network.n_outputs > 1:
            hits = host[rows].argmax(axis=1) == backend.to_host(targets).argmax(axis=1)
            n_hits += int(np.count_nonzero(hits))
    loss = float(backend.to_host(row_losses).sum()) / samples.n_samples
    return Evaluation(loss, n_hits / samples.n_samples if network.n_outputs > 1 else None, host)


def checked_samples(network: Network, X: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Return inputs and targets where they are; those on the host are all finite."""
    inputs, targets = network.check_samples(X, as_targets(network, y))
    for name, values in (("inputs", inputs), ("targets", targets)):
        if isinstance(values, np.ndarray):
            _check_finite(name, values, network.dtype)
    return inputs, targets


def _check_finite(name: str, values: NDArray[Any], dtype: np.dtype[Any]) -> None:
    if values.dtype.kind != "f":
        return
    largest = np.finfo(dtype).max
    step = max(1, 2**17 // max(1, values.shape[1]))
    for start in range(0, values.shape[0], step):
        piece = values[start : start + step]
        # Two passes without temporary arrays; NaN makes both comparisons false.
        if piece.size == 0 or (piece.min() >= -largest and piece.max() <= largest):
            continue
        row, column = np.argwhere(~(np.abs(piece) <= largest))[0]
        raise DataError(
            f"{name} must be finite: row {start + row}, column {column} is "
            f"{piece[row, column]}; remove or replace such values"
        )
