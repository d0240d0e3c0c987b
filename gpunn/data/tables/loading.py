"""A table in memory: read once, its columns made into inputs and labels."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.data.checks import MAX_LABEL, are_labels
from gpunn.data.datasets import Dataset, table_dataset
from gpunn.data.files import FilePath, memory_runs_out
from gpunn.data.tables.csv_files import open_csv
from gpunn.data.tables.layout import (
    Columns,
    Layout,
    Missing,
    TableOptions,
    Task,
    choose_layout,
    index_column,
    table_options,
)
from gpunn.data.tables.parquet_files import open_parquet
from gpunn.data.tables.parts import PartReader, Vocabulary
from gpunn.data.tables.preparation import Column, Preparation
from gpunn.data.tables.table_file import Kind, TableFile
from gpunn.data.tables.task import TableFacts, decide_task
from gpunn.errors import DataError, counted, one_line
from gpunn.host_memory import free_memory

OpenTable = Callable[[FilePath, str | None], TableFile]

MOST_INPUTS_OF_WORDS = 1000
"""A column of words may make so many inputs; more are surely names or texts."""


def read_csv(
    path: FilePath,
    *,
    target: Columns | None = None,
    task: Task | None = None,
    ignore: Columns = (),
    missing: Missing | None = None,
    delimiter: str | None = None,
) -> Dataset:
    """Read a data set from a CSV file, gzip-compressed or not.

    It may have numbers and words, quotes, any delimiter, and a header, which is a first line
    without numbers. Whole numbers that run from 0 to 255 are taken as 8-bit pixels: they become
    uint8, and a square number of them an image. Where pyarrow is installed, all cores read.

    Parameters
    ----------
    path : path
        The file. Its first bytes, not its name, tell whether it is compressed.
    target, task, ignore, missing, delimiter
        As in `gpunn.load_dataset`.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the file is missing, damaged or empty, or if a field does not fit; the message says
        which line and column.
    """
    options = table_options(target, task, ignore, missing, delimiter)
    return load_table(open_csv(path, delimiter), options, f"CSV file {path}")


def read_parquet(
    path: FilePath,
    *,
    target: Columns | None = None,
    task: Task | None = None,
    ignore: Columns = (),
    missing: Missing | None = None,
) -> Dataset:
    """Read a data set from a Parquet file, otherwise as `read_csv` does.

    Raises
    ------
    DataError
        As `read_csv` does.
    MissingPackageError
        If pyarrow is not installed.
    """
    options = table_options(target, task, ignore, missing)
    return load_table(open_parquet(path), options, f"Parquet file {path}")


def number_chunks(file: TableFile, *, labelled: bool) -> Iterator[NDArray[np.float64]]:
    """Read a table of numbers some rows at a time; see `gpunn.data.table_chunks`."""
    if labelled and file.n_columns < 2:
        raise DataError(
            f"{file.path}: one field in a line; expected the label, then the inputs, with commas"
        )
    kinds: list[Kind] = ["number"] * file.n_columns
    for chunk in file.chunks(kinds):
        good = np.isfinite(chunk.numbers)
        if not good.all():
            row, column = np.argwhere(~good)[0]
            what = "is missing" if np.isnan(chunk.numbers[row, column]) else "is not finite"
            raise DataError(f"{file.place(chunk.first + int(row), int(column))}: {what}")
        whole = are_labels(chunk.numbers[:, 0])
        if labelled and not whole.all():
            row = int(np.argmin(whole))
            label = float(chunk.numbers[row, 0])
            raise DataError(
                f"{file.place(chunk.first + row, 0)}: the label {label!r} is not a whole number "
                f"from 0 to {MAX_LABEL}; the label must be the first field"
            )
        yield chunk.numbers


def load_table(file: TableFile, options: TableOptions, description: str) -> Dataset:
    """Return a table as a data set.

    Raises
    ------
    DataError
        If it does not fit the memory, or something in it does not fit the options.
    """
    layout = choose_layout(file, options)
    vocabularies = new_vocabularies(layout)
    reader = PartReader(file, layout, options.missing, vocabularies)
    facts = TableFacts(len(layout.number_columns(layout.inputs)))
    n_rows = min(file.n_bytes(), free_memory() // 2) // (8 * file.n_columns)
    number_rows = _Growing(len(layout.number_columns(layout.inputs)), np.float64, n_rows)
    code_rows = _Growing(len(layout.word_columns(layout.inputs)), np.int32, n_rows)
    target_rows = _Growing(len(layout.targets), np.float64, n_rows)
    for part in reader:
        number_rows.add(part.numbers)
        code_rows.add(part.codes)
        target_rows.add(part.targets)
        facts.add(part)
        _check_memory(file, 8 * facts.n_rows * file.n_columns, 8 * len(part.rows) * file.n_columns)
    numbers, codes, targets = number_rows.whole(), code_rows.whole(), target_rows.whole()
    check_rows(file, facts.n_rows, reader)
    task = decide_task(file, layout, options, facts)
    means = _means(numbers) if options.missing == "mean" else None
    words = words_of(file, layout, vocabularies, facts.n_rows)
    n_word_inputs = codes.shape[1]
    for k, (_, places) in enumerate(words[:n_word_inputs]):
        codes[:, k] = places[codes[:, k]]
    preparation = make_preparation(file, layout, options, [known for known, _ in words], means)
    inputs = preparation.features(numbers, codes)
    labels, class_names = labels_of(targets, task, words[n_word_inputs:])
    return table_dataset(
        file.path,
        inputs,
        labels,
        description,
        class_names=class_names,
        preparation=preparation,
        notes=notes_of(file, layout, options, task, facts, reader, preparation),
    )


class _Growing:
    """A matrix that rows are added to; it is never there twice."""

    def __init__(self, n_columns: int, dtype: DTypeLike, n_rows: int) -> None:
        # Memory that nothing is written to costs nothing, so that it may be too much at first.
        self._rows: NDArray[Any] = np.empty((n_rows, n_columns), dtype)
        self._n = 0

    def add(self, rows: NDArray[Any]) -> None:
        n = self._n + len(rows)
        if n > len(self._rows):
            self._resize(n + n // 8)
        self._rows[self._n : n] = rows
        self._n = n

    def whole(self) -> NDArray[Any]:
        """Return all rows."""
        self._resize(self._n)
        return self._rows

    def _resize(self, n_rows: int) -> None:
        # The system moves large memory by its addresses, and copies nothing.
        self._rows.resize((n_rows, self._rows.shape[1]), refcheck=False)


def _check_memory(file: TableFile, n_bytes: int, n_last: int) -> None:
    if memory_runs_out(n_bytes, n_last):
        raise DataError(
            f"{file.path}: more data than this machine has memory for; read it in chunks "
            "(gpunn.data.table_chunks)"
        )


def new_vocabularies(layout: Layout) -> list[Vocabulary]:
    """Return an empty vocabulary for each column of words, first of inputs, then of targets."""
    columns = (*layout.inputs, *layout.targets)
    return [Vocabulary() for column in columns if layout.kinds[column] == "word"]


def check_rows(file: TableFile, n_rows: int, reader: PartReader) -> None:
    """Raise if no row is left to learn from, or a column is empty."""
    n_all = n_rows + reader.n_dropped
    empty = [column for column, n in reader.n_missing.items() if n == n_all]
    if empty:
        raise DataError(
            f"{file.path}: {file.call(empty[0])} is empty in all rows; leave it out with --ignore "
            f"{file.option(empty[0])}"
        )
    if not n_rows:
        raise DataError(
            f"{file.path}: something is missing in each of its {reader.n_dropped} rows; choose "
            "--missing mean or zero, or leave columns out with --ignore"
        )


def words_of(
    file: TableFile, layout: Layout, vocabularies: Sequence[Vocabulary], n_rows: int
) -> list[tuple[list[str], NDArray[np.int32]]]:
    """Return each column's words in order, and the place of each number of its vocabulary there.

    Raises
    ------
    DataError
        If a column of inputs has too many words to be learnt from.
    """
    found = [vocabulary.in_order() for vocabulary in vocabularies]
    columns = [column for column in layout.inputs if layout.kinds[column] == "word"]
    for column, (words, _) in zip(columns, found, strict=False):
        n_words = len(words)
        if n_words > MOST_INPUTS_OF_WORDS or n_words > max(10, n_rows / 2):
            raise DataError(
                f"{file.path}: {file.call(column)} holds {n_words:,} different words in "
                f"{n_rows:,} rows, too many to learn from; leave it out with --ignore "
                f"{file.option(column)}"
            )
    return found


def make_preparation(
    file: TableFile,
    layout: Layout,
    options: TableOptions,
    words: Sequence[list[str]],
    means: NDArray[np.float64] | None,
) -> Preparation:
    """Return the record of how a table's columns become inputs.

    Parameters
    ----------
    file, layout, options
        The table, and what it is.
    words : sequence of list of str
        Those of each column of words, first of inputs, then of targets.
    means : ndarray of float64, shape (n_number_columns,), or None
        What missing numbers become; None for zero, or nothing.
    """
    known, n_numbers = iter(words), 0
    columns = []
    for position in (*layout.inputs, *layout.targets):
        name = None if file.names is None else file.names[position]
        is_input = position in layout.inputs
        if layout.kinds[position] == "word":
            columns.append(Column(name, position, tuple(next(known))))
            continue
        fill = None
        if is_input and options.missing in ("mean", "zero"):
            fill = 0.0 if means is None else float(means[n_numbers])
        n_numbers += is_input
        columns.append(Column(name, position, None, fill))
    n_inputs = len(layout.inputs)
    return Preparation(
        tuple(columns[:n_inputs]), tuple(columns[n_inputs:]), file.n_columns, options.missing
    )


def _means(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each column without what is missing; 0 if all of it is."""
    given = ~np.isnan(numbers)
    sums = np.where(given, numbers, 0.0).sum(axis=0)
    means: NDArray[np.float64] = sums / np.maximum(given.sum(axis=0), 1)
    return means


def labels_of(
    targets: NDArray[np.float64], task: Task, words: Sequence[tuple[list[str], NDArray[np.int32]]]
) -> tuple[NDArray[Any], tuple[str | int, ...] | None]:
    """Return labels as a `Dataset` has them, and what they stand for.

    Parameters
    ----------
    targets : ndarray of float64, shape (n, n_targets)
        Numbers, or words as numbers of a vocabulary.
    task : {"classification", "regression"}
        What they are learnt as.
    words : sequence of (list of str, ndarray of int32)
        The words and their places, if targets are words.

    Returns
    -------
    labels : ndarray
        Classes as int64, shape (n,); or numbers as float64, shape (n, n_targets).
    class_names : tuple of str or int, or None
        What each class number stands for, if it is not the label itself.
    """
    if task == "regression":
        return targets, None
    labels = targets[:, 0].astype(np.int64)
    if words:
        known, places = words[0]
        return places[labels].astype(np.int64), tuple(known)
    if labels.min() < 0 or labels.max() > MAX_LABEL:
        values, numbers = np.unique(labels, return_inverse=True)
        return numbers.astype(np.int64), tuple(values.tolist())
    return labels, None


def notes_of(
    file: TableFile,
    layout: Layout,
    options: TableOptions,
    task: Task,
    facts: TableFacts,
    reader: PartReader,
    preparation: Preparation,
) -> tuple[str, ...]:
    """Return what was found and done, in lines for a person."""
    names = ", ".join(file.call(column) for column in layout.targets)
    is_words = layout.kinds[layout.targets[0]] == "word"
    choice = "" if options.task or is_words else f"; --task {_other(task)} is the other choice"
    kind = f"{len(facts.values):,} classes" if task == "classification" else "numbers"
    notes = [f"to learn: {one_line(names, 120)}, as {kind} ({task}{choice})"]
    if file.names is None:
        notes.append("header: none, so the first line is a sample, too")
    if (index := index_column(file)) is not None and layout.kinds[index] == "skip":
        notes.append(f"left out: {file.call(index)}, which pandas writes to name rows")
    notes += file.notes()
    words = [column for column in preparation.columns if column.words is not None]
    if words:
        n_inputs = sum(column.n_features for column in words)
        notes.append(
            f"words: in {counted(len(words), 'column')}, with {counted(n_inputs, 'input')}, one "
            "for each word"
        )
    n_missing = sum(reader.n_missing.values())
    if reader.n_dropped:
        notes.append(f"missing: {counted(reader.n_dropped, 'row')} with missing fields left out")
    elif n_missing:
        where = [file.call(column) for column, n in reader.n_missing.items() if n]
        became = "the mean of its column" if options.missing == "mean" else "0"
        notes.append(
            f"missing: {counted(n_missing, 'field')} of {one_line(', '.join(where), 120)}; a "
            f"number became {became}, a word none of the known ones"
        )
    given = [column for column in layout.inputs if layout.kinds[column] == "number"]
    notes += [
        f"inputs: {file.call(given[k])} only counts the rows, which helps with no new ones; leave "
        f"it out with --ignore {file.option(given[k])}"
        for k in facts.counting_inputs
    ]
    return tuple(notes)


def _other(task: Task) -> Task:
    return "regression" if task == "classification" else "classification"
