"""How a CSV file is written: what stands between its fields, its header, and what is in it.

All is found from the beginning of the file. What the rest may hold is checked when it is read.
"""

import codecs
import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gpunn.data.files import FilePath, open_file
from gpunn.data.tables.table_file import MISSING, Kind
from gpunn.errors import DataError, ParameterError, one_line

DELIMITERS = (",", ";", "\t", "|")
"""What is looked for between fields, unless the user says what is there."""

HEAD_BYTES = 2**20
"""How much of a file is looked at."""

_LINES_TO_COMPARE = 100
_ROWS_TO_JUDGE = 1000
_SPELLED = {"tab": "\t", "\\t": "\t", "space": " "}


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Attributes
    ----------
    delimiter : str
        The character between fields.
    names : tuple of str, or None
        The fields of the header, if there is one.
    kinds : tuple of {"number", "word"}
        What each column holds.
    first_line : int
        The number of the first line of data, counted from 1.
    """

    delimiter: str
    names: tuple[str, ...] | None
    kinds: tuple[Kind, ...]
    first_line: int


def delimiter_of(text: str) -> str:
    """Return the delimiter that a user gave, which may be spelled out as "tab" or "space".

    Raises
    ------
    ParameterError
        If it is not one character that can stand between fields.
    """
    character = _SPELLED.get(text, text)
    if len(character) != 1 or character in '"\r\n\0' or character.isalnum():
        raise ParameterError(
            f"a delimiter is one character between fields, such as ';', or tab or space, got "
            f"{text!r}"
        )
    return character


def look_at(path: FilePath, delimiter: str | None) -> Dialect:
    """Return how a CSV file is written, going by its beginning.

    Parameters
    ----------
    path : path
        The file, gzip-compressed or not.
    delimiter : str or None
        What stands between fields; None to find out.

    Returns
    -------
    Dialect

    Raises
    ------
    DataError
        If the file is missing or damaged, holds no line of data, or its columns cannot be told.
    """
    with open_file(path) as (stream, _):
        head = stream.read(HEAD_BYTES)
        is_all = len(head) < HEAD_BYTES
    lines = _lines(path, head, is_all=is_all)
    if delimiter is None:
        delimiter = _find_delimiter(lines)
    rows, problem = _head_rows(lines, delimiter)
    if not rows and problem is not None:
        raise DataError(f"{path}, {problem}")
    if not rows:
        raise DataError(f"{path}: no line of data; expected lines of fields with commas between")
    names = _header(path, rows)
    data = rows[1:] if names is not None else rows
    if not data and problem is not None:
        raise DataError(f"{path}, {problem}")
    if not data and is_all:
        raise DataError(f"{path}: no line of data; expected lines of fields below the header")
    columns = _columns([fields for _, fields in data])
    width = len(rows[0][1])
    kinds = tuple(_kind(columns[k]) if k < len(columns) else "number" for k in range(width))
    return Dialect(delimiter, names, kinds, data[0][0] if data else rows[0][0] + 1)


def is_number(field: str) -> bool:
    """Whether a field is written as a number; it may be infinite, but not NaN."""
    try:
        number = float(field)
    except ValueError:
        return False
    return "_" not in field and not math.isnan(number)


def _lines(path: FilePath, head: bytes, *, is_all: bool) -> list[str]:
    """Return the whole lines at the beginning of a file."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: is written in UTF-16; save it as UTF-8")
    text = head.decode("utf-8-sig", "surrogateescape")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    # The last one may have been cut; where it is the only one, it is too long to look at.
    return lines if is_all or len(lines) == 1 else lines[:-1]


def _find_delimiter(lines: Sequence[str]) -> str:
    """Return what divides the lines into the most fields, equally many in each line."""
    shown = [line for line in lines if line and not line.isspace()][:_LINES_TO_COMPARE]
    found, most, agreed = ",", 1, False
    for delimiter in DELIMITERS:
        widths = [len(fields) for _, fields in _head_rows(shown, delimiter)[0]]
        agrees = len(set(widths)) == 1
        width = max(widths, default=1)
        # Lines that differ are still told apart best by what divides all of them.
        if min(widths, default=1) > 1 and (agrees, width) > (agreed, most):
            found, most, agreed = delimiter, width, agrees
    return found


def _head_rows(
    lines: Sequence[str], delimiter: str
) -> tuple[list[tuple[int, list[str]]], str | None]:
    """Return the first rows, each with the number of its line, and what is wrong with the next."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line_number = 1
    try:
        for fields in reader:
            if not is_blank(fields):
                rows.append((line_number, fields))
            if len(rows) == _ROWS_TO_JUDGE:
                break
            line_number = reader.line_num + 1
    except csv.Error as error:
        return rows, why_no_row(line_number, error)
    return rows, None


def is_blank(fields: Sequence[str]) -> bool:
    """Whether a line holds nothing, or only spaces."""
    return not fields or (len(fields) == 1 and not fields[0].strip())


def why_no_row(line_number: int, error: csv.Error) -> str:
    """Return where a line is, and why it is no row."""
    return f"line {line_number}: {one_line(error, 120)}; is a quote missing, or one too many?"


def _columns(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the fields of each column, of the rows that are as long as the first."""
    width = len(rows[0]) if rows else 0
    return [list(column) for column in zip(*(r for r in rows if len(r) == width), strict=True)]


def _kind(fields: Sequence[str]) -> Kind:
    """Return what a column holds; a few words among numbers are mistakes, and said later."""
    given = [field.strip() for field in fields if field.strip() not in MISSING]
    n_numbers = sum(map(is_number, given))
    return "number" if 2 * n_numbers >= len(given) else "word"


def _header(path: FilePath, rows: Sequence[tuple[int, list[str]]]) -> tuple[str, ...] | None:
    """Return the names of the columns, if the first line is a header."""
    first = [field.strip() for field in rows[0][1]]
    if any(is_number(field) for field in first) or not _looks_like_names(first, rows[1:]):
        return None
    names = tuple(name or f"column {k}" for k, name in enumerate(first, 1))
    name, n_times = Counter(names).most_common(1)[0]
    if n_times > 1:
        raise DataError(
            f"{path}, line {rows[0][0]}: {n_times} columns are called {one_line(repr(name), 60)}; "
            "give each a name of its own"
        )
    return names


def _looks_like_names(first: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> bool:
    """Whether a first line without numbers is a header.

    It is one unless all columns are words, and what stands in it comes again below.
    """
    columns = _columns([fields for _, fields in rows])
    if len(columns) != len(first) or any(_kind(column) == "number" for column in columns):
        return True
    again = sum(name in map(str.strip, column) for name, column in zip(first, columns, strict=True))
    return 2 * again < len(first)
