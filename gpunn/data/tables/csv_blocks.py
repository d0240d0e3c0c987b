"""What is plain in a CSV file, read block by block by Apache Arrow, or else by NumPy.

Plain is a block in which every line is a row and every field is of its column's kind. At the first
block that is not, reading ends here, and `gpunn.data.tables.csv_files` goes on from there. So there
is one set of rules, and one place that knows what to say of a bad file.

Arrow, the extra `tables`, reads on all cores, and words too; NumPy reads numbers alone.
"""

import codecs
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.files import FilePath, open_file
from gpunn.data.tables.csv_dialect import Dialect
from gpunn.data.tables.table_file import MISSING, Chunk, Kind, Words

BLOCK_BYTES = 2**22
"""What is read at a time."""

_PIECE_BYTES = 2**19
"""What each core takes of it at a time, if it holds a line."""

_BYTES_A_FIELD = 64

Columns = tuple[NDArray[np.float64], list[Words]]
ReadBlock = Callable[[bytes], Columns]
"""Returns the columns of numbers and of words in some lines, or raises ValueError."""


def plain_chunks(
    path: FilePath, dialect: Dialect, kinds: Sequence[Kind]
) -> Generator[Chunk, None, int | None]:
    """Yield the rows of a CSV file, as many as are plain.

    Returns
    -------
    int or None
        How many rows came before the first block that is not plain; None if all have been read.
    """
    n_rows = 0
    read = _with_arrow(dialect, kinds) or _with_numpy(dialect, kinds)
    if read is None:
        return 0
    whole_fields = _whole_fields(dialect.delimiter)
    for block in _blocks(path, dialect.first_line - 1):
        if block is None or not _is_plain(block, whole_fields):
            return n_rows
        if not block.strip(b"\r\n"):
            continue
        try:
            numbers, words = read(block)
        except ValueError:
            return n_rows
        if _has_blank_row(numbers, words):
            return n_rows
        yield Chunk(n_rows, numbers, words)
        n_rows += len(numbers)
    return None if n_rows else 0


def _has_blank_row(numbers: NDArray[np.float64], words: Sequence[Words]) -> bool:
    """Whether all that was read of some row is missing; it may be a blank line."""
    blank = np.asarray(np.isnan(numbers[:, :1]).all(axis=1))
    if blank.any():
        blank[blank] = np.isnan(numbers[blank]).all(axis=1)
    for codes, known in words if blank.any() else ():
        blank &= np.array([*(not word.strip() for word in known), True])[codes]
    return bool(blank.any())


def _whole_fields(delimiter: str) -> re.Pattern[bytes]:
    """Return what matches lines whose quotes stand around whole fields."""
    between = re.escape(delimiter.encode())
    field = rb'"(?:[^"\r\n]|"")*+"|[^"\r\n%b]*+' % between
    return re.compile(rb"(?:(?:%b)(?:%b|\r?\n|\Z))*+" % (field, between))


def _is_plain(block: bytes, whole_fields: re.Pattern[bytes]) -> bool:
    """Whether all readers take the quotes and the ends of lines in the same way."""
    if block.startswith(codecs.BOM_UTF8):
        return False
    if b'"' in block:
        return whole_fields.fullmatch(block) is not None
    return b"\r" not in block or block.count(b"\r") == block.count(b"\r\n")


def _blocks(path: FilePath, n_before: int) -> Iterator[bytes | None]:
    """Yield the lines of a file after so many, some whole ones at a time; None if one is longer."""
    with open_file(path) as (stream, _):
        for _ in range(n_before):
            if b"\r" in stream.readline().rstrip(b"\r\n"):
                yield None
        while block := stream.read(BLOCK_BYTES):
            if not n_before:
                block, n_before = block.removeprefix(codecs.BOM_UTF8), 1
            rest = stream.readline(BLOCK_BYTES)
            yield block + rest if len(rest) < BLOCK_BYTES else None


def _with_arrow(dialect: Dialect, kinds: Sequence[Kind]) -> ReadBlock | None:
    """Return what reads blocks with Apache Arrow, if that is installed."""
    try:
        import pyarrow
        from pyarrow import csv
    except ImportError:
        return None
    names = [str(k) for k in range(len(kinds))]
    wanted = [name for name, kind in zip(names, kinds, strict=True) if kind != "skip"]
    types = {"number": pyarrow.float64(), "word": pyarrow.string()}
    piece = max(_PIECE_BYTES, _BYTES_A_FIELD * len(names))
    options = (
        csv.ReadOptions(column_names=names, block_size=piece),
        csv.ParseOptions(delimiter=dialect.delimiter),
        csv.ConvertOptions(
            column_types={name: types[kinds[int(name)]] for name in wanted},
            include_columns=wanted,
            null_values=list(MISSING),
            strings_can_be_null=False,
        ),
    )
    # Its own pool keeps for later what it was given once.
    pool = pyarrow.system_memory_pool()
    number_columns = [k for k, name in enumerate(wanted) if kinds[int(name)] == "number"]
    word_columns = [k for k, name in enumerate(wanted) if kinds[int(name)] == "word"]

    def read(lines: bytes) -> Columns:
        try:
            table = csv.read_csv(pyarrow.py_buffer(lines), *options, memory_pool=pool)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError("not plain") from error
        columns = table.select(number_columns)
        numbers = _side_by_side(columns, table.num_rows)
        n_missing = sum(column.null_count for column in columns.columns)
        with np.errstate(over="ignore", invalid="ignore"):
            has_nan = np.isnan(numbers.sum())
        if has_nan and n_missing != np.count_nonzero(np.isnan(numbers)):
            raise ValueError("NaN in another spelling")
        return numbers, [_words(table.column(k)) for k in word_columns]

    return read


def _side_by_side(table: Any, n_rows: int) -> NDArray[np.float64]:
    """Return columns of numbers as a matrix; a piece at a time, which stays in the cache."""
    numbers = np.empty((n_rows, table.num_columns))
    first = 0
    for batch in table.to_batches() if table.num_columns else ():
        rows = numbers[first : first + batch.num_rows]
        rows[...] = batch.to_tensor(null_to_nan=True).to_numpy()
        first += batch.num_rows
    return numbers


def _words(column: Any) -> Words:
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return Words(codes, encoded.dictionary.to_pylist())


def _with_numpy(dialect: Dialect, kinds: Sequence[Kind]) -> ReadBlock | None:
    """Return what reads blocks with NumPy, if all columns are numbers."""
    if set(kinds) != {"number"}:
        return None

    def read(lines: bytes) -> Columns:
        table = np.loadtxt(
            lines.decode().splitlines(),
            delimiter=dialect.delimiter,
            comments=None,
            quotechar='"',
            ndmin=2,
        )
        if table.shape[1] != len(kinds) or np.isnan(table).any():
            raise ValueError("not plain")
        return table, []

    return read
