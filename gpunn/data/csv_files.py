"""CSV files of numbers whose first column is the label: as a data set, as a table, in chunks."""

import gzip
import io
import itertools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import MAX_LABEL, are_labels
from gpunn.data.datasets import Dataset, table_dataset
from gpunn.data.files import CHUNK_VALUES, FilePath, memory_runs_out, open_file
from gpunn.errors import DataError, one_line

_NO_LINES = "no line of data; expected lines of numbers with commas between them, label first"

# How much of a CSV file is looked at to guess how many numbers it holds.
_HEAD_BYTES = 2**20

# Characters in a line of a CSV file: some millions of fields.
_LONGEST_LINE = 2**26


def read_csv(path: FilePath) -> Dataset:
    """Read a data set from a CSV file: each line the label, then the inputs.

    Whole numbers that run from 0 to 255 are taken as 8-bit pixels: they become uint8, and a
    square number of them an image. See `read_csv_table` for what a line may hold
    and for the errors.
    """
    return table_dataset(path, read_csv_table(path), f"CSV file {path}")


def read_csv_table(path: FilePath, *, labelled: bool = True) -> NDArray[np.float64]:
    """Read a CSV file of numbers whose first column is the label, gzip-compressed or not.

    A header, that is a first line in which no field is a number, and blank lines are skipped.

    Parameters
    ----------
    path : path
        The file. Its first bytes, not its name, tell whether it is compressed.
    labelled : bool
        Whether the first column must be a label. If not, it may hold any number, and there need
        be no other column.

    Returns
    -------
    array of float64, shape (n_samples, n_columns)
        All values finite; labels are whole numbers from 0 to `MAX_LABEL`.

    Raises
    ------
    DataError
        If the file is missing, damaged or empty, or if a line does not fit; the message says
        which line and field.
    """
    with _csv_rows(path, guarded=True) as numbered_rows:
        rows = (line for _, line in numbered_rows)
        first = next(rows, "")
        if not first:
            raise DataError(f"{path}: {_NO_LINES}")
        return _parse_csv(path, itertools.chain([first], rows), labelled=labelled)


def csv_chunks(path: FilePath, *, labelled: bool = True) -> Iterator[NDArray[np.float64]]:
    """Read a CSV file as `read_csv_table` does, `CHUNK_VALUES` numbers at a time.

    Yields
    ------
    array of float64, shape (n, n_columns)
        The next lines.

    Raises
    ------
    DataError
        As `read_csv_table` does, when the line is reached.
    """
    n_columns = 0
    with _csv_rows(path, guarded=False) as numbered_rows:
        rows = (line for _, line in numbered_rows)
        while first := next(rows, ""):
            n_rows = max(1, CHUNK_VALUES // (first.count(",") + 1))
            some = itertools.chain([first], itertools.islice(rows, n_rows - 1))
            table = _parse_csv(path, some, labelled=labelled)
            n_columns = n_columns or table.shape[1]
            if table.shape[1] != n_columns:
                raise DataError(
                    _first_bad_line(path, labelled)
                    or f"{path}: changed while it was read; read it again"
                )
            yield table
    if not n_columns:
        raise DataError(f"{path}: {_NO_LINES}")


def csv_bytes(path: FilePath) -> int:
    """Return about how many bytes a CSV file's numbers take in memory, going by its beginning.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    with open_file(path) as (stream, _):
        head = stream.read(_HEAD_BYTES)
        in_memory = 8 * (head.count(b",") + head.count(b"\n") + 1)
        if len(head) < _HEAD_BYTES:
            return in_memory
        # What has been read of the file, which may be compressed, holds the head.
        n_read = len(head)
        if isinstance(stream, gzip.GzipFile):
            n_read = stream.fileobj.tell()
    return in_memory * os.path.getsize(path) // n_read


def _parse_csv(path: FilePath, rows: Iterator[str], *, labelled: bool) -> NDArray[np.float64]:
    """Return some lines of a CSV file, at least one, as numbers."""
    first = next(rows)
    if labelled and "," not in first:
        raise DataError(
            f"{path}: one field in a line; expected the label, then the inputs, with commas"
        )
    try:
        table = np.loadtxt(itertools.chain([first], rows), delimiter=",", comments=None, ndmin=2)
    except DataError:
        raise
    except ValueError as error:
        reason = one_line(error, 120)
    else:
        if (are_labels(table[:, 0]).all() or not labelled) and np.isfinite(table).all():
            return table
        reason = "a value is not finite, or a label is not a whole number"
    raise DataError(_first_bad_line(path, labelled) or f"{path}: {reason}")


@contextmanager
def _csv_rows(path: FilePath, *, guarded: bool) -> Iterator[Iterator[tuple[int, str]]]:
    """Open a CSV file; give its lines of data with their numbers, counted from 1.

    They are guarded if they are going to be in memory together.
    """
    # Bytes that are not UTF-8 become a visible mark, which then is reported as not a number.
    with (
        open_file(path) as (stream, _),
        io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace") as lines,
    ):
        rows = _nonblank(lines, path, guarded=guarded)
        first = next(rows, (0, ""))
        is_header = all(_number(field) is None for field in first[1].split(","))
        yield rows if is_header else itertools.chain([first], rows)


def _nonblank(
    lines: io.TextIOWrapper, path: FilePath, *, guarded: bool
) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, if guarded as long as their numbers fit the memory."""
    n_characters = 0
    for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), ""), 1):
        n_characters += len(line)
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{path}, line {number}: longer than {_LONGEST_LINE} characters")
        if guarded and memory_runs_out(n_characters, len(line)):
            raise DataError(
                f"{path}, line {number}: more data than this machine has memory for; read it in "
                "chunks (gpunn.data.table_chunks)"
            )
        if not line.isspace():
            yield number, line


def _first_bad_line(path: FilePath, labelled: bool) -> str | None:
    """Say where a CSV file goes wrong; slow, so only for a file that is known to be bad."""
    expected = 0
    with _csv_rows(path, guarded=False) as numbered_rows:
        for line_number, line in numbered_rows:
            fields = line.rstrip("\r\n").split(",")
            expected = expected or len(fields)
            where = f"{path}, line {line_number}"
            if len(fields) != expected:
                return f"{where}: {len(fields)} fields; expected {expected}, as in the lines above"
            for position, field in enumerate(fields, 1):
                number = _number(field)
                if number is None or not math.isfinite(number):
                    what = "number" if number is None else "finite number"
                    return f"{where}, field {position}: {_quote(field)} is not a {what}"
                whole = 0 <= number <= MAX_LABEL and number.is_integer()
                if labelled and position == 1 and not whole:
                    return (
                        f"{where}: the label {_quote(field)} is not a whole number from 0 to "
                        f"{MAX_LABEL}; the label must be the first field"
                    )
    return None


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def _quote(field: str) -> str:
    return repr(field if len(field) <= 30 else field[:27] + "...")
