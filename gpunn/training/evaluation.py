"""How a network does on some samples: its error and its accuracy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.network import Network
from gpunn.training.loaders import Loader, check_given, loader_of_given
from gpunn.training.memory import bytes_per_sample
from gpunn.training.streams import Stream


@dataclass(frozen=True)
class Evaluation:
    """How a network does on some samples.

    Attributes
    ----------
    loss : float
        The mean error.
    accuracy : float or None
        The share of samples whose largest output is the target's; None for a single output.
    outputs : ndarray, shape (n, n_L), or None
        The outputs, on the host; None for a stream, whose outputs might not fit there.
    """

    loss: float
    accuracy: float | None
    outputs: NDArray[Any] | None


def evaluate(network: Network, X: ArrayLike | Stream, y: ArrayLike | None = None) -> Evaluation:
    """Measure a network's error and accuracy on some samples.

    Parameters
    ----------
    network : Network
        The network.
    X : array_like, shape (n, n_0), or Stream
        Inputs, scaled as in training.
    y : array_like, shape (n,) or (n, n_L), optional
        Class numbers or targets; a stream has them in it.

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
    given = check_given(network, X, y)
    n_rows = min(given.n_samples, network.rows_at_once)
    samples = loader_of_given(network, given, n_rows, n_rows * bytes_per_sample(network))
    return evaluate_samples(network, samples, keep_outputs=given.stream is None)


def evaluate_samples(
    network: Network, samples: Loader, *, keep_outputs: bool = False
) -> Evaluation:
    """Measure a network on samples that are in their place; see `evaluate`."""
    backend = network.backend
    outputs = backend.empty((samples.n_rows, network.n_outputs), network.dtype)
    row_losses = backend.zeros((samples.n_rows,), np.float64)
    kept = None
    if keep_outputs:
        kept = np.empty((samples.n_samples, network.n_outputs), network.dtype)
    n_hits = 0
    for rows, inputs, targets in samples.batches():
        n_rows = inputs.shape[0]
        network.add_losses(inputs, targets, row_losses[:n_rows], outputs[:n_rows])
        host = backend.to_host(outputs[:n_rows])
        if network.n_outputs > 1:
            hits = host.argmax(axis=1) == backend.to_host(targets).argmax(axis=1)
            n_hits += int(np.count_nonzero(hits))
        if kept is not None:
            kept[rows] = host
    loss = float(backend.to_host(row_losses).sum()) / samples.n_samples
    accuracy = n_hits / samples.n_samples if network.n_outputs > 1 else None
    return Evaluation(loss, accuracy, kept)
