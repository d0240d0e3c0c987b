"""NumPy's files: .npz archives and pairs of .npy files. Pickles are never opened."""

import math
import os
import zipfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.datasets import Dataset, make_dataset
from gpunn.data.files import (
    DEFLATE_LIMIT,
    FilePath,
    check_fits,
    check_is_file,
    check_size,
    fits,
)
from gpunn.data.tables.layout import Task
from gpunn.errors import DataError, one_line

# The names under which an .npz file may hold its inputs and labels.
NPZ_KEYS = (("x_train", "y_train"), ("X", "y"), ("inputs", "labels"))

_NPY_MAGIC = b"\x93NUMPY"


def read_npz(path: FilePath, task: Task | None = None) -> Dataset:
    """Read a data set from an .npz file.

    Its arrays are named ``x_train``, ``y_train`` and perhaps ``x_test``, ``y_test`` as in Keras,
    or ``X`` and ``y``, or ``inputs`` and ``labels``. Inputs of shape (n, rows, columns) are
    images. With the task "regression", labels are numbers to predict.

    Raises
    ------
    DataError
        If the file cannot be read, or the arrays are not inputs with their labels.
    """
    return make_dataset(path, read_npz_arrays(path), f"NumPy file {path}", task=task)


def read_npy_pair(
    inputs_path: FilePath, labels_path: FilePath, task: Task | None = None
) -> Dataset:
    """Read a data set from two .npy files, one of inputs and one of labels.

    With the task "regression", labels are numbers to predict.

    Raises
    ------
    DataError
        If a file cannot be read, or the arrays are not inputs with their labels.
    """
    arrays = [(os.fspath(path), read_npy(path)) for path in (inputs_path, labels_path)]
    description = f"NumPy files {inputs_path} and {labels_path}"
    return make_dataset(inputs_path, arrays, description, task=task, in_one_place=False)


def read_npz_arrays(path: FilePath) -> list[tuple[str, NDArray[Any]]]:
    """Read the inputs and labels of an .npz file.

    Parameters
    ----------
    path : path
        The file. It must hold one of the pairs of names in `NPZ_KEYS`; beside ``x_train`` and
        ``y_train`` it may hold ``x_test`` and ``y_test``.

    Returns
    -------
    list of (name, array)
        Inputs, labels and, where the file has them, test inputs and test labels.

    Raises
    ------
    DataError
        If the file is missing or damaged, has none of these names, or holds Python objects.
    """
    check_is_file(path)
    try:
        # Opened here because numpy.load leaves a damaged file open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names = _npz_names(archive.files, path)
            _check_members(archive.zip, names, path)
            arrays = [(name, archive[name]) for name in names]
    except DataError:
        raise
    except Exception as error:  # a damaged file makes zipfile and NumPy raise a dozen kinds
        raise DataError(_why_not_read(path, "an .npz file", error)) from None
    return arrays


def read_npy(path: FilePath) -> NDArray[Any]:
    """Read the array in an .npy file; what does not fit the memory twice stays there, mapped.

    Raises
    ------
    DataError
        If the file is missing or damaged, or holds Python objects.
    """
    check_is_file(path)
    try:
        with open(path, "rb") as stream:
            declared = _declared_by_npy(stream)
            check_size(path, declared, os.path.getsize(path))
            if not fits(declared):
                return np.lib.format.open_memmap(path, "r")
            stream.seek(0)
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # as above: NumPy's header parser raises many kinds
        raise DataError(_why_not_read(path, "an .npy file", error)) from None
    return array


def _npz_names(names: list[str], path: FilePath) -> list[str]:
    pair = next((pair for pair in NPZ_KEYS if set(pair) <= set(names)), None)
    if pair is None:
        pairs = ", or ".join(" and ".join(pair) for pair in NPZ_KEYS)
        found = one_line(", ".join(map(repr, names)) or "nothing", 120)
        raise DataError(f"{path}: expected arrays named {pairs}, found {found}")
    test_pair = ("x_test", "y_test") if pair == NPZ_KEYS[0] else ()
    found_of_test = [name for name in test_pair if name in names]
    if len(found_of_test) == 1:
        raise DataError(f"{path}: has {found_of_test[0]} only; expected both x_test and y_test")
    return [*pair, *found_of_test]


def _check_members(archive: zipfile.ZipFile, names: list[str], path: FilePath) -> None:
    """Raise unless the arrays of an .npz file are as large as their headers say, and fit."""
    total, size = 0, os.path.getsize(path)
    for name in names:
        member = name if name in archive.namelist() else f"{name}.npy"
        info = archive.getinfo(member)
        with archive.open(info) as stream:
            if stream.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
                raise DataError(
                    f"{path}: {name} is not a NumPy array; write the file with numpy.savez"
                )
        with archive.open(info) as stream:
            declared = _declared_by_npy(stream)
        check_size(f"{os.fspath(path)}: {name}", declared, info.file_size)
        check_size(f"{os.fspath(path)}: {name}", declared, size * DEFLATE_LIMIT)
        total += declared
    check_size(path, total, size * DEFLATE_LIMIT * len(names))
    check_fits(path, total, "save its arrays with numpy.save, as X.npy,y.npy, which may be larger")


def _declared_by_npy(stream: IO[bytes]) -> int:
    """Return how many bytes of data the header of an .npy stream declares."""
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the format does not hold numbers")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("Object arrays are never loaded")
    if not all(0 <= size < 2**63 for size in shape):
        raise ValueError(f"its header declares the shape {shape}")
    return math.prod(shape) * dtype.itemsize


def _begins_as_zip(path: FilePath) -> bool:
    # zipfile.is_zipfile raises for some damaged files.
    with open(path, "rb") as stream:
        return stream.read(2) == b"PK"


def _why_not_read(path: FilePath, kind: str, error: Exception) -> str:
    if isinstance(error, ValueError) and "Object arrays" in str(error):
        return f"{path}: holds Python objects, which are never loaded; save an array of numbers"
    if isinstance(error, PermissionError):
        return f"{path}: cannot be read: {one_line(error, 120)}"
    if kind == "an .npz file" and not _begins_as_zip(path):
        return f"{path}: not {kind}; write it with numpy.savez"
    return f"{path}: not {kind}, or damaged ({one_line(error, 120)})"
