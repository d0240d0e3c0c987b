"""Which columns of a table are inputs, which are what is to be learnt, and how each is read."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpunn.data.tables.table_file import Kind, TableFile
from gpunn.errors import DataError, ParameterError, one_line

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = ("classification", "regression")

Missing = Literal["mean", "zero", "drop"]
MISSING_RULES: tuple[Missing, ...] = ("mean", "zero", "drop")


@dataclass(frozen=True)
class TableOptions:
    """What a user says of a table.

    Attributes
    ----------
    target : tuple of str
        The columns to learn: names, or numbers from 1 on, or from -1 on counted from the end.
        Empty for the first column.
    task : {"classification", "regression"} or None
        What they are; None to find out.
    ignore : tuple of str
        Columns to leave out, named as targets are.
    missing : {"mean", "zero", "drop"} or None
        What a missing number becomes: the mean of its column, or 0; a missing word is then none of
        the known ones. Or the whole row is dropped. None to refuse the file.
    delimiter : str or None
        What stands between the fields of a CSV file; None to find out.
    """

    target: tuple[str, ...] = ()
    task: Task | None = None
    ignore: tuple[str, ...] = ()
    missing: Missing | None = None
    delimiter: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("task", self.task, TASKS),
            ("missing", self.missing, MISSING_RULES),
        ):
            if value is not None and value not in allowed:
                raise ParameterError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

    @property
    def are_for_tables(self) -> bool:
        """Whether anything is asked for that only tables have."""
        return bool(self.target or self.ignore or self.missing or self.delimiter)


NO_OPTIONS = TableOptions()

_INDEX = re.compile(r"column 1|Unnamed: 0|__index_level_\d+__")
"""The names that pandas, or else the reader, gives to a column of names of rows."""

Columns = str | int | Sequence[str | int]
"""Columns as a user names them."""


def table_options(
    target: Columns | None = None,
    task: Task | None = None,
    ignore: Columns = (),
    missing: Missing | None = None,
    delimiter: str | None = None,
) -> TableOptions:
    """Return options in one; for what each means, see `gpunn.load_dataset`.

    Raises
    ------
    ParameterError
        If one is not allowed.
    """
    return TableOptions(_texts(target), task, _texts(ignore), missing, delimiter)


def _texts(columns: Columns | None) -> tuple[str, ...]:
    if columns is None:
        return ()
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        columns = (columns,)
    return tuple(map(str, columns))


@dataclass(frozen=True)
class Layout:
    """Which columns of a file are what; columns are counted from 0.

    Attributes
    ----------
    inputs : tuple of int
        The columns of the inputs, in the order in which the network takes them.
    targets : tuple of int
        The columns to learn; empty if the file has none.
    kinds : tuple of {"number", "word", "skip"}
        How each column of the file is read.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    kinds: tuple[Kind, ...]

    def number_columns(self, columns: Sequence[int]) -> list[int]:
        """Return which columns of `Chunk.numbers` some columns of the file are."""
        return self._places(columns, "number")

    def word_columns(self, columns: Sequence[int]) -> list[int]:
        """Return which of `Chunk.words` some columns of the file are."""
        return self._places(columns, "word")

    def _places(self, columns: Sequence[int], wanted: Kind) -> list[int]:
        place = {c: n for n, c in enumerate(c for c, k in enumerate(self.kinds) if k == wanted)}
        return [place[column] for column in columns if self.kinds[column] == wanted]


def find_column(file: TableFile, text: str, option: str) -> int:
    """Return the column that a user means, counted from 0.

    Parameters
    ----------
    file : TableFile
        The table.
    text : str
        A name; or a number from 1 on, or from -1 on counted from the end.
    option : str
        The option that it was given to, for the message.

    Raises
    ------
    DataError
        If there is no such column.
    """
    names = file.names or ()
    if text in names:
        return names.index(text)
    if file.n_columns == 1:
        raise DataError(
            f"{file.path}: {option} {text}: one field in a line; if neither , ; | nor tab is "
            "between the fields, say with --delimiter what is"
        )
    try:
        number = int(text)
    except ValueError:
        raise DataError(
            f"{file.path}: {option} {text}: there is no such column; {_known(names, text)}"
        ) from None
    column = number - 1 if number > 0 else number + file.n_columns
    if number == 0 or not 0 <= column < file.n_columns:
        raise DataError(
            f"{file.path}: {option} {text}: expected a column from 1 to {file.n_columns}, or from "
            f"-1 to -{file.n_columns} counted from the end"
        )
    return column


def _known(names: Sequence[str], text: str) -> str:
    if not names:
        return "the file has no header, so give its number, such as 1, or -1 for the last column"
    near = difflib.get_close_matches(text, names, n=1)
    guess = f" (do you mean {near[0]!r}?)" if near else ""
    shown = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    return f"its columns are {one_line(shown, 300)}{guess}"


def index_column(file: TableFile) -> int | None:
    """Return the column in which pandas wrote the names of the rows, if there is one."""
    for column, name in enumerate(file.names or ()):
        if _INDEX.fullmatch(name) and (column == 0 or name.startswith("__")):
            return column
    return None


def choose_layout(file: TableFile, options: TableOptions) -> Layout:
    """Return which columns are what, as the user says, or else with the first one to learn.

    Raises
    ------
    DataError
        If a column does not exist, cannot be learnt from, or none is left for the inputs.
    """
    ignored = {find_column(file, text, "--ignore") for text in options.ignore}
    targets = tuple(find_column(file, text, "--target") for text in options.target)
    left_out = ignored | {index_column(file)}
    if not targets:
        targets = tuple(k for k in range(file.n_columns) if k not in left_out)[:1]
    for text, column in zip(options.target, targets, strict=False):
        if column in ignored or targets.count(column) > 1:
            raise DataError(f"{file.path}: {text} is named twice; a column can be only one thing")
    if len(targets) > 1 and options.task == "classification":
        raise ParameterError("several columns can only be learnt as numbers: --task regression")
    inputs = tuple(k for k in range(file.n_columns) if k not in left_out and k not in targets)
    if not inputs or not targets:
        raise DataError(
            f"{file.path}: one field in a line, or all but one left out; expected one to learn and "
            "at least one input. If neither , ; | nor tab is between the fields, say with "
            "--delimiter what is"
        )
    return Layout(inputs, targets, _kinds(file, inputs, targets, options))


def _kinds(
    file: TableFile, inputs: Sequence[int], targets: Sequence[int], options: TableOptions
) -> tuple[Kind, ...]:
    kinds: list[Kind] = ["skip"] * file.n_columns
    for column in (*inputs, *targets):
        kinds[column] = file.kinds[column]
        if kinds[column] == "skip":
            raise DataError(
                f"{file.path}: {file.call(column)} {file.why_skipped(column)}; or leave it out "
                f"with --ignore {file.option(column)}"
            )
    if options.task == "regression" or len(targets) > 1:
        for column in targets:
            if kinds[column] == "word":
                raise DataError(
                    f"{file.path}: {file.call(column)} holds words, which are classes; --task "
                    "regression and several --target are for numbers"
                )
    return tuple(kinds)
