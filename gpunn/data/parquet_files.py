"""Parquet files as tables of numbers, read by Apache Arrow: the extra `parquet`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import MAX_LABEL, are_labels
from gpunn.data.datasets import Dataset, table_dataset
from gpunn.data.files import CHUNK_VALUES, FilePath, check_is_file, fits
from gpunn.data.parquet_pages import RowGroup, check_pages, read_row_groups
from gpunn.errors import DataError, MissingPackageError, one_line

BUFFER = 2**16
"""Bytes of a column that are read at a time."""


def read_parquet(path: FilePath) -> Dataset:
    """Read a data set from a Parquet file: the first column the label, then the inputs.

    Bytes are told from other numbers as in `gpunn.data.read_csv`. See `parquet_chunks` for what
    a column may hold and for the errors.
    """
    if not fits(parquet_bytes(path)):
        raise DataError(
            f"{path}: holds more data than this machine has memory for; read it in chunks "
            "(gpunn.data.table_chunks)"
        )
    return table_dataset(path, np.concatenate(list(parquet_chunks(path))), f"Parquet file {path}")


def parquet_chunks(path: FilePath, *, labelled: bool = True) -> Iterator[NDArray[np.float64]]:
    """Read a Parquet file of numbers whose first column is the label, some rows at a time.

    Parameters
    ----------
    path : path
        The file. Its columns may be of any type of number.
    labelled : bool
        Whether the first column must be a label. If not, it may hold any number.

    Yields
    ------
    array of float64, shape (n, n_columns)
        The next rows, all finite; labels are whole numbers from 0 to `MAX_LABEL`.

    Raises
    ------
    DataError
        If the file is missing, damaged or empty, or a value does not fit; the message says which.
    MissingPackageError
        If pyarrow is not installed.
    """
    n_seen = 0
    with _open(path) as (file, groups):
        names = _names(file, path, labelled=labelled)
        check_pages(path, groups)
        n_rows = max(1, CHUNK_VALUES // len(names))
        for batch in file.iter_batches(n_rows):
            table = np.empty((batch.num_rows, len(names)))
            for column, values in enumerate(batch.columns):
                where = f"{path}: column {names[column]}"
                if values.null_count:
                    row = n_seen + values.is_null().to_numpy(zero_copy_only=False).argmax()
                    raise DataError(f"{where} has no value in row {row} (counted from 0)")
                with np.errstate(invalid="ignore"):  # said below, as of any value
                    table[:, column] = values.to_numpy(zero_copy_only=False)
                _check(table[:, column], where, n_seen, is_label=labelled and column == 0)
            if batch.num_rows:
                yield table
            n_seen += batch.num_rows
    if not n_seen:
        raise DataError(f"{path}: holds no rows; expected one for each sample")


def parquet_bytes(path: FilePath) -> int:
    """Return how many bytes a Parquet file's numbers take in memory, as it says.

    Raises
    ------
    DataError, MissingPackageError
        As `parquet_chunks` does.
    """
    with _open(path) as (file, _):
        return 8 * int(file.metadata.num_rows) * int(file.metadata.num_columns)


@contextmanager
def _open(path: FilePath) -> Iterator[tuple[Any, list[RowGroup]]]:
    check_is_file(path)
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError(
            f"{path}: a Parquet file needs pyarrow: pip install 'gpunn[parquet]'"
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


def _names(file: Any, path: FilePath, *, labelled: bool) -> list[str]:
    """Return the names of the columns, which must be numbers, as they are said in a message."""
    from pyarrow import types

    schema = file.schema_arrow
    names = [one_line(repr(name), 120) for name in schema.names]
    for name, kind in zip(names, schema.types, strict=True):
        is_kinds = (types.is_integer, types.is_floating, types.is_boolean)
        if not any(is_kind(kind) for is_kind in is_kinds):
            raise DataError(
                f"{path}: column {name} is of type {one_line(kind, 120)}; expected columns of "
                "numbers, label first"
            )
    if len(names) < 1 + labelled:
        raise DataError(f"{path}: {len(names)} columns; expected the label, then the inputs")
    return names


def _check(values: NDArray[np.float64], where: str, first: int, *, is_label: bool) -> None:
    good = are_labels(values) if is_label else np.isfinite(values)
    if not good.all():
        row = int(np.argmin(good))
        what = f"a whole number from 0 to {MAX_LABEL}, as a label must be" if is_label else "finite"
        raise DataError(f"{where} holds {values[row]} in row {first + row}, which is not {what}")
