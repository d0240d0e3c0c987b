"""A data set: inputs with their labels, checked, and perhaps a part to test with.

Values stay as the source has them (8-bit images stay 8-bit); `gpunn.data.scaling` makes network
inputs of them.
"""

import math
import os
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import are_bytes, check_inputs, check_labels, check_targets
from gpunn.data.files import FilePath
from gpunn.data.matrices import Matrix, select, stays_on_disk
from gpunn.data.tables.layout import Task
from gpunn.data.tables.preparation import Preparation
from gpunn.errors import DataError, ParameterError

BYTE_RANGE = (0.0, 255.0)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their labels, and perhaps a test part.

    Attributes
    ----------
    name : str
        Short name: that of a known data set, or of the file.
    inputs : array of numbers, shape (n_samples, n_features)
        In the data type of the source.
    labels : array, shape (n_samples,) or (n_samples, n_targets)
        Class numbers from 0, int64; or, for a regression, numbers to predict: float64, a row for
        each sample.
    test_inputs, test_labels : array or None
        Samples that training must not see; both or neither.
    test_rows : array of int64, or None
        Which rows of the source `split` chose as them, counted from 0; None if it did not.
    value_range : (float, float) or None
        Smallest and largest raw value that the source can have, such as (0, 255) for 8-bit images;
        None if not known.
    image_shape : (int, int) or None
        Rows and columns, if the features are the pixels of an image, row by row.
    description : str
        One line that says where the data come from.
    sample_weight : array, shape (n_samples,), or None
        How much each training sample counts.
    class_names : tuple of str or int, or None
        What each label stands for, if that is not its number.
    preparation : Preparation or None
        How the columns of a table became these inputs.
    notes : tuple of str
        What was found in the files and done with it, in lines for a person.

    Inputs that are larger than the memory stay in their files: they are a `numpy.memmap`, or
    `gpunn.data.matrices.Rows` of one after `split`, which also give rows as arrays.
    """

    name: str
    inputs: Matrix
    labels: NDArray[Any]
    test_inputs: Matrix | None = None
    test_labels: NDArray[Any] | None = None
    test_rows: NDArray[np.int64] | None = None
    value_range: tuple[float, float] | None = None
    image_shape: tuple[int, int] | None = None
    description: str = ""
    sample_weight: NDArray[Any] | None = None
    class_names: tuple[str | int, ...] | None = None
    preparation: Preparation | None = None
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What is to be learnt: "classification" or "regression"."""
        return "regression" if self.labels.ndim == 2 else "classification"

    @property
    def n_features(self) -> int:
        """Number of values in one input."""
        return int(self.inputs.shape[1])

    @property
    def stays_on_disk(self) -> bool:
        """Whether the inputs are larger than the memory, and stay in their files."""
        return stays_on_disk(self.inputs)

    @property
    def n_classes(self) -> int:
        """One more than the largest label, in training and test samples together."""
        tested = -1 if self.test_labels is None else int(self.test_labels.max(initial=-1))
        return max(int(self.labels.max(initial=-1)), tested) + 1

    def split(self, test_fraction: float, seed: int) -> Self:
        """Return this data set with a part held out for testing, class by class.

        Both parts are in random order and hold each class in about the same proportion; a class
        of two samples or more has at least one in each. Equal seeds give equal parts. Numbers to
        predict are held out at random.

        Parameters
        ----------
        test_fraction : float
            Part of the samples to hold out, between 0 and 1, both excluded.
        seed : int
            Seed of the random order.

        Returns
        -------
        Dataset
            This very object if it has a test part already.

        Raises
        ------
        ParameterError
            If `test_fraction` is not between 0 and 1.
        DataError
            If no class has two samples, so that nothing can be held out.
        """
        if not 0 < test_fraction < 1:
            raise ParameterError(f"test_fraction must be between 0 and 1, got {test_fraction}")
        if self.test_labels is not None:
            return self
        order, held_out = choose_held_out(self.labels, test_fraction, seed)
        if not held_out.any():
            raise DataError(
                f"{self.name}: no class has two samples, so none can be held "
                "out; numbers are learnt with --task regression"
            )
        train, test = order[~held_out[order]], order[held_out[order]]
        return replace(
            self,
            inputs=select(self.inputs, train),
            labels=self.labels[train],
            test_inputs=select(self.inputs, test),
            test_labels=self.labels[test],
            test_rows=test,
            sample_weight=None if self.sample_weight is None else self.sample_weight[train],
        )


def make_dataset(
    path: FilePath,
    arrays: list[tuple[str, NDArray[Any]]],
    description: str,
    *,
    task: Task | None = None,
    in_one_place: bool = True,
) -> Dataset:
    """Make a checked data set of named arrays: inputs, labels and perhaps the same for testing.

    They are in the file or folder `path`, or else each has the name of its own file. Without a
    `task`, labels are those of a classification.
    """
    within = f"{path}: " if in_one_place else ""
    check = check_targets if task == "regression" else check_labels
    checked: list[NDArray[Any]] = []
    for (inputs_name, inputs), (labels_name, labels) in zip(arrays[::2], arrays[1::2], strict=True):
        checked.append(check_inputs(inputs, within + inputs_name))
        checked.append(check(labels, within + labels_name))
        if len(inputs) != len(labels):
            raise DataError(
                f"{within}{inputs_name} has {len(inputs)} samples but {labels_name} has "
                f"{len(labels)}; there must be one label for each"
            )
    if len({inputs.shape[1] for inputs in checked[::2]}) > 1:
        raise DataError(
            f"{within}{arrays[0][0]} has {checked[0].shape[1]} features but {arrays[2][0]} has "
            f"{checked[2].shape[1]}; both must have the same"
        )
    value_range = BYTE_RANGE if are_bytes(checked[0]) else None
    image_shape = image_shape_of(arrays[0][1].shape[1:], guess=value_range is not None)
    test_inputs, test_labels = checked[2:] or (None, None)
    return Dataset(
        os.path.basename(os.path.abspath(path)),
        checked[0],
        checked[1],
        test_inputs,
        test_labels,
        value_range=value_range,
        image_shape=image_shape,
        description=description,
    )


def table_dataset(
    path: FilePath,
    inputs: NDArray[np.float64],
    labels: NDArray[Any],
    description: str,
    **what: Any,
) -> Dataset:
    """Make a data set of a table's checked numbers; tell bytes by their values.

    `what` are further attributes of the `Dataset`.
    """
    bytes_ = inputs.astype(np.uint8) if are_bytes(inputs) else None
    return Dataset(
        os.path.basename(os.path.abspath(path)),
        np.ascontiguousarray(inputs) if bytes_ is None else bytes_,
        labels,
        value_range=None if bytes_ is None else BYTE_RANGE,
        image_shape=image_shape_of(inputs.shape[1:], guess=bytes_ is not None),
        description=description,
        **what,
    )


def image_shape_of(shape: tuple[int, ...], *, guess: bool) -> tuple[int, int] | None:
    """Return rows and columns of inputs of a shape that are images; a square may be guessed."""
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        return int(shape[0]), int(shape[1])
    side = math.isqrt(shape[0])
    return (side, side) if guess and shape == (side * side,) else None


def choose_held_out(
    labels: NDArray[Any], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Choose which samples are held out, as `Dataset.split` does.

    Parameters
    ----------
    labels : ndarray
        As a `Dataset` has them.
    fraction : float
        About how much of each class is chosen; of numbers to predict, how much of all.
    seed : int
        Seed of the random order.

    Returns
    -------
    order : ndarray of int64, shape (n,)
        The random order of the samples.
    chosen : ndarray of bool, shape (n,)
        Whether each is held out: those of its class that come first in that order.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    # Numbers to predict are all of one class.
    classes = labels if labels.ndim == 1 else np.zeros(len(order), np.int64)
    return order, _choose_from_each_class(classes, order, fraction)


def _choose_from_each_class(
    labels: NDArray[np.int64], order: NDArray[np.int64], fraction: float
) -> NDArray[np.bool_]:
    """Mark about that fraction of each class, those of it that come first in `order`."""
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    wanted = np.minimum(np.maximum(np.rint(counts * fraction), 1), counts - 1)
    rank_in_class = np.arange(len(labels)) - np.repeat(starts, counts)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[by_class] = rank_in_class < np.repeat(wanted, counts)
    return chosen
