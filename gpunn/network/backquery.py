"""The network asked the other way round: what is wanted, and by which method it is sought."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.errors import ParameterError, ShapeError
from gpunn.network.climb import Field
from gpunn.network.inputs import check_numbers, host_array
from gpunn.network.state import NetworkState

Method = Literal["inverse", "gradient"]
METHODS: tuple[Method, ...] = ("inverse", "gradient")


def best_method(network: NetworkState) -> Method:
    """Return the method that shows most of what a network has learnt.

    Only a sigmoid has an inverse that every target is in the range of, and biases drown the signals
    that come down.
    """
    layers = network.layers
    is_plain = all(layer.activation.name == "sigmoid" and layer.biases is None for layer in layers)
    return "inverse" if is_plain else "gradient"


def wanted_outputs(network: NetworkState, targets: ArrayLike) -> NDArray[Any]:
    """Return targets as a matrix on the host, in the network's dtype.

    Raises
    ------
    ShapeError
        If they do not have n_L columns.
    DataError
        If they are not numbers.
    """
    backend = network.backend
    if backend.owns(targets):
        targets = backend.to_host(targets)
    given = host_array(targets, "targets", backend.name)
    check_numbers(given, "targets")
    wanted: NDArray[Any] = np.atleast_2d(given).astype(network.dtype)
    if given.ndim not in (1, 2) or wanted.shape[1] != network.n_outputs:
        raise ShapeError(
            f"targets must have shape (n, {network.n_outputs}), got {tuple(given.shape)}"
        )
    return wanted


def field_of(n_inputs: int, input_range: object, image_shape: object) -> Field:
    """Return where a climb may go.

    Raises
    ------
    ParameterError
        If the range has no finite ends, the lower first, or the shape has another number of
        pixels than the network has inputs.
    """
    try:
        ends = [np.broadcast_to(np.asarray(end, np.float64), n_inputs) for end in input_range]  # type: ignore[attr-defined]
        low, high = ends
    except (TypeError, ValueError):
        low = high = np.full(n_inputs, math.nan)
    if not ((low <= high).all() and np.isfinite(high - low).all()):
        raise ParameterError(
            "input_range must be the lowest and the highest value of inputs, finite, for all or "
            f"for each of {n_inputs}, got {input_range!r:.60}"
        )
    return Field(low, high, checked_image_shape(image_shape, n_inputs))


def checked_image_shape(image_shape: object, n_inputs: int) -> tuple[int, int] | None:
    """Return the rows and columns that so many pixels are to have, if they are given.

    Raises
    ------
    ParameterError
        If they have another number of pixels.
    """
    if image_shape is None:
        return None
    try:
        rows, columns = map(int, image_shape)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        rows = columns = 0
    if min(rows, columns) < 1 or rows * columns != n_inputs:
        raise ParameterError(
            f"image_shape must be the rows and columns of {n_inputs} pixels, got "
            f"{image_shape!r:.60}"
        )
    return rows, columns


def check_method(method: object) -> None:
    """Raise ParameterError unless there is such a method."""
    if method not in METHODS:
        raise ParameterError(f"method must be 'inverse' or 'gradient', got {method!r:.60}")
