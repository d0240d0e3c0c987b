"""Class labels, and the targets that they stand for."""

import copy
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpunn.data.matrices import Rows, blocks
from gpunn.errors import DataError, ShapeError


class TargetValues(Protocol):
    """What a `gpunn.data.scaling.Scaling` knows of targets."""

    @property
    def target_low(self) -> float:
        """The target of an output for "not this class"."""

    @property
    def target_high(self) -> float:
        """The target of an output for "this class"."""


class TargetRows(Rows):
    """A row of targets for each label, as `Scaling.encode_labels` has them, when asked for.

    Raises
    ------
    DataError, ShapeError
        As `Scaling.encode_labels` does.
    """

    def __init__(
        self, scaling: TargetValues, labels: ArrayLike, n_classes: int, dtype: DTypeLike
    ) -> None:
        self.labels, self._scaling = _checked_labels(labels, n_classes), scaling
        super().__init__((len(self.labels), n_classes), dtype)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        labels = self.labels[rows].astype(np.intp)
        targets = np.full((len(labels), self.shape[1]), self._scaling.target_low, self.dtype)
        targets[np.arange(len(labels)), labels] = self._scaling.target_high
        return targets

    def part(self, rows: slice) -> "TargetRows":
        """Return the targets of some of the labels."""
        part = copy.copy(self)
        part.labels = self.labels[rows]
        part.shape = (len(part.labels), self.shape[1])
        return part


def _checked_labels(labels: ArrayLike, n_classes: int) -> NDArray[Any]:
    array = np.asarray(labels)
    if array.ndim != 1:
        raise ShapeError(f"labels must have shape (n_samples,), got {array.shape}")
    if array.dtype.kind not in "biuf":
        if array.size:
            raise DataError(f"labels must be whole numbers, got {array[0]!r} at position 0")
        array = np.empty(0, np.intp)
    for rows in blocks(array[:, np.newaxis]):
        part = array[rows]
        good = (part >= 0) & (part < n_classes)
        if array.dtype.kind == "f":
            good &= part == np.floor(part)
        if not good.all():
            position = rows.start + int(np.argmin(good))
            raise DataError(
                f"labels must be whole numbers from 0 to {n_classes - 1}, "
                f"got {array[position]} at position {position}"
            )
    return array


def class_numbers(
    labels: NDArray[np.int64], classes: NDArray[np.int64], where: str
) -> NDArray[np.int64]:
    """Return which of the classes each label is, as numbers from 0.

    Parameters
    ----------
    labels : array of int64, shape (n_samples,)
        Labels as the data have them.
    classes : array of int64, shape (n_classes,)
        The labels that there are, in the order of a network's outputs.
    where : str
        What the data are called, for the error.

    Returns
    -------
    array of int64, shape (n_samples,)

    Raises
    ------
    DataError
        If a label is none of the classes.
    """
    order = np.argsort(classes)
    places = np.searchsorted(classes, labels, sorter=order)
    numbers: NDArray[np.int64] = order[places.clip(max=len(classes) - 1)]
    wrong = np.flatnonzero(classes[numbers] != labels)
    if len(wrong):
        known = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
        raise DataError(
            f"{where}: the label of sample {wrong[0] + 1} is {labels[wrong[0]]}, which is out of "
            f"range: the model knows {known}"
        )
    return numbers
