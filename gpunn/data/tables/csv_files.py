"""CSV files, by the rules of Python's `csv` module: quotes, and any character between fields.

What is here decides what a file holds, and says where it goes wrong. Blocks that are plain
are read several times as fast by `gpunn.data.tables.csv_blocks`, to the same values.
"""

import csv
import gzip
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from gpunn.data.files import CHUNK_VALUES, FilePath, open_file
from gpunn.data.tables.csv_blocks import plain_chunks
from gpunn.data.tables.csv_dialect import (
    HEAD_BYTES,
    NOT_UTF8,
    Dialect,
    delimiter_of,
    is_blank,
    is_number,
    look_at,
    valid_text,
    why_no_row,
)
from gpunn.data.tables.table_file import MISSING, Chunk, Kind, TableFile, encode, quoted
from gpunn.errors import DataError

# Characters in a line of a CSV file: some millions of fields.
_LONGEST_LINE = 2**26

_SHOWN = {"\t": "tab", " ": "space"}

Row = tuple[int, list[str]]
"""The number of the line in which a row begins, counted from 1, and its fields."""


@dataclass(frozen=True)
class CsvFile(TableFile):
    """A CSV file; see `open_csv`."""

    dialect: Dialect

    def n_bytes(self) -> int:
        """Return about how many bytes the numbers take in memory, going by the file's beginning."""
        with open_file(self.path) as (stream, _):
            head = stream.read(HEAD_BYTES)
            fields = head.count(self.dialect.delimiter.encode()) + head.count(b"\n") + 1
            if len(head) < HEAD_BYTES:
                return 8 * fields
            # What has been read of the file, which may be compressed, holds the head.
            n_read = len(head)
            if isinstance(stream, gzip.GzipFile):
                n_read = stream.fileobj.tell()
        return 8 * fields * os.path.getsize(self.path) // n_read

    def chunks(self, kinds: Sequence[Kind]) -> Iterator[Chunk]:
        """Read the columns; see `TableFile.chunks`."""
        n_read = yield from plain_chunks(self.path, self.dialect, kinds)
        if n_read is not None:
            yield from self._chunks_after(n_read, kinds)

    def _chunks_after(self, n_before: int, kinds: Sequence[Kind]) -> Iterator[Chunk]:
        """Read the rows that come after so many, by the rules that count."""
        n_at_once = max(1, CHUNK_VALUES // self.n_columns)
        with self._rows() as rows:
            some = islice(rows, n_before, None)
            first = n_before
            while part := list(islice(some, n_at_once)):
                yield self._chunk(first, part, kinds)
                first += len(part)
        if not first:
            raise DataError(f"{self.path}: no line of data; expected lines of fields")

    def _chunk(self, first: int, rows: Sequence[Row], kinds: Sequence[Kind]) -> Chunk:
        columns = list(zip(*(fields for _, fields in rows), strict=True))
        numbers = np.empty((len(rows), sum(kind == "number" for kind in kinds)))
        words, n_done = [], 0
        for k, (kind, column) in enumerate(zip(kinds, columns, strict=True)):
            if kind == "number":
                numbers[:, n_done] = self._numbers(column, k, rows)
                n_done += 1
            elif kind == "word":
                self._check_text(column, k, rows)
                words.append(encode(column))
        return Chunk(first, numbers, words)

    def _numbers(
        self, fields: Sequence[str], column: int, rows: Sequence[Row]
    ) -> NDArray[np.float64]:
        try:
            numbers = np.fromiter(map(float, fields), np.float64, len(fields))
            is_plain = np.isfinite(numbers).all() and not any("_" in field for field in fields)
        except ValueError:
            is_plain = False
        if is_plain:
            return numbers
        try:
            return np.fromiter(map(_as_number, fields), np.float64, len(fields))
        except ValueError as error:
            bad = str(error)
        line = next(line for field, (line, _) in zip(fields, rows, strict=True) if field == bad)
        raise DataError(f"{self._where(line, column)}: {quoted(bad)} is not a number")

    def _check_text(self, fields: Sequence[str], column: int, rows: Sequence[Row]) -> None:
        for field, (line, _) in zip(fields, rows, strict=True):
            if not field.isascii() and field != valid_text(field):
                raise DataError(f"{self._where(line, column)}: {NOT_UTF8}")

    def notes(self) -> list[str]:
        """Return what was found out about how it is written, in lines for a person."""
        shown = _SHOWN.get(self.dialect.delimiter, self.dialect.delimiter)
        return [] if self.dialect.delimiter == "," else [f"fields: divided by {shown}"]

    def why_skipped(self, column: int) -> str:
        """Return what a column holds that a network cannot learn from."""
        return (
            "holds numbers with commas or signs, such as 5,8 or $1,234 or 7%; write them with a "
            "decimal point and nothing else, as 5.8, 1234 and 0.07"
        )

    def place(self, row: int, column: int) -> str:
        """Return the line and the column of a value."""
        with self._rows() as rows:
            line = next(islice((line for line, _ in rows), row, None))
        return self._where(line, column)

    def _where(self, line: int, column: int) -> str:
        return f"{self.path}, line {line}, {self.call(column)}"

    @contextmanager
    def _rows(self) -> Iterator[Iterator[Row]]:
        """Open the file; give its rows, all of them as long as the first."""
        # Bytes that are not UTF-8 go through as they are, and are found where they matter.
        with (
            open_file(self.path) as (stream, _),
            io.TextIOWrapper(
                stream, encoding="utf-8-sig", errors="surrogateescape", newline=""
            ) as text,
        ):
            yield self._of_equal_length(text)

    def _of_equal_length(self, text: io.TextIOWrapper) -> Iterator[Row]:
        reader = csv.reader(self._lines(text), delimiter=self.dialect.delimiter, strict=True)
        line = 1
        try:
            for fields in reader:
                if not is_blank(fields) and line >= self.dialect.first_line:
                    if len(fields) != self.n_columns:
                        raise DataError(
                            f"{self.path}, line {line}: {len(fields)} fields; expected "
                            f"{self.n_columns}, as in the lines above"
                        )
                    yield line, fields
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{self.path}, {why_no_row(line, error)}") from None

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        for number, line in enumerate(iter(lambda: text.readline(_LONGEST_LINE), ""), 1):
            if len(line) == _LONGEST_LINE:
                raise DataError(
                    f"{self.path}, line {number}: longer than {_LONGEST_LINE} characters"
                )
            yield line


def open_csv(
    path: FilePath, delimiter: str | None = None, *, may_have_header: bool = True
) -> CsvFile:
    """Return a CSV file, of which the beginning has been looked at.

    A first line in which no field is a number is a header. Blank lines are skipped.

    Parameters
    ----------
    path : path
        The file, gzip-compressed or not: its first bytes tell, not its name.
    delimiter : str or None
        What stands between its fields; None to find out.
    may_have_header : bool
        Whether a first line without numbers may be a header.

    Raises
    ------
    DataError
        If the file is missing, damaged or empty.
    ParameterError
        If that cannot stand between fields.
    """
    if delimiter is not None:
        delimiter = delimiter_of(delimiter)
    dialect = look_at(path, delimiter, may_have_header=may_have_header)
    return CsvFile(path, dialect.names, dialect.kinds, dialect)


def _as_number(field: str) -> float:
    """Return a number, or NaN for a missing one; raise ValueError with the field if it is none."""
    if field.strip() in MISSING:
        return np.nan
    if not is_number(field):
        raise ValueError(field)
    return float(field)
