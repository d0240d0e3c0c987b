"""Whether a column is to be learnt as classes or as numbers, found from what it holds."""

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import MAX_LABEL, are_whole
from gpunn.data.tables.layout import Layout, TableOptions, Task
from gpunn.data.tables.parts import Part
from gpunn.data.tables.table_file import TableFile
from gpunn.errors import DataError, one_line

MANY_CLASSES = 100
"""More different whole numbers than this are quantities, unless the user says otherwise."""

_FEW_CLASSES = 20
_TELLING_NAMES = ("label", "class", "target", "species", "category", "outcome", "y")


class RowCounters:
    """Finds the columns that only count the rows: in each row, the number of the one before plus 1.

    Parameters
    ----------
    n_columns : int
        How many columns there are.
    """

    def __init__(self, n_columns: int) -> None:
        self._columns = list(range(n_columns))
        self._last: NDArray[np.float64] | None = None
        self._n_rows = 0

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Take in the next rows, shape (n, n_columns)."""
        if not len(numbers) or not self._columns:
            return
        before = numbers[0] - 1 if self._last is None else self._last
        with np.errstate(over="ignore"):
            self._columns = [
                k for k in self._columns if (np.diff(numbers[:, k], prepend=before[k]) == 1).all()
            ]
        self._last = numbers[-1].copy()
        self._n_rows += len(numbers)

    def found(self) -> list[int]:
        """Return the columns, if there are more rows than may happen to be like that."""
        return self._columns if self._n_rows > _FEW_CLASSES else []


class TableFacts:
    """What the first column to learn holds, and which columns only count the rows.

    Parameters
    ----------
    n_inputs : int
        How many columns of numbers there are among the inputs.

    Attributes
    ----------
    n_rows : int
        How many rows have been seen.
    values : set of float
        The different values to learn; no more are kept than there may be classes.
    first_fraction : (int, float) or None
        The row of the first of them that is no whole number, and the value.
    """

    def __init__(self, n_inputs: int) -> None:
        self.n_rows = 0
        self.values: set[float] = set()
        self.first_fraction: tuple[int, float] | None = None
        self._target, self._inputs = RowCounters(1), RowCounters(n_inputs)

    def add(self, part: Part) -> None:
        """Take in the next rows."""
        values, rows = part.targets[:, 0], part.rows
        if not len(values):
            return
        if len(self.values) <= MAX_LABEL:
            self.values.update(np.unique(values).tolist())
        if self.first_fraction is None:
            whole = are_whole(values)
            if not whole.all():
                at = int(np.argmin(whole))
                self.first_fraction = int(rows[at]), float(values[at])
        self._target.add(part.targets[:, :1])
        self._inputs.add(part.numbers)
        self.n_rows += len(values)

    @property
    def counts_rows(self) -> bool:
        """Whether the column to learn only counts the rows."""
        return bool(self._target.found())

    @property
    def counting_inputs(self) -> list[int]:
        """Which of the inputs that are numbers only count the rows."""
        return self._inputs.found()

    @property
    def are_many(self) -> bool:
        """Whether there are too many different values for classes."""
        n_values = len(self.values)
        return n_values > MANY_CLASSES or n_values > max(_FEW_CLASSES, self.n_rows / 2)


def decide_task(file: TableFile, layout: Layout, options: TableOptions, facts: TableFacts) -> Task:
    """Return what a column is to be learnt as.

    Words and a few whole numbers are classes, everything else numbers.

    Raises
    ------
    DataError
        If classes are asked for and there are fractions; or if the first column was taken because
        none was named, and does not look like one to learn.
    """
    column = layout.targets[0]
    is_words = layout.kinds[column] == "word"
    if not options.target and options.task is None:
        _check_first_column(file, layout, facts)
    if options.task == "regression" or len(layout.targets) > 1:
        return "regression"
    if options.task is None and not is_words and (facts.first_fraction or facts.are_many):
        return "regression"
    if facts.first_fraction is not None:
        row, value = facts.first_fraction
        raise DataError(
            f"{file.place(row, column)}: the label {value!r} is not a whole number; classes are "
            "whole numbers or words, and other numbers are learnt with --task regression"
        )
    if len(facts.values) > MAX_LABEL + 1:
        raise DataError(
            f"{file.path}: {file.call(column)} holds more than {MAX_LABEL + 1:,} different labels; "
            "learn it with --task regression, or name another --target"
        )
    return "classification"


def _check_first_column(file: TableFile, layout: Layout, facts: TableFacts) -> None:
    """Raise unless the first column can be meant where the user named none."""
    column = layout.targets[0]
    name = file.call(column)
    likely = _likely_target(file, layout)
    advice = "name what is to be learnt, such as --target " + (
        "-1 for the last column" if likely is None else one_line(likely, 60)
    )
    if facts.first_fraction is not None and layout.kinds[column] == "number":
        row, value = facts.first_fraction
        raise DataError(
            f"{file.place(row, column)}: the label {value!r} is not a whole number; {advice}, or "
            f"learn {name} with --task regression"
        )
    if layout.kinds[column] == "word" and facts.are_many:
        raise DataError(
            f"{file.path}: {name}, the first one, holds {len(facts.values):,} different words in "
            f"{facts.n_rows:,} rows; {advice}"
        )
    if layout.kinds[column] == "number" and facts.counts_rows:
        raise DataError(
            f"{file.path}: {name}, the first one, only counts the rows; {advice}, and leave the "
            f"first one out with --ignore {file.option(column)}"
        )
    if likely is not None:
        raise DataError(
            f"{file.path}: {name}, the first one, may not be what is to be learnt; {advice} (or "
            f"--target {file.option(column)} for the first one)"
        )


def _likely_target(file: TableFile, layout: Layout) -> str | None:
    """Return the name of the column that looks most like the one to learn, if not the first."""
    if file.names is None:
        return None
    others = [column for column in layout.inputs if column > layout.targets[0]]
    first = file.names[layout.targets[0]].lower()
    if first in _TELLING_NAMES or layout.kinds[layout.targets[0]] == "word":
        return None
    for column in others:
        if file.names[column].lower() in _TELLING_NAMES:
            return file.names[column]
    last = file.n_columns - 1
    words = [column for column in others if layout.kinds[column] == "word"]
    return file.names[last] if words == [last] else None
