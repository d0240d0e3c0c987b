"""What each class looks like to a network of pictures."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.picture_records import PictureField
from gpunn.network.backquery import Method
from gpunn.network.network import Network

_NEAR = 0.01
"""The inverse of a sigmoid is infinite at 0 and 1, so this much is kept from them."""


def class_images(
    network: Network, field: PictureField, method: Method, n_classes: int | None = None
) -> NDArray[Any]:
    """Return a picture of each class, or of the first few.

    Parameters
    ----------
    network : Network
        A network of pictures.
    field : PictureField
        What it takes for a picture.
    method : {"inverse", "gradient"}
        How it is asked; see `Network.backquery`.
    n_classes : int, optional
        How many of its classes; all by default.

    Returns
    -------
    ndarray, shape (n_classes, rows, columns)
        Pictures in [0, 1]: the larger a number, the more ink.

    Raises
    ------
    DataError
        If the inverse does not exist.
    """
    n, scaling = n_classes or network.n_outputs, network.scaling
    inverts = method == "inverse"
    targets = np.full((n, network.n_outputs), _NEAR if inverts else scaling.target_low)
    np.fill_diagonal(targets, 1 - _NEAR if inverts else scaling.target_high)
    if inverts:
        return network.backquery(targets).reshape(-1, *field.shape)
    low, high = _ends(network, field)
    found = network.backquery(
        targets, method="gradient", input_range=(low, high), image_shape=field.shape
    )
    return as_pictures(network, field, found)


def as_pictures(network: Network, field: PictureField, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return inputs of a network, shape (n, n_0), as pictures in [0, 1], (n, rows, columns)."""
    low, high = _ends(network, field)
    shares: NDArray[np.float64] = (X - low) / np.where(high > low, high - low, 1)
    return shares.clip(0, 1).reshape(-1, *field.shape)


def _ends(network: Network, field: PictureField) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what the network takes for no ink and for the most, of each pixel."""
    ends = np.repeat([[field.low], [field.high]], network.n_inputs, axis=1)
    low, high = np.sort(network.scaling.apply(ends, np.float64), axis=0)
    return low, high
