"""What `load_dataset` takes."""

import os
from collections.abc import Iterator

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


def load_dataset(data: str, data_dir: FilePath | None = None) -> Dataset:
    """Load a data set by its name, or from files.

    Parameters
    ----------
    data : str
        ``digits`` (comes with gpunn), ``mnist`` or ``fashion-mnist``; or the path of a ``.csv``
        or ``.csv.gz`` or a ``.parquet`` file (label first), an ``.npz`` file or a folder of IDX
        files; or
        ``X.npy,y.npy``, two paths with a comma between them.
    data_dir : path, optional
        Folder that holds ``mnist`` and ``fashion-mnist``, each a folder of IDX files. Without
        it, the folder that the environment variable ``GPUNN_DATA_DIR`` names is looked into;
        what is not there is downloaded once and kept.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If there is no such data set, it cannot be downloaded, or a file of it is bad.
    """
    if data == "digits":
        return load_digits()
    if data in SOURCES:
        return load_known(data, data_dir)
    if os.path.isdir(data):
        return read_idx_folder(data)
    if "," in data and not os.path.exists(data):
        inputs_path, labels_path = data.split(",", 1)
        return read_npy_pair(inputs_path, labels_path)
    if is_table(data):
        return read_parquet(data) if data.endswith(".parquet") else read_csv(data)
    if data.endswith(".npz"):
        return read_npz(data)
    known = "digits, " + ", ".join(SOURCES)
    what = "a file of unknown kind" if os.path.exists(data) else "neither a data set nor a path"
    raise DataError(
        f"{data!r} is {what}; expected {known}, a .csv, .csv.gz, .parquet or .npz file, "
        "X.npy,y.npy, or a folder of IDX files"
    )


def is_table(path: FilePath) -> bool:
    """Whether a file is a table by its name: one that can be read in chunks."""
    return os.fspath(path).endswith((".csv", ".csv.gz", ".parquet"))


def table_fits(path: FilePath) -> bool:
    """Whether a CSV or Parquet file fits the memory twice, going by its beginning or its header.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    is_parquet = os.fspath(path).endswith(".parquet")
    return fits(parquet_bytes(path) if is_parquet else csv_bytes(path))


def table_chunks(path: FilePath, *, labelled: bool = True) -> Iterator[NDArray[np.float64]]:
    """Read a CSV or Parquet file some rows at a time, however long it is.

    Parameters
    ----------
    path : path
        The file: ``.csv``, ``.csv.gz`` or ``.parquet``.
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
    is_parquet = os.fspath(path).endswith(".parquet")
    return (parquet_chunks if is_parquet else csv_chunks)(path, labelled=labelled)
