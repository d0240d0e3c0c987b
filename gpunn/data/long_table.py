"""Tables that are larger than the memory: gone through once to know them, then part by part.

A random number is drawn for each row, from a seed and in the order of the file. It says which part
the row belongs to: the one to train on, the one to test with, or the one to validate on. So a part
is the same each time, and takes no memory.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpunn.data.datasets import image_shape_of
from gpunn.data.files import FilePath
from gpunn.data.formats import table_chunks
from gpunn.data.labels import class_numbers
from gpunn.data.matrices import row_blocks
from gpunn.data.scaling import Scaling
from gpunn.errors import DataError
from gpunn.host_memory import free_memory, in_gib

BUFFER_BYTES = 2**28
"""What is shuffled together takes so much memory: inputs, labels and their order."""


@dataclass(frozen=True, eq=False)
class TablePart:
    """The rows of a table whose random number lies in a range, again and again.

    Attributes
    ----------
    path : path
        The CSV or Parquet file.
    seed : int
        Seed of the random numbers.
    low, high : float
        The range, between 0 and 1; `high` is excluded.
    """

    path: FilePath
    seed: int
    low: float = 0.0
    high: float = 1.0

    def __iter__(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Yield raw inputs (n, n_features) and labels (n,)."""
        generator = np.random.default_rng([self.seed, 3])
        for table in table_chunks(self.path):
            drawn = generator.random(len(table))
            rows = table[(self.low <= drawn) & (drawn < self.high)]
            yield rows[:, 1:], rows[:, 0].astype(np.int64)

    def count(self, n_rows: int) -> int:
        """Return how many of a table's rows are in this part."""
        generator, n = np.random.default_rng([self.seed, 3]), 0
        for block in row_blocks(n_rows, 2**20):
            drawn = generator.random(block.stop - block.start)
            n += int(np.count_nonzero((self.low <= drawn) & (drawn < self.high)))
        return n

    def split(self, fraction: float) -> tuple["TablePart", "TablePart"]:
        """Return two parts of this one, the second of about that fraction of it."""
        cut = self.high - fraction * (self.high - self.low)
        return (
            TablePart(self.path, self.seed, self.low, cut),
            TablePart(self.path, self.seed, cut, self.high),
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A part of a table as a network takes it: inputs scaled, labels as numbers of classes."""

    part: TablePart
    scaling: Scaling
    classes: NDArray[np.int64]
    dtype: np.dtype[np.floating]

    def __iter__(self) -> Iterator[tuple[NDArray[np.floating], NDArray[np.int64]]]:
        for inputs, labels in self.part:
            numbers = class_numbers(labels, self.classes, os.fspath(self.part.path))
            yield self.scaling.apply(inputs, self.dtype), numbers


@dataclass(frozen=True, eq=False)
class LongTable:
    """What is known of a table that is larger than the memory, after going through it once.

    Attributes
    ----------
    name : str
        The file's name.
    train, test : TablePart
        Its two parts.
    n_train, n_test : int
        How many rows they have.
    classes : array of int64, shape (n_classes,)
        The labels that there are.
    extremes : array of float64, shape (2, n_features)
        The smallest and the largest values of the training part.
    value_range, image_shape
        As in `gpunn.data.Dataset`.
    fingerprint : str
        A hash of all numbers.
    why : str
        Why it stays on the disk, for a person to read.
    """

    name: str
    train: TablePart
    test: TablePart
    n_train: int
    n_test: int
    classes: NDArray[np.int64]
    extremes: NDArray[np.float64]
    value_range: tuple[float, float] | None
    image_shape: tuple[int, int] | None
    fingerprint: str
    why: str

    @property
    def n_features(self) -> int:
        """Number of values in one input."""
        return int(self.extremes.shape[1])

    def buffer_rows(self, dtype: np.dtype[np.floating]) -> int:
        """Return how many rows are shuffled together: so many as take 256 MiB."""
        return max(1, BUFFER_BYTES // (self.n_features * dtype.itemsize + 16))


def go_through(path: FilePath, test_fraction: float, seed: int) -> LongTable:
    """Go through a table once, and return what there is to know of it.

    Parameters
    ----------
    path : path
        The CSV or Parquet file.
    test_fraction : float
        About how much of it is to be held out for testing.
    seed : int
        Seed of the random numbers that choose it.

    Returns
    -------
    LongTable

    Raises
    ------
    DataError
        If the file is bad, or too short to hold out anything.
    """
    train, test = TablePart(path, seed).split(test_fraction)
    generator, digest = np.random.default_rng([seed, 3]), hashlib.sha256()
    everything, trained = _Extremes(), _Extremes()
    labels, counts, whole = set[int](), [0, 0], True
    for table in table_chunks(path):
        is_test = generator.random(len(table)) >= train.high
        inputs = table[:, 1:]
        everything.add(inputs)
        trained.add(inputs[~is_test])
        whole = whole and np.array_equal(inputs, np.floor(inputs))
        labels.update(np.unique(table[:, 0]).astype(int).tolist())
        counts[0] += int(np.count_nonzero(~is_test))
        counts[1] += int(np.count_nonzero(is_test))
        digest.update(table.reshape(-1).view(np.uint8).data)
    if not all(counts):
        raise DataError(f"{path}: {sum(counts)} rows are too few to hold some out for testing")
    lowest, highest = everything.low.min(), everything.high.max()
    are_bytes = whole and (lowest, highest) == (0, 255)
    n_bytes = 8 * sum(counts) * (trained.low.size + 1)
    return LongTable(
        name=os.path.basename(path),
        train=train,
        test=test,
        n_train=counts[0],
        n_test=counts[1],
        classes=np.array(sorted(labels), np.int64),
        extremes=np.stack([trained.low, trained.high]),
        value_range=(0.0, 255.0) if are_bytes else None,
        image_shape=image_shape_of((trained.low.size,), guess=are_bytes),
        fingerprint=digest.hexdigest()[:32],
        why=f"its numbers take {in_gib(n_bytes)}, but only {in_gib(free_memory())} of memory are "
        "free",
    )


class _Extremes:
    """Each feature's smallest and largest value so far."""

    def __init__(self) -> None:
        self.low, self.high = np.array(np.inf), np.array(-np.inf)

    def add(self, inputs: NDArray[np.float64]) -> None:
        self.low = np.minimum(self.low, inputs.min(axis=0, initial=np.inf))
        self.high = np.maximum(self.high, inputs.max(axis=0, initial=-np.inf))
