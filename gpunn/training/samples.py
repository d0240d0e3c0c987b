"""Samples as they are given to a training: labels to targets, and everything checked."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.backends.base import Array
from gpunn.data.labels import TargetRows
from gpunn.data.matrices import Matrix, blocks, is_on_host
from gpunn.errors import DataError
from gpunn.network import Network
from gpunn.network.frames import column_names
from gpunn.network.inputs import host_array


def as_targets(network: Network, y: ArrayLike) -> Any:
    """Return targets for labels, or targets as they are.

    Parameters
    ----------
    network : Network
        Whose outputs the targets are for; its `scaling` says what "yes" and "no" are.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers 0 to n_L - 1, or targets. With a single output, (n,) are its targets.

    Returns
    -------
    array_like or Rows, shape (n, n_L)
        The targets; those of class numbers are worked out when they are asked for.

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
    return TargetRows(network.scaling, y, network.n_outputs, network.dtype)


def checked_samples(network: Network, X: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Return inputs and targets where they are; those on the host are all finite."""
    inputs, targets = network.check_samples(X, as_targets(network, y))
    for name, values, columns in (("inputs", inputs, column_names(X)), ("targets", targets, None)):
        if is_on_host(values):
            _check_finite(name, values, columns, network.dtype)
    return inputs, targets


def _check_finite(
    name: str, values: Matrix, columns: list[str] | None, dtype: np.dtype[Any]
) -> None:
    if values.dtype.kind != "f":
        return
    largest = np.finfo(dtype).max
    for rows in blocks(values):
        chunk = values[rows]
        # Two passes without temporary arrays; NaN makes both comparisons false.
        if chunk.size == 0 or (chunk.min() >= -largest and chunk.max() <= largest):
            continue
        row, column = np.argwhere(~(np.abs(chunk) <= largest))[0]
        where = column if columns is None else repr(columns[column])
        raise DataError(
            f"{name} must be finite: row {rows.start + row}, column {where} is "
            f"{chunk[row, column]}; remove or replace such values"
        )
