"""The formats of files that gpunn reads, and data sets by their name or their path.

`FORMATS` is the one place that knows them all. A new format is a reader in a module of its own and
a record here; reading, reading in chunks, the messages and the help texts follow.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpunn.data.datasets import Dataset
from gpunn.data.files import FilePath, fits
from gpunn.data.idx_files import IDX_STEMS, has_idx_files, idx_files, read_idx_folder
from gpunn.data.known import SOURCES, load_digits, load_known
from gpunn.data.numpy_files import read_npy_pair, read_npz
from gpunn.data.picture_folders import EXPECTED, are_pictures, find_pictures, read_picture_folder
from gpunn.data.tables.csv_files import open_csv
from gpunn.data.tables.layout import NO_OPTIONS, Missing, TableOptions, Task, table_options
from gpunn.data.tables.loading import OpenTable, load_table, number_chunks
from gpunn.data.tables.parquet_files import open_parquet
from gpunn.data.tables.preparation import Preparation
from gpunn.data.tables.prepared import without_targets
from gpunn.data.tables.table_file import TableFile
from gpunn.errors import DataError, ParameterError


@dataclass(frozen=True)
class Format:
    """A kind of file, or of several files, that holds a data set.

    Attributes
    ----------
    name : str
        What messages and help texts call it.
    read : function of a path and a task, or None
        Returns the checked `Dataset`; None for a table, which `open_table` is enough for.
    suffixes : tuple of str
        The ends of the names of its files.
    is_one : function of a path, or None
        Tells it where the end of a name does not; is asked before any end is looked at.
    open_table : function of a path and a delimiter, or None
        Returns the `TableFile`, if it is a table: rows of samples, columns of numbers or words.
    """

    name: str
    read: Callable[[str, Task | None], Dataset] | None = None
    suffixes: tuple[str, ...] = ()
    is_one: Callable[[str], bool] | None = None
    open_table: OpenTable | None = None


def _is_pair(path: str) -> bool:
    return "," in path and not os.path.exists(path)


def _read_pair(path: str, task: Task | None) -> Dataset:
    inputs_path, labels_path = path.split(",", 1)
    return read_npy_pair(inputs_path, labels_path, task)


def _read_idx(path: str, task: Task | None) -> Dataset:
    _only_classes(path, task)
    if not has_idx_files(path):
        raise DataError(
            f"{path}: holds neither IDX files nor pictures; expected the file {IDX_STEMS[0]}-ubyte"
            f".gz and its labels, or {EXPECTED}"
        )
    return read_idx_folder(path)


def _is_other_folder(path: str) -> bool:
    return os.path.isdir(path) and not are_pictures(path)


def _read_pictures(path: str, task: Task | None) -> Dataset:
    _only_classes(path, task)
    return read_picture_folder(path)


def _only_classes(data: str, task: Task | None) -> None:
    if task == "regression":
        raise ParameterError(f"{data} has classes to learn, and no numbers to predict")


PICTURES = Format(EXPECTED, _read_pictures, is_one=are_pictures)

FORMATS: tuple[Format, ...] = (
    Format("CSV", None, (".csv", ".csv.gz", ".tsv", ".tsv.gz"), open_table=open_csv),
    Format("Parquet", None, (".parquet",), open_table=open_parquet),
    Format(".npz", read_npz, (".npz",)),
    Format("X.npy,y.npy", _read_pair, is_one=_is_pair),
    Format("a folder of IDX files", _read_idx, is_one=_is_other_folder),
    PICTURES,
)
"""All formats, in the order in which messages and help texts name them."""


def describe_formats() -> str:
    """Return what `load_dataset` takes, as a list for help texts."""
    tables = _either([known.name for known in FORMATS if known.open_table])
    others = [known.name for known in FORMATS if not known.open_table]
    names = ", ".join(["digits (8 x 8 pictures that come with gpunn)", *SOURCES])
    return f"{names}, or a path: {_either([tables, *others], ', or ')}"


def load_dataset(
    data: str,
    data_dir: FilePath | None = None,
    *,
    target: str | int | Sequence[str | int] | None = None,
    task: Task | None = None,
    ignore: str | int | Sequence[str | int] = (),
    missing: Missing | None = None,
    delimiter: str | None = None,
) -> Dataset:
    """Load a data set, by its name or from files.

    Parameters
    ----------
    data : str
        ``digits`` (comes with gpunn), ``mnist`` or ``fashion-mnist``; or the path of a table
        (``.csv``, ``.csv.gz``, ``.tsv``, ``.parquet``), an ``.npz`` file, a folder of IDX files or
        one with a sub-folder of pictures for each class; or ``X.npy,y.npy``, two paths with a comma
        between them.
    data_dir : path, optional
        Folder that holds ``mnist`` and ``fashion-mnist``, each a folder of IDX files. Without it,
        the folder in the environment variable ``GPUNN_DATA_DIR`` is used; what is missing there is
        downloaded once and kept.
    target : str, int, or sequence of them, optional
        The columns of a table to learn: names, or numbers from 1 on, or from -1 on counted from
        the end. Without it, the first column.
    task : {"classification", "regression"}, optional
        Whether they are classes or numbers to predict. Without it, words and a few whole numbers
        are classes, and everything else numbers.
    ignore : str, int, or sequence of them, optional
        Columns of a table to leave out.
    missing : {"mean", "zero", "drop"}, optional
        What a missing number becomes: the mean of its column, or 0; a missing word is then none of
        the known ones. "drop" leaves out the row. Without it, the file is refused.
    delimiter : str, optional
        What stands between the fields of a CSV file. Without it, that is found out.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If there is no such data set, it cannot be downloaded, or one of its files is damaged.
    ParameterError
        If an option is not one of those allowed, or is for tables and the data are none.
    """
    return load(data, data_dir, table_options(target, task, ignore, missing, delimiter))


def load(data: str, data_dir: FilePath | None, options: TableOptions = NO_OPTIONS) -> Dataset:
    """Load a data set as `load_dataset` does, with its options in one."""
    data = os.fspath(data)
    found = None if data == "digits" or data in SOURCES else _format_of(data)
    if found is not None and found.open_table is not None:
        table = found.open_table(data, options.delimiter)
        return load_table(table, options, f"{found.name} file {data}")
    if options.are_for_tables and (found is not None or data == "digits" or data in SOURCES):
        raise ParameterError(
            f"{data} is no table, and has no columns to choose from: leave out --target, --ignore, "
            "--missing and --delimiter"
        )
    if data == "digits" or data in SOURCES:
        _only_classes(data, options.task)
        return load_digits() if data == "digits" else load_known(data, data_dir)
    if found is not None and found.read is not None:
        return found.read(data, options.task)
    what = (
        "a file of unknown kind (if it is a table, rename it to .csv)"
        if os.path.exists(data)
        else "neither a data set nor a path"
    )
    names = ", ".join(["digits", *SOURCES])
    suffixes = _either([suffix for known in FORMATS for suffix in known.suffixes])
    others = [known.name for known in FORMATS if not known.suffixes]
    raise DataError(
        f"{data!r} is {what}; expected {names}, {_either([f'a {suffixes} file', *others], ', or ')}"
    )


def source_files(data: str) -> list[tuple[str, str]]:
    """Return the files that data are read from: the name of each in its folder, and its path.

    A file by itself has the name "", for it may be called anything. A known data set has none.

    Raises
    ------
    DataError
        If a folder of pictures is not as it must be.
    """
    if data == "digits" or data in SOURCES:
        return []
    if is_pictures(data):
        pictures = find_pictures(data)
        return [(name, os.fspath(pictures.root / name)) for name in pictures.names]
    if os.path.isdir(data):
        return [(path.name, os.fspath(path)) for path in idx_files(data)]
    paths = data.split(",", 1) if _is_pair(data) else [data]
    return [("", path) for path in paths]


def is_table(path: FilePath) -> bool:
    """Whether a path is that of a table, by its name: a file that can be read in chunks."""
    known = _format_of(os.fspath(path))
    return known is not None and known.open_table is not None


def is_pictures(data: str) -> bool:
    """Whether data are a picture or a folder of pictures, and no known data set."""
    return data != "digits" and data not in SOURCES and _format_of(data) is PICTURES


def open_table(
    path: FilePath, delimiter: str | None = None, *, may_have_header: bool = True
) -> TableFile:
    """Return a table whose beginning has been looked at. One of an unknown name is read as CSV.

    A first line without numbers is a header, unless there may be none.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    known = _format_of(os.fspath(path))
    opens = None if known is None else known.open_table
    if opens is None or opens is open_csv:
        return open_csv(path, delimiter, may_have_header=may_have_header)
    return opens(path, delimiter)


def table_fits(path: FilePath) -> bool:
    """Whether a CSV or Parquet file fits the memory twice, going by its beginning or its header.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    return fits(open_table(path).n_bytes())


def table_chunks(path: FilePath, *, labelled: bool = True) -> Iterator[NDArray[np.float64]]:
    """Read a CSV or Parquet file of numbers some rows at a time, however long it is.

    Parameters
    ----------
    path : path
        The file. One of an unknown name is read as CSV.
    labelled : bool
        Whether the first column must be a label: a whole number from 0 to 65535.

    Yields
    ------
    array of float64, shape (n, n_columns)
        The next rows, all finite, the columns in the order of the file.

    Raises
    ------
    DataError
        If the file is bad; the message says where.
    """
    return number_chunks(open_table(path), labelled=labelled)


def table_inputs(
    path: FilePath, preparation: Preparation, *, delimiter: str | None = None
) -> NDArray[np.float64]:
    """Return the inputs that a network's record makes of a table, as ``gpunn predict`` does.

    Parameters
    ----------
    path : path
        The file. Its columns are found by name, or by place if there is no header; what was to be
        learnt need not be there.
    preparation : Preparation
        `Network.preparation` of a network that was trained on a table.
    delimiter : str, optional
        What stands between the fields of a CSV file. Without it, that is found out.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_0)
        Inputs as `Network.scaling` takes them.

    Raises
    ------
    DataError
        If a column is not there, or a field holds what the network cannot know.
    """
    file = open_table(path, delimiter, may_have_header=preparation.may_have_header)
    return np.concatenate([inputs for inputs, _ in without_targets(file, preparation)])


def _format_of(path: str) -> Format | None:
    """Return the format of a path; a folder may be named as a file of another format is."""
    told = (known for known in FORMATS if known.is_one and known.is_one(path))
    named = (known for known in FORMATS if path.endswith(known.suffixes))
    return next(itertools.chain(told, named), None)


def _either(words: Sequence[str], last: str = " or ") -> str:
    """Return words as a list of which one is to be chosen."""
    return last.join(part for part in (", ".join(words[:-1]), words[-1]) if part)
