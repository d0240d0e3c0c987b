"""The network run backwards, which shows what a class looks like to it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import DataError
from gpunn.network.state import NetworkState


def inverse(network: NetworkState, targets: NDArray[Any]) -> NDArray[Any]:
    """Return inputs that would give these outputs: the network run backwards.

    From the outputs down, ``z = f^-1(a)`` and ``a_below = (z - b) W``, where each signal
    ``a_below`` is stretched to [0.01, 0.99], the range that the inverse of the sigmoid likes.

    Parameters
    ----------
    network : Network
        The network, on any device; its matrices are brought to the host one after the other.
    targets : ndarray, shape (n, n_L)
        Outputs in the network's dtype, within the range of the output activation (strictly
        between 0 and 1 for sigmoid and softmax outputs).

    Returns
    -------
    ndarray, shape (n, n_0)
        Inputs in [0.01, 0.99], on the host.

    Raises
    ------
    DataError
        If the output activation can never reach the targets.

    References
    ----------
    T. Rashid, *Make Your Own Neural Network* (2016), part 3.
    """
    signals = targets
    for index, layer in reversed(list(enumerate(network.layers))):
        with np.errstate(all="ignore"):
            z = layer.activation.inverse(signals)
        if not np.isfinite(z).all():
            raise DataError(
                f"no finite input of {layer.activation.name} gives these targets: "
                "use values strictly inside its range, such as 0.01 and 0.99"
            )
        # Ranks that share the units bring them together: a signal is stretched among all others.
        if layer.biases is not None:
            name = f"layers.{index}.bias"
            z = z - network.whole({name: layer.biases})[name]
        signals = _stretch(z @ network.weights_of(index))
    return signals


def _stretch(signals: NDArray[Any]) -> NDArray[Any]:
    """Return each row stretched to [0.01, 0.99]; a row of equal numbers becomes 0.5."""
    low = signals.min(axis=1, keepdims=True)
    span = signals.max(axis=1, keepdims=True) - low
    with np.errstate(invalid="ignore", divide="ignore"):
        stretched = (signals - low) / span * 0.98 + 0.01
    return np.where(span > 0, stretched, 0.5)
