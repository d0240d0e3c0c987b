"""The network run backwards, which shows what a class looks like to it."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.errors import DataError, ShapeError
from gpunn.network.inputs import check_numbers, host_array
from gpunn.network.state import NetworkState


def backquery(network: NetworkState, targets: ArrayLike) -> NDArray[Any]:
    """Run the network backwards, from outputs to inputs that would make them.

    From the outputs down, ``z = f^-1(a)`` and ``a_below = (z - b) W``, where each signal
    ``a_below`` is stretched to [0.01, 0.99], the range that the inverse of the sigmoid likes.

    Parameters
    ----------
    network : Network
        The network, on any device; its matrices are brought to the host one after the other.
    targets : array_like, shape (n, n_L) or (n_L,)
        Outputs, within the range of the output activation (strictly between 0 and 1 for
        sigmoid and softmax outputs).

    Returns
    -------
    ndarray, shape (n, n_0) or (n_0,)
        Inputs in [0.01, 0.99], on the host.

    Raises
    ------
    ShapeError
        If the targets do not have n_L columns.
    DataError
        If they are not numbers, or the output activation can never reach them.

    References
    ----------
    T. Rashid, *Make Your Own Neural Network* (2016), part 3.
    """
    backend = network.backend
    if backend.owns(targets):
        targets = backend.to_host(targets)
    given = host_array(targets, "targets", backend.name)
    check_numbers(given, "targets")
    signals = np.atleast_2d(given).astype(network.dtype)
    if given.ndim not in (1, 2) or signals.shape[1] != network.n_outputs:
        raise ShapeError(
            f"targets must have shape (n, {network.n_outputs}), got {tuple(given.shape)}"
        )
    for layer in reversed(network.layers):
        with np.errstate(all="ignore"):
            z = layer.activation.inverse(signals)
        if not np.isfinite(z).all():
            raise DataError(
                f"no finite input of {layer.activation.name} gives these targets: "
                "use values strictly inside its range, such as 0.01 and 0.99"
            )
        if layer.biases is not None:
            z = z - backend.to_host(layer.biases)
        signals = _stretch(z @ backend.to_host(layer.weights))
    return signals[0] if given.ndim == 1 else signals


def _stretch(signals: NDArray[Any]) -> NDArray[Any]:
    """Return each row stretched to [0.01, 0.99]; a row of equal numbers becomes 0.5."""
    low = signals.min(axis=1, keepdims=True)
    span = signals.max(axis=1, keepdims=True) - low
    with np.errstate(invalid="ignore", divide="ignore"):
        stretched = (signals - low) / span * 0.98 + 0.01
    return np.where(span > 0, stretched, 0.5)
