"""Tables that are larger than the memory: gone through once to know them, then part by part.

A random number is drawn for each row, from a seed and in the order of the file. It says which part
the row belongs to: the one to train on, the one to test with, or the one to validate on. So a part
is the same each time, and takes no memory.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.datasets import image_shape_of
from gpunn.data.labels import class_numbers
from gpunn.data.matrices import row_blocks
from gpunn.data.scaling import Scaling
from gpunn.data.tables.layout import NO_OPTIONS, TableOptions, Task, choose_layout
from gpunn.data.tables.loading import (
    check_rows,
    make_preparation,
    new_vocabularies,
    notes_of,
    words_of,
)
from gpunn.data.tables.moments import Moments
from gpunn.data.tables.parts import PartReader
from gpunn.data.tables.preparation import Preparation
from gpunn.data.tables.prepared import PreparedTable
from gpunn.data.tables.table_file import TableFile
from gpunn.data.tables.task import TableFacts, decide_task
from gpunn.errors import DataError
from gpunn.host_memory import free_memory, in_gib

BUFFER_BYTES = 2**28
"""What is shuffled together takes so much memory: inputs, labels and their order."""


@dataclass(frozen=True, eq=False)
class TablePart:
    """The rows of a table whose random number lies in a range, again and again.

    Attributes
    ----------
    table : PreparedTable
        All its rows.
    seed : int
        Seed of the random numbers.
    low, high : float
        The range, between 0 and 1; `high` is excluded.
    """

    table: PreparedTable
    seed: int
    low: float = 0.0
    high: float = 1.0

    def __iter__(self) -> Iterator[tuple[NDArray[np.float64], NDArray[Any]]]:
        """Yield raw inputs (n, n_features) and labels as a `gpunn.data.Dataset` has them."""
        choose = self.chooser()
        for inputs, labels in self.table:
            rows = choose(len(inputs))
            yield inputs[rows], labels[rows]

    def chooser(self) -> Callable[[int], NDArray[np.bool_]]:
        """Return what tells of the next n rows, again and again, which are in this part."""
        generator = np.random.default_rng([self.seed, 3])

        def choose(n_rows: int) -> NDArray[np.bool_]:
            drawn = generator.random(n_rows)
            return (self.low <= drawn) & (drawn < self.high)

        return choose

    def count(self, n_rows: int) -> int:
        """Return how many of a table's rows are in this part."""
        choose = self.chooser()
        blocks = row_blocks(n_rows, 2**20)
        return sum(int(np.count_nonzero(choose(b.stop - b.start))) for b in blocks)

    def split(self, fraction: float) -> tuple["TablePart", "TablePart"]:
        """Return two parts of this one, the second of about that fraction of it."""
        cut = self.high - fraction * (self.high - self.low)
        return (
            TablePart(self.table, self.seed, self.low, cut),
            TablePart(self.table, self.seed, cut, self.high),
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A part of a table as a network takes it: inputs scaled, labels as targets.

    Attributes
    ----------
    part : TablePart
        The rows.
    scaling : Scaling
        That of the inputs.
    classes : ndarray of int64, shape (n_classes,), or None
        The labels that there are; None for numbers to predict.
    dtype : dtype
        That of the network.
    target_scaling : Scaling or None
        That of the numbers to predict.
    """

    part: TablePart
    scaling: Scaling
    classes: NDArray[np.int64] | None
    dtype: np.dtype[np.floating]
    target_scaling: Scaling | None = None

    def __iter__(self) -> Iterator[tuple[NDArray[np.floating], NDArray[Any]]]:
        for inputs, labels in self.part:
            scaled = self.scaling.apply(inputs, self.dtype)
            if self.classes is not None:
                where = os.fspath(self.part.table.file.path)
                yield scaled, class_numbers(labels, self.classes, where)
            elif self.target_scaling is not None:
                yield scaled, self.target_scaling.apply(labels, self.dtype)


@dataclass(frozen=True, eq=False)
class LongTable:
    """What is known of a table that is larger than the memory, after going through it once.

    Attributes
    ----------
    name : str
        The file's name.
    task : {"classification", "regression"}
        What is to be learnt.
    train, test : TablePart
        Its two parts.
    n_train, n_test : int
        How many rows they have.
    classes : array of int64, shape (n_classes,), or None
        The labels that there are; None for numbers to predict.
    class_names : tuple of str, or None
        What the labels stand for, if they are words.
    inputs, targets : Moments
        The smallest, largest and mean values of the training part and their deviations.
    value_range, image_shape, preparation, notes
        As in `gpunn.data.Dataset`.
    fingerprint : str
        A hash of all numbers.
    why : str
        Why it stays on the disk, for a person to read.
    """

    name: str
    task: Task
    train: TablePart
    test: TablePart
    n_train: int
    n_test: int
    classes: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    inputs: Moments
    targets: Moments
    value_range: tuple[float, float] | None
    image_shape: tuple[int, int] | None
    preparation: Preparation
    notes: tuple[str, ...]
    fingerprint: str
    why: str

    @property
    def n_features(self) -> int:
        """Number of values in one input."""
        return self.preparation.n_features

    def buffer_rows(self, dtype: np.dtype[np.floating]) -> int:
        """Return how many rows are shuffled together: so many as take 256 MiB."""
        return max(1, BUFFER_BYTES // (self.n_features * dtype.itemsize + 16))


def go_through(
    file: TableFile, test_fraction: float, seed: int, options: TableOptions = NO_OPTIONS
) -> LongTable:
    """Go through a table once, and return what there is to know of it.

    Parameters
    ----------
    file : TableFile
        The CSV or Parquet file.
    test_fraction : float
        About how much of it is to be held out for testing.
    seed : int
        Seed of the random numbers that choose it.
    options : TableOptions, optional
        What is to be learnt, and how.

    Returns
    -------
    LongTable

    Raises
    ------
    DataError
        If the file is bad, or too short to hold out anything.
    """
    layout = choose_layout(file, options)
    vocabularies = new_vocabularies(layout)
    reader = PartReader(file, layout, options.missing, vocabularies)
    survey = _Survey(len(layout.number_columns(layout.inputs)), len(layout.targets))
    generator, cut = np.random.default_rng([seed, 3]), 1 - test_fraction
    for part in reader:
        if options.missing == "zero":
            np.nan_to_num(part.numbers, copy=False)
        survey.add(part, generator.random(len(part.rows)) >= cut)
    check_rows(file, survey.facts.n_rows, reader)
    if not (survey.n_train and survey.n_test):
        raise DataError(
            f"{file.path}: {survey.facts.n_rows} rows are too few to hold some out for testing"
        )
    task = decide_task(file, layout, options, survey.facts)
    words = words_of(file, layout, vocabularies, survey.facts.n_rows)
    means = survey.trained.mean if options.missing == "mean" else None
    preparation = make_preparation(file, layout, options, [known for known, _ in words], means)
    n_inputs_of_words = len(survey.word_counts)
    class_names = tuple(words[-1][0]) if len(words) > n_inputs_of_words else None
    classes = None
    if task == "classification":
        values = range(len(class_names)) if class_names else sorted(map(int, survey.facts.values))
        classes = np.array(values, np.int64)
    own = preparation.layout_of(file, with_targets=True)
    table = PreparedTable(file, own, preparation, task, class_names, options.missing)
    train, test = TablePart(table, seed).split(test_fraction)
    are_bytes = survey.are_bytes and not n_inputs_of_words
    n_bytes = 8 * survey.facts.n_rows * (preparation.n_features + len(layout.targets))
    return LongTable(
        name=os.path.basename(file.path),
        task=task,
        train=train,
        test=test,
        n_train=survey.n_train,
        n_test=survey.n_test,
        classes=classes,
        class_names=class_names,
        inputs=survey.moments_of(preparation, [places for _, places in words]),
        targets=survey.targets,
        value_range=(0.0, 255.0) if are_bytes else None,
        image_shape=image_shape_of((preparation.n_features,), guess=are_bytes),
        preparation=preparation,
        notes=notes_of(file, layout, options, task, survey.facts, reader, preparation),
        fingerprint=survey.digest.hexdigest()[:32],
        why=f"its numbers take {in_gib(n_bytes)}, but only {in_gib(free_memory())} of memory are "
        "free",
    )


class _Survey:
    """What is gathered while a table is gone through."""

    def __init__(self, n_numbers: int, n_targets: int) -> None:
        self.n_train = self.n_test = 0
        self.facts, self.digest = TableFacts(n_numbers), hashlib.sha256()
        self.everything, self.trained = Moments.none(n_numbers), Moments.none(n_numbers)
        self.targets = Moments.none(n_targets)
        self.whole = True
        self.word_counts: list[NDArray[np.int64]] = []

    def add(self, part: Any, is_test: NDArray[np.bool_]) -> None:
        numbers = part.numbers
        self.facts.add(part)
        self.everything = self.everything.with_rows(numbers)
        self.trained = self.trained.with_rows(numbers[~is_test])
        self.targets = self.targets.with_rows(part.targets[~is_test])
        self.whole = self.whole and np.array_equal(numbers, np.floor(numbers))
        self.n_test += int(np.count_nonzero(is_test))
        self.n_train += int(np.count_nonzero(~is_test))
        for k, codes in enumerate(part.codes[~is_test].T):
            self._count(k, codes)
        for array in part[:3]:
            self.digest.update(np.ascontiguousarray(array).data)

    def _count(self, k: int, codes: NDArray[np.int32]) -> None:
        if k == len(self.word_counts):
            self.word_counts.append(np.zeros(0, np.int64))
        before = self.word_counts[k]
        counts = np.bincount(codes[codes >= 0], minlength=len(before))
        counts[: len(before)] += before
        self.word_counts[k] = counts

    @property
    def are_bytes(self) -> bool:
        """Whether all numbers are whole and run from 0 to 255."""
        everything = self.everything
        ends = everything.low.min(initial=np.inf), everything.high.max(initial=-np.inf)
        return self.whole and ends == (0, 255)

    def moments_of(self, preparation: Preparation, places: list[NDArray[np.int32]]) -> Moments:
        """Return the moments of each input, those of words included."""
        n_numbers = n_words = 0
        found = []
        for column in preparation.columns:
            if column.words is None:
                found.append(self.trained.column(n_numbers, self.n_train))
                n_numbers += 1
                continue
            counts = np.zeros(len(column.words), np.int64)
            seen = self.word_counts[n_words]
            counts[places[n_words][: len(seen)]] = seen
            found.append(Moments.of_words(counts, self.n_train))
            n_words += 1
        return Moments.together(found)
