"""Arrays as users give them, checked against what a network takes.

Nothing is copied or brought to a device here: inputs on the host may be more than it has room for.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backends.base import Array, Backend, is_on_gpu
from gpunn.data.matrices import Rows
from gpunn.errors import DataError, DeviceError, ShapeError
from gpunn.network.frames import plain_values


def host_array(values: ArrayLike, name: str, device: str) -> NDArray[Any]:
    """Return values as an array on the host; `Rows` stay what they are.

    Raises
    ------
    DataError
        If they are a data frame or a tensor that holds something else than numbers.
    DeviceError
        If they lie on a GPU.
    ShapeError
        If they are no rectangular array.
    """
    if isinstance(values, Rows):
        return values  # type: ignore[return-value]
    values = plain_values(values, name)
    if is_on_gpu(values):
        raise DeviceError(
            f"{name} are on a GPU, but the network is on {device}: make the network on that GPU, "
            "or give a host copy (`.get()`)"
        )
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ShapeError(f"{name} must be a rectangular array: {error}") from error


def check_numbers(array: Array, name: str) -> None:
    """Raise DataError unless an array, on any device, is one of real numbers."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} must be numbers, got an array of {array.dtype}")


def check_rows(
    backend: Backend, values: ArrayLike, n_columns: int, name: str
) -> tuple[Array, bool]:
    """Return values as a matrix where they are, and whether they were a single row.

    Parameters
    ----------
    backend : Backend
        The network's device.
    values : array_like or Rows, shape (n, n_columns) or (n_columns,)
        What was given.
    n_columns : int
        Its columns, as the network has them.
    name : str
        What to call it in a message.

    Raises
    ------
    ShapeError
        If they do not have `n_columns` columns.
    DataError
        If they are not numbers.
    DeviceError
        If they lie on another device.
    """
    array: Any = values if backend.owns(values) else host_array(values, name, backend.name)
    check_numbers(array, name)
    single = array.ndim == 1
    if array.ndim not in (1, 2) or array.shape[-1] != n_columns:
        raise ShapeError(
            f"{name} must have shape (n, {n_columns}) for this network, got {tuple(array.shape)}"
        )
    return array.reshape((1, n_columns)) if single else array, single
