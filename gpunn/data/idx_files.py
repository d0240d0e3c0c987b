"""IDX files, the format of MNIST, alone and by the folder."""

import gzip
import math
import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpunn.data.datasets import BYTE_RANGE, Dataset, make_dataset
from gpunn.data.files import FilePath, check_fits, check_size, fits, open_file
from gpunn.errors import DataError

IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

IDX_STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def read_idx_folder(folder: FilePath, *, needs_train: bool = False) -> Dataset:
    """Read a data set from a folder of IDX files, named as those of MNIST are.

    ``train-images-idx3-ubyte`` with ``train-labels-idx1-ubyte``, or the pair that starts with
    ``t10k``, or both pairs must be there. Each may end in ``.gz``, and may have a dot in the place
    of its second dash, as archive programs write it: ``train-images.idx3-ubyte``. If a file is
    there under several names, that without the dot is read, and of two of those that without
    ``.gz``.

    Parameters
    ----------
    folder : path
        The folder.
    needs_train : bool
        Whether the pair ``t10k`` alone is refused. If it is not, its samples are the samples of the
        data set.

    Raises
    ------
    DataError
        If a file is missing or bad, or images and labels do not match.
    """
    train, test = _find_pair(folder, IDX_STEMS[:2]), _find_pair(folder, IDX_STEMS[2:])
    if not train and (needs_train or not test):
        raise DataError(
            f"{folder}: expected the file {IDX_STEMS[0]}-ubyte.gz (or without .gz) in it"
        )
    arrays = [(file.name, read_idx(file)) for file in [*train, *test]]
    dataset = make_dataset(folder, arrays, f"IDX files in {folder}")
    if not train:
        note = "IDX files: only the pair t10k is there, so its samples are all that there are"
        dataset = replace(
            dataset, description=f"{dataset.description}, the pair t10k alone", notes=(note,)
        )
    return replace(dataset, value_range=BYTE_RANGE) if arrays[0][1].dtype == np.uint8 else dataset


def has_idx_files(folder: FilePath) -> bool:
    """Whether one of the files that `read_idx_folder` reads is in a folder."""
    return bool(idx_files(folder))


def idx_files(folder: FilePath) -> list[Path]:
    """Return the files of a folder that `read_idx_folder` reads."""
    found = (_find_idx_file(folder, stem) for stem in IDX_STEMS)
    return [file for file in found if file is not None]


def _find_pair(folder: FilePath, stems: Sequence[str]) -> list[Path]:
    """Return the files of images and of labels, or none if neither is there."""
    files = [_find_idx_file(folder, stem) for stem in stems]
    found = [file for file in files if file is not None]
    if len(found) == 1:
        missing = stems[files.index(None)]
        raise DataError(
            f"{folder}: has {found[0].name}, but not what belongs to it; expected the file "
            f"{missing}-ubyte.gz (or without .gz) beside it"
        )
    return found


def _find_idx_file(folder: FilePath, stem: str) -> Path | None:
    dotted = stem.replace("-idx", ".idx")
    names = (f"{name}-ubyte{end}" for name in (stem, dotted) for end in ("", ".gz"))
    return next((file for name in names if os.path.isfile(file := Path(folder, name))), None)


def read_idx(path: FilePath) -> NDArray[Any]:
    """Read one IDX file, the format of MNIST, gzip-compressed or not.

    Parameters
    ----------
    path : path
        The file. Its first bytes, not its name, tell whether it is compressed.

    Returns
    -------
    array
        Shape and type as the file's header declares them, in the machine's byte order. What does
        not fit the memory twice stays in the file, as a `numpy.memmap` in the file's byte order;
        compressed files are refused then.

    Raises
    ------
    DataError
        If the file is missing, damaged, cut short, or holds more or less than it declares.
    """
    with open_file(path) as (stream, limit):
        dtype, shape = _read_idx_header(stream, path)
        declared = math.prod(shape) * dtype.itemsize
        check_size(path, declared, limit)
        mapped = not fits(declared) and not isinstance(stream, gzip.GzipFile)
        if mapped:
            start, values = stream.tell(), b""
            n_bytes = limit - start
        else:
            check_fits(path, declared, "decompress it with gunzip, and it need not fit")
            values = stream.read(declared + 1)
            n_bytes = len(values)
    if n_bytes != declared:
        came = f"only {n_bytes} came" if n_bytes < declared else "there are more"
        raise DataError(
            f"{path}: the header declares {' x '.join(map(str, shape))} values = {declared} bytes, "
            f"but {came}; fetch the file again"
        )
    if mapped:
        return np.memmap(path, dtype, "r", start, shape)
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_idx_header(stream: BinaryIO, path: FilePath) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    code, n_dimensions = (magic[2], magic[3]) if len(magic) == 4 else (0, 0)
    if magic[:2] != b"\0\0" or code not in IDX_DTYPES or not 1 <= n_dimensions <= 8:
        raise DataError(
            f"{path}: not an IDX file; expected it to start with two zero bytes, a type and a "
            f"number of dimensions, got {magic.hex(' ') or 'nothing'}"
        )
    sizes = stream.read(4 * n_dimensions)
    if len(sizes) != 4 * n_dimensions:
        raise DataError(f"{path}: cut short within its header; fetch the file again")
    shape = struct.unpack(f">{n_dimensions}I", sizes)
    if 0 in shape:
        raise DataError(f"{path}: the header declares no values: {' x '.join(map(str, shape))}")
    return np.dtype(IDX_DTYPES[code]), shape
