"""Numerical differentiation: the check on backpropagation that needs no backpropagation.

The derivative of the error in a parameter w is nearly ``(E(w + h) - E(w - h)) / 2h``, wrong by
``h^2 / 6`` times the third derivative and by the rounding of E divided by h. Two forward passes a
parameter make it slow, and sure. Use it on your own network, in float64.

Source: M. A. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 2; Bishop (2006), 5.3.3.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.network import Network
from gpunn.training.evaluation import evaluate


def numerical_gradients(
    network: Network, X: ArrayLike, T: ArrayLike, *, h: float = 1e-5
) -> dict[str, NDArray[Any]]:
    """Return the gradients of the mean error by central differences.

    Parameters
    ----------
    network : Network
        A small network, best in float64; it is as before afterwards.
    X : array_like, shape (n, n_0)
        Inputs.
    T : array_like, shape (n, n_L)
        Targets.
    h : float
        How far each parameter is moved, relative to its size where that is above 1.

    Returns
    -------
    dict of str to ndarray
        Gradients named and shaped as `Network.parameters`.

    Raises
    ------
    ShapeError
        If inputs and targets do not fit the network or each other.
    """
    original = network.parameters()
    moved = {name: array.copy() for name, array in original.items()}
    gradients = {name: np.empty_like(array) for name, array in original.items()}

    def error_with(array: NDArray[Any], index: tuple[int, ...], value: float) -> float:
        array[index] = value
        network.load_parameters(moved)
        return evaluate(network, X, T).loss

    try:
        for name, array in moved.items():
            for index in np.ndindex(array.shape):
                here = float(original[name][index])
                step = h * max(1.0, abs(here))
                above = error_with(array, index, here + step)
                below = error_with(array, index, here - step)
                gradients[name][index] = (above - below) / (2 * step)
                array[index] = here
    finally:
        network.load_parameters(original)
    return gradients


def check_gradients(
    network: Network, X: ArrayLike, T: ArrayLike, *, h: float = 1e-5
) -> dict[str, float]:
    """Return how far backpropagation is from central differences.

    Parameters
    ----------
    network : Network
        A small network, best in float64.
    X : array_like, shape (n, n_0)
        Inputs.
    T : array_like, shape (n, n_L)
        Targets.
    h : float
        How far each parameter is moved.

    Returns
    -------
    dict of str to float
        For each parameter the largest difference, relative to the largest gradient in it.

    Raises
    ------
    ShapeError
        If inputs and targets do not fit the network or each other.
    """
    _, gradients = network.loss_and_gradients(X, T)
    differences = {}
    for name, numerical in numerical_gradients(network, X, T, h=h).items():
        scale = max(np.abs(numerical).max(), np.abs(gradients[name]).max())
        difference = np.abs(gradients[name] - numerical).max()
        differences[name] = float(difference / scale) if scale > 0 else 0.0
    return differences
