"""A table as inputs and labels, part by part, once it is known how its columns become those."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import are_whole
from gpunn.data.tables.layout import Layout, Missing, Task
from gpunn.data.tables.parts import Part, PartReader, Vocabulary
from gpunn.data.tables.preparation import Column, Preparation
from gpunn.data.tables.table_file import TableFile
from gpunn.errors import DataError


class PreparedTable:
    """Inputs and labels of a table, again and again.

    Parameters
    ----------
    file : TableFile
        The table.
    layout : Layout
        Which of its columns are what, as `Preparation.layout_of` tells.
    preparation : Preparation
        How they become inputs.
    task : {"classification", "regression"}
        What is learnt.
    class_words : sequence of str or None
        The words of the classes, if they are words.
    missing : {"mean", "zero", "drop"} or None
        What is done where a field is missing.

    Yields
    ------
    inputs : ndarray of float64, shape (n, n_features)
        The next rows, not scaled.
    labels : ndarray
        As a `gpunn.data.Dataset` has them. Of a file without the columns to learn, shape (n, 0).
    """

    def __init__(
        self,
        file: TableFile,
        layout: Layout,
        preparation: Preparation,
        task: Task,
        class_words: Sequence[str] | None,
        missing: Missing | None,
    ) -> None:
        self.file, self.preparation, self.task = file, preparation, task
        self._layout = layout
        vocabularies = [
            Vocabulary(column.words) for column in preparation.columns if column.words is not None
        ]
        self._has_words = bool(layout.word_columns(layout.targets))
        if self._has_words:
            vocabularies.append(Vocabulary(class_words or ()))
        advice = "train again with --missing mean or zero"
        self._reader = PartReader(file, layout, missing, vocabularies, advice)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float64], NDArray[Any]]]:
        for inputs, labels, _ in self.numbered():
            yield inputs, labels

    def numbered(self) -> Iterator[tuple[NDArray[np.float64], NDArray[Any], NDArray[np.int64]]]:
        """Yield inputs, labels, and which rows of the file they are, counted from 0."""
        for part in self._reader:
            inputs = self.preparation.features(part.numbers, part.codes)
            yield inputs, self._labels(part), part.rows

    def _labels(self, part: Part) -> NDArray[Any]:
        if self.task == "regression" or not self._layout.targets:
            return part.targets
        labels = part.targets[:, 0]
        whole = are_whole(labels)
        if not whole.all():
            k = int(np.argmin(whole))
            where = self.file.place(int(part.rows[k]), self._layout.targets[0])
            raise DataError(f"{where}: the label {float(labels[k])!r} is not a whole number")
        return labels.astype(np.int64)


def without_targets(file: TableFile, preparation: Preparation) -> PreparedTable:
    """Return a table of which only the inputs are read, and each row is answered."""
    layout = preparation.layout_of(file, with_targets=False)
    missing = None if preparation.missing == "drop" else preparation.missing
    return PreparedTable(file, layout, preparation, "regression", None, missing)


def label_first(n_inputs: int) -> Preparation:
    """Return what is known of a table by a model that kept no record: numbers, label first."""
    columns = tuple(Column(None, k) for k in range(1, n_inputs + 1))
    return Preparation(columns, (Column(None, 0),), n_inputs + 1)


def texts_of(file: TableFile, column: int) -> Iterator[str]:
    """Yield what stands in a column, row by row, as it is written."""
    kinds = ["skip"] * file.n_columns
    kinds[column] = "word"
    for chunk in file.chunks(kinds):  # type: ignore[arg-type]
        codes, known = chunk.words[0]
        for code in codes.tolist():
            yield known[code] if code >= 0 else ""
