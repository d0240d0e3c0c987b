"""The formats of files that gpunn reads, and data sets by their name or their path.

`FORMATS` is the one place that knows them all. A new format is a reader in a module of its own and
a record here; reading, reading in chunks, the messages and the help texts follow.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gpunn.data.csv_files import csv_bytes, csv_chunks, read_csv
from gpunn.data.datasets import Dataset
from gpunn.data.files import FilePath, fits
from gpunn.data.idx_files import read_idx_folder
from gpunn.data.known import SOURCES, load_digits, load_known
from gpunn.data.numpy_files import read_npy_pair, read_npz
from gpunn.data.parquet_files import parquet_bytes, parquet_chunks, read_parquet
from gpunn.errors import DataError


class ReadChunks(Protocol):
    """Reads a table some rows at a time, as `table_chunks` does."""

    def __call__(self, path: FilePath, *, labelled: bool = True) -> Iterator[NDArray[np.float64]]:
        """Yield the rows; `labelled` says whether the first column must be a label."""


@dataclass(frozen=True)
class TableReader:
    """How a table is read that may be larger than the memory.

    Attributes
    ----------
    chunks : function of a path and whether the first column is the label
        Gives the rows, some at a time, as `table_chunks` says.
    n_bytes : function of a path
        Returns about how many bytes the numbers take in memory, without reading them.
    """

    chunks: ReadChunks
    n_bytes: Callable[[FilePath], int]


@dataclass(frozen=True)
class Format:
    """A kind of file, or of several files, that holds a data set.

    Attributes
    ----------
    name : str
        What messages and help texts call it.
    read : function of a path
        Returns the checked `Dataset`.
    suffixes : tuple of str
        The ends of the names of its files.
    is_one : function of a path, or None
        Tells it where the end of a name does not; is asked before any end is looked at.
    table : TableReader or None
        How to read it in chunks, if it is a table: rows of numbers, the label first.
    """

    name: str
    read: Callable[[str], Dataset]
    suffixes: tuple[str, ...] = ()
    is_one: Callable[[str], bool] | None = None
    table: TableReader | None = None


def _is_pair(path: str) -> bool:
    return "," in path and not os.path.exists(path)


def _read_pair(path: str) -> Dataset:
    inputs_path, labels_path = path.split(",", 1)
    return read_npy_pair(inputs_path, labels_path)


_CSV = TableReader(csv_chunks, csv_bytes)
_PARQUET = TableReader(parquet_chunks, parquet_bytes)

FORMATS: tuple[Format, ...] = (
    Format("CSV", read_csv, (".csv", ".csv.gz"), table=_CSV),
    Format("Parquet", read_parquet, (".parquet",), table=_PARQUET),
    Format(".npz", read_npz, (".npz",)),
    Format("X.npy,y.npy", _read_pair, is_one=_is_pair),
    Format("a folder of IDX files", read_idx_folder, is_one=os.path.isdir),
)
"""All formats, in the order in which messages and help texts name them."""


def describe_formats() -> str:
    """Return what `load_dataset` takes, as a list for help texts."""
    tables = _either([known.name for known in FORMATS if known.table])
    others = [known.name for known in FORMATS if not known.table]
    names = ", ".join(["digits (8 x 8 pictures that come with gpunn)", *SOURCES])
    return f"{names}, or a path: {_either([f'{tables} with the label first', *others], ', or ')}"


def load_dataset(data: str, data_dir: FilePath | None = None) -> Dataset:
    """Load a data set, by its name or from files.

    Parameters
    ----------
    data : str
        ``digits`` (comes with gpunn), ``mnist`` or ``fashion-mnist``; or the path of a ``.csv``,
        ``.csv.gz`` or ``.parquet`` file (label first), an ``.npz`` file or a folder of IDX files;
        or ``X.npy,y.npy``, two paths with a comma between them.
    data_dir : path, optional
        Folder that holds ``mnist`` and ``fashion-mnist``, each a folder of IDX files. Without it,
        the folder in the environment variable ``GPUNN_DATA_DIR`` is used; what is missing there is
        downloaded once and kept.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If there is no such data set, it cannot be downloaded, or one of its files is damaged.
    """
    if data == "digits":
        return load_digits()
    if data in SOURCES:
        return load_known(data, data_dir)
    if (found := _format_of(data)) is not None:
        return found.read(data)
    what = "a file of unknown kind" if os.path.exists(data) else "neither a data set nor a path"
    names = ", ".join(["digits", *SOURCES])
    suffixes = _either([suffix for known in FORMATS for suffix in known.suffixes])
    others = [known.name for known in FORMATS if not known.suffixes]
    raise DataError(
        f"{data!r} is {what}; expected {names}, {_either([f'a {suffixes} file', *others], ', or ')}"
    )


def is_table(path: FilePath) -> bool:
    """Whether a path is that of a table, by its name: a file that can be read in chunks."""
    return _table_reader(path) is not None


def table_fits(path: FilePath) -> bool:
    """Whether a CSV or Parquet file fits the memory twice, going by its beginning or its header.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    return fits((_table_reader(path) or _CSV).n_bytes(path))


def table_chunks(path: FilePath, *, labelled: bool = True) -> Iterator[NDArray[np.float64]]:
    """Read a CSV or Parquet file some rows at a time, however long it is.

    Parameters
    ----------
    path : path
        The file: ``.csv``, ``.csv.gz`` or ``.parquet``. One of another name is read as CSV.
    labelled : bool
        Whether the first column must be a label.

    Yields
    ------
    array of float64, shape (n, n_columns)
        The next rows, label first.

    Raises
    ------
    DataError
        If the file is bad; the message says where.
    """
    return (_table_reader(path) or _CSV).chunks(path, labelled=labelled)


def _format_of(path: str) -> Format | None:
    """Return the format of a path; a folder may be named as a file of another format is."""
    told = (known for known in FORMATS if known.is_one and known.is_one(path))
    named = (known for known in FORMATS if path.endswith(known.suffixes))
    return next(itertools.chain(told, named), None)


def _table_reader(path: FilePath) -> TableReader | None:
    """Return how to read a file in chunks, if it is a table."""
    known = _format_of(os.fspath(path))
    return None if known is None else known.table


def _either(words: Sequence[str], last: str = " or ") -> str:
    """Return words as a list of which one is to be chosen."""
    return last.join(part for part in (", ".join(words[:-1]), words[-1]) if part)
