"""Whether a network can be trained on what a file held: numbers, and class numbers as labels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.matrices import blocks
from gpunn.errors import DataError

MAX_LABEL = 65_535
"""More classes are surely a column of something else, and would fill the memory later."""


def check_inputs(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Return inputs as one contiguous row a sample, in the machine's byte order.

    What is mapped stays as it is in its file.

    Parameters
    ----------
    array : array, shape (n_samples, ...)
        What a file held.
    where : str
        File and name of the array, for the message.

    Raises
    ------
    DataError
        If it does not hold finite numbers, at least one a sample.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} must hold numbers, got the type {array.dtype}")
    if array.ndim < 2 or not array.size:
        raise DataError(
            f"{where} must have shape (samples, features) or (samples, rows, columns), none of "
            f"them 0, got {array.shape}"
        )
    if not isinstance(array, np.memmap):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    elif array.ndim > 2 and not array.flags.c_contiguous:
        raise DataError(
            f"{where} is larger than the memory and in Fortran's order; save it in C's order"
        )
    flat = array.reshape(len(array), -1)
    _check_finite(flat, where)
    return flat


def _check_finite(matrix: NDArray[Any], where: str) -> None:
    """Raise unless all numbers of a matrix are finite; it may be mapped."""
    for rows in blocks(matrix) if matrix.dtype.kind == "f" else ():
        finite = np.isfinite(matrix[rows])
        if not finite.all():
            row, column = np.unravel_index(np.argmin(finite), finite.shape)
            row += rows.start
            raise DataError(
                f"{where} holds {matrix[row, column]} in row {row}, column {column} (counted from "
                "0); remove or replace it"
            )


def check_labels(array: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return class numbers as int64, shape (n_samples,).

    Parameters
    ----------
    array : array, shape (n_samples,) or (n_samples, 1)
        What a file held, of any type of number.
    where : str
        File and name of the array, for the message.

    Raises
    ------
    DataError
        If it does not hold whole numbers from 0 to `MAX_LABEL`, one a sample.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} must hold whole numbers, got the type {array.dtype}")
    if array.ndim == 2 and array.shape[1] > 1:
        raise DataError(
            f"{where} has shape {array.shape}; expected one class number for each sample, so turn "
            "one-hot rows into numbers with argmax(axis=1)"
        )
    if array.shape not in ((array.size,), (array.size, 1)) or not array.size:
        raise DataError(f"{where} must have shape (samples,), got {array.shape}")
    flat = array.reshape(-1)
    whole = (flat >= 0) & (flat <= MAX_LABEL)
    if array.dtype.kind == "f":
        whole &= flat == np.floor(flat)
    if not whole.all():
        row = int(np.argmin(whole))
        raise DataError(
            f"{where} must hold whole numbers from 0 to {MAX_LABEL}, got {flat[row]} in row {row} "
            "(counted from 0); other numbers are learnt with --task regression"
        )
    return flat.astype(np.int64)


def check_targets(array: NDArray[Any], where: str) -> NDArray[np.float64]:
    """Return numbers to predict as float64, shape (n_samples, n_targets).

    Parameters
    ----------
    array : array, shape (n_samples,) or (n_samples, n_targets)
        What a file held, of any type of number.
    where : str
        File and name of the array, for the message.

    Raises
    ------
    DataError
        If it does not hold finite numbers, at least one a sample.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} must hold numbers to predict, got the type {array.dtype}")
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(
            f"{where} must have shape (samples,) or (samples, targets), got {array.shape}"
        )
    targets = array.reshape(len(array), -1).astype(np.float64)
    _check_finite(targets, where)
    return targets


def are_whole(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each number whether it is a whole one, and no larger than float64 counts to."""
    whole: NDArray[np.bool_] = values == np.floor(values)
    return whole & (np.abs(values) < 2.0**53)


def are_labels(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each number whether it can be a label: a whole one from 0 to `MAX_LABEL`."""
    return are_whole(values) & (values >= 0) & (values <= MAX_LABEL)


def are_bytes(inputs: NDArray[Any]) -> bool:
    """Whether the values are whole numbers that run from 0 to 255, as 8-bit pixels do."""
    if inputs.min() != 0 or inputs.max() != 255:
        return False
    if inputs.dtype.kind in "iu":
        return True
    parts = (inputs[rows] for rows in blocks(inputs))
    return all(np.array_equal(part, part.astype(np.uint8)) for part in parts)
