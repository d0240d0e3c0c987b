"""How a CSV file is written: what stands between its fields, its header, and what is in it.

All is found from the beginning of the file. What the rest may hold is checked when it is read.
"""

import codecs
import csv
import math
import re
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
_MAGIC = {
    b"PAR1": "a Parquet file; give it a name that ends in .parquet",
    b"PK\3\4": "a zip archive or an Excel workbook; save the table as CSV",
}
_CODE = re.compile(r"0\d+")
"""Numbers do not begin with more than one 0, but codes do: 007, 01069."""

_DRESSED = re.compile(r"[-+(]?[$€£¥]? ?\d{1,3}(?:[.,' ]?\d{3})*(?:[.,]\d+)? ?[%$€£¥)]?")
"""Numbers as spreadsheets show them: 5,8 or $1,234.50 or 7%."""

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
    kinds : tuple of {"number", "word", "skip"}
        What each column holds; "skip" is numbers that are not written as such.
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


def look_at(path: FilePath, delimiter: str | None, *, may_have_header: bool = True) -> Dialect:
    """Return how a CSV file is written, going by its beginning.

    Parameters
    ----------
    path : path
        The file, gzip-compressed or not.
    delimiter : str or None
        What stands between fields; None to find out.
    may_have_header : bool
        Whether the first line may be a header.

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
    _check_is_text(path, head)
    lines = _lines(head, is_all=is_all)
    if delimiter is None:
        delimiter = _find_delimiter(lines)
    rows, problem = _head_rows(lines, delimiter)
    if not rows and problem is not None:
        raise DataError(f"{path}, {problem}")
    if not rows:
        raise DataError(f"{path}: no line of data; expected lines of fields with commas between")
    _check_first_line(path, rows)
    names = _header(path, rows) if may_have_header else None
    data = rows[1:] if names is not None else rows
    if not data and problem is not None:
        raise DataError(f"{path}, {problem}")
    if not data and is_all:
        raise DataError(f"{path}: no line of data; expected lines of fields below the header")
    columns = _columns([fields for _, fields in data])
    width = len(rows[0][1])
    kinds = tuple(_kind(columns[k]) if k < len(columns) else "number" for k in range(width))
    return Dialect(delimiter, names, kinds, data[0][0] if data else rows[0][0] + 1)


NOT_UTF8 = "holds bytes that are not UTF-8; save the file as UTF-8"


def valid_text(text: str) -> str:
    """Return a text without what stands for bytes that are not UTF-8."""
    return text.encode("utf-8", "ignore").decode()


def is_number(field: str) -> bool:
    """Whether a field is written as a number; it may be infinite, but not NaN."""
    try:
        number = float(field)
    except ValueError:
        return False
    return "_" not in field and not math.isnan(number)


def _check_is_text(path: FilePath, head: bytes) -> None:
    """Raise if the beginning of a file is that of another kind of file."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:4]:
        raise DataError(f"{path}: is written in UTF-16, or is no text; save it as UTF-8")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path}: is no CSV file, but {kind}")


def _lines(head: bytes, *, is_all: bool) -> list[str]:
    """Return the whole lines at the beginning of a file."""
    text = head.decode("utf-8-sig", "surrogateescape")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    # The last one may have been cut; where it is the only one, it is too long to look at.
    return lines if is_all or len(lines) == 1 else lines[:-1]


def _find_delimiter(lines: Sequence[str]) -> str:
    """Return what divides the lines best: into equally many fields, of which most are numbers."""
    shown = [line for line in lines if line and not line.isspace()][:_LINES_TO_COMPARE]
    found, best = ",", (False, 0.0, 1)
    for delimiter in DELIMITERS:
        rows = [fields for _, fields in _head_rows(shown, delimiter)[0]]
        widths = [len(fields) for fields in rows]
        if min(widths, default=1) < 2:
            continue
        # Not the most fields, but those that are numbers: 1,5;2,5 has two, and not three.
        share = sum(_is_like_number(f) for fields in rows for f in fields) / sum(widths)
        score = len(set(widths)) == 1, share, max(widths)
        if score > best:
            found, best = delimiter, score
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
    """Whether a line holds nothing, or only empty fields, as spreadsheets write them."""
    return not any(field.strip() for field in fields)


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
    if any(_CODE.fullmatch(field) for field in given):
        return "word"
    n_numbers = sum(map(is_number, given))
    if 2 * n_numbers >= len(given):
        return "number"
    return "skip" if 2 * sum(map(_is_like_number, given)) > len(given) else "word"


def _is_like_number(field: str) -> bool:
    """Whether a field is a number, or one with commas, a unit of money or a percent sign."""
    return is_number(field) or _DRESSED.fullmatch(field.strip()) is not None


def _check_first_line(path: FilePath, rows: Sequence[tuple[int, list[str]]]) -> None:
    """Raise if the first line is neither a row nor a header."""
    line, first = rows[0]
    widths = {len(fields) for _, fields in rows[1:]}
    if len(first) == 1 and len(rows) > 2 and len(widths) == 1 and widths != {1}:
        raise DataError(
            f"{path}, line {line}: 1 field, but {widths.pop()} in the lines below; remove what "
            "comes before the header"
        )
    if len(first) > 3 and [field.strip() for field in first] == list(map(str, range(len(first)))):
        raise DataError(
            f"{path}, line {line}: counts the columns, as pandas does for columns without names; "
            "remove the line, or give the columns names"
        )


def _header(path: FilePath, rows: Sequence[tuple[int, list[str]]]) -> tuple[str, ...] | None:
    """Return the names of the columns, if the first line is a header."""
    first = [field.strip() for field in rows[0][1]]
    is_row = any(is_number(field) or (field and field in MISSING) for field in first)
    if is_row or not _looks_like_names(first, rows[1:]):
        return None
    if any(field != valid_text(field) for field in first):
        raise DataError(f"{path}, line {rows[0][0]}: {NOT_UTF8}")
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
