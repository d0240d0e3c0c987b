"""Parquet files as tables, read by Apache Arrow: the extra `tables`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.data.files import CHUNK_VALUES, FilePath, check_is_file
from gpunn.data.tables.parquet_pages import (
    BYTES_A_ROW,
    BYTES_A_WORD,
    RowGroup,
    check_pages,
    read_row_groups,
)
from gpunn.data.tables.table_file import Chunk, Kind, TableFile, Words
from gpunn.errors import DataError, MissingPackageError, one_line

BUFFER = 2**16
"""Bytes of a column that are read at a time."""

_BYTES_A_ROW = {"number": BYTES_A_ROW, "word": BYTES_A_WORD, "skip": 0}


@dataclass(frozen=True)
class ParquetFile(TableFile):
    """A Parquet file; see `open_parquet`."""

    n_rows: int
    types: tuple[str, ...]

    def n_bytes(self) -> int:
        """Return how many bytes the numbers take in memory, as the file says."""
        return 8 * self.n_rows * self.n_columns

    def chunks(self, kinds: Sequence[Kind]) -> Iterator[Chunk]:
        """Read the columns; see `TableFile.chunks`."""
        self._check_kinds(kinds)
        read = [k for k, kind in enumerate(kinds) if kind != "skip"]
        names = [(self.names or ())[k] for k in read]
        n_seen = 0
        with _open(self.path) as (file, groups):
            check_pages(self.path, groups, [_BYTES_A_ROW[kind] for kind in kinds])
            for batch in file.iter_batches(max(1, CHUNK_VALUES // self.n_columns), columns=names):
                if batch.num_rows:
                    yield _chunk(n_seen, batch, [kinds[k] for k in read])
                n_seen += batch.num_rows
        if not n_seen:
            raise DataError(f"{self.path}: holds no rows; expected one for each sample")

    def _check_kinds(self, kinds: Sequence[Kind]) -> None:
        for column, (kind, own) in enumerate(zip(kinds, self.kinds, strict=True)):
            if kind not in ("skip", own) and not (kind == "word" and own == "number"):
                raise DataError(
                    f"{self.path}: {self.call(column)} is of type {self.types[column]}; expected "
                    f"{'numbers' if kind == 'number' else 'words'}"
                )

    def why_skipped(self, column: int) -> str:
        """Return what a column holds that a network cannot learn from."""
        return f"is of type {self.types[column]}; expected numbers or words, so convert it"

    def place(self, row: int, column: int) -> str:
        """Return the column and the row of a value."""
        return f"{self.path}: {self.call(column)}, row {row} (counted from 0)"


def open_parquet(path: FilePath, delimiter: str | None = None) -> ParquetFile:
    """Return a Parquet file, of which the footer has been read.

    Raises
    ------
    DataError
        If it is missing or damaged, or has a column of columns.
    MissingPackageError
        If pyarrow is not installed.
    """
    with _open(path) as (file, groups):
        schema = file.schema_arrow
        names = tuple(schema.names)
        types = tuple(one_line(kind, 120) for kind in schema.types)
        kinds = tuple(map(_kind, schema.types))
        table = ParquetFile(path, names, kinds, int(file.metadata.num_rows), types)
    if len(set(names)) < len(names) or any(len(g.columns) != len(names) for g in groups):
        wrong = next((k for k, kind in enumerate(kinds) if kind == "skip"), 0)
        raise DataError(
            f"{path}: {table.call(wrong)} is of type {types[wrong]}, or two columns have one name; "
            "expected columns of numbers and words, each with a name of its own"
        )
    return table


def _kind(type_: Any) -> Kind:
    from pyarrow import types

    if types.is_dictionary(type_):
        return "word" if _kind(type_.value_type) == "word" else "skip"
    if types.is_string(type_) or types.is_large_string(type_):
        return "word"
    numbers = (types.is_integer, types.is_floating, types.is_boolean)
    return "number" if any(is_kind(type_) for is_kind in numbers) else "skip"


def _chunk(first: int, batch: Any, kinds: Sequence[Kind]) -> Chunk:
    numbers = np.empty((batch.num_rows, sum(kind == "number" for kind in kinds)))
    words, n_done = [], 0
    for kind, values in zip(kinds, batch.columns, strict=True):
        if kind == "number":
            with np.errstate(invalid="ignore"):  # NaN is said later, as missing
                numbers[:, n_done] = values.to_numpy(zero_copy_only=False)
            n_done += 1
        else:
            words.append(_words(values))
    return Chunk(first, numbers, words)


def _words(values: Any) -> Words:
    from pyarrow import types

    if not types.is_dictionary(values.type):
        values = values.cast("string").dictionary_encode()
    codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Words(codes, [word or "" for word in values.dictionary.cast("string").to_pylist()])


@contextmanager
def _open(path: FilePath) -> Iterator[tuple[Any, list[RowGroup]]]:
    check_is_file(path)
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError(
            f"{path}: a Parquet file needs pyarrow: pip install 'gpunn[tables]'"
        ) from error
    try:
        groups = read_row_groups(path)
        # Buffered, so that a file whose rows are all in one group is not read as a whole, either.
        with parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            yield file, groups
    except DataError:
        raise
    except Exception as error:  # Arrow raises kinds of its own, and Python's
        raise DataError(
            f"{path}: not a Parquet file, or damaged ({one_line(error, 120)})"
        ) from None
