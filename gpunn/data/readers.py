"""From files to arrays: IDX, CSV, .npz and .npy.

Each reader turns one file into NumPy arrays; `check_inputs` and `check_labels` say whether a
network can be trained on them; `gpunn.data.datasets` puts them together. A file is not trusted: a
size that its header claims is compared with the file before memory is asked for, pickles are never
opened, and whatever is wrong ends in one line of `DataError` that names the file and the place.
"""

import gzip
import io
import itertools
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpunn.data.matrices import blocks
from gpunn.errors import DataError, one_line
from gpunn.host_memory import TOO_LITTLE_TO_ASK, free_memory

FilePath = str | os.PathLike[str]

IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

# The names under which an .npz file may hold its inputs and labels.
NPZ_KEYS = (("x_train", "y_train"), ("X", "y"), ("inputs", "labels"))

# More classes than this are surely a column of something else, and would fill the memory later.
MAX_LABEL = 65_535

CHUNK_VALUES = 2**20
"""Numbers that are read at a time from a file that does not fit: 8 MiB."""

_NO_LINES = "no line of data; expected lines of numbers divided by commas, label first"
# How much of a CSV file is looked at to guess how many numbers it holds.
_HEAD_BYTES = 2**20

_NPY_MAGIC = b"\x93NUMPY"
_GZIP_MAGIC = b"\x1f\x8b"
# No byte of a deflate stream can stand for more than this many bytes of data.
_DEFLATE_LIMIT = 1032
# Characters in a line of a CSV file: some millions of fields.
_LONGEST_LINE = 2**26


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
    with _open(path) as (stream, limit):
        dtype, shape = _read_idx_header(stream, path)
        declared = math.prod(shape) * dtype.itemsize
        _check_size(path, declared, limit)
        mapped = not fits(declared) and not isinstance(stream, gzip.GzipFile)
        if mapped:
            start, values = stream.tell(), b""
            n_bytes = limit - start
        else:
            _check_fits(path, declared, "decompress it with gunzip, and it need not fit")
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


def csv_chunks(path: FilePath, *, labelled: bool = True) -> Iterator[NDArray[np.float64]]:
    """Read a CSV file as `read_csv_table` does, `CHUNK_VALUES` numbers at a time.

    Yields
    ------
    array of float64, shape (n, n_columns)
        The next lines.

    Raises
    ------
    DataError
        As `read_csv_table` does, when the line is reached.
    """
    n_columns = 0
    with _csv_rows(path, guarded=False) as numbered_rows:
        rows = (line for _, line in numbered_rows)
        while first := next(rows, ""):
            n_rows = max(1, CHUNK_VALUES // (first.count(",") + 1))
            some = itertools.chain([first], itertools.islice(rows, n_rows - 1))
            table = _parse_csv(path, some, labelled=labelled)
            n_columns = n_columns or table.shape[1]
            if table.shape[1] != n_columns:
                raise DataError(_first_bad_line(path, labelled) or f"{path}: changed while read")
            yield table
    if not n_columns:
        raise DataError(f"{path}: {_NO_LINES}")


def csv_bytes(path: FilePath) -> int:
    """Return about how many bytes a CSV file's numbers take in memory, going by its beginning.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    with _open(path) as (stream, _):
        head = stream.read(_HEAD_BYTES)
        in_memory = 8 * (head.count(b",") + head.count(b"\n") + 1)
        if len(head) < _HEAD_BYTES:
            return in_memory
        # What has been read of the file, which may be compressed, holds the head.
        n_read = len(head)
        if isinstance(stream, gzip.GzipFile):
            n_read = stream.fileobj.tell()
    return in_memory * os.path.getsize(path) // n_read


def read_csv_table(path: FilePath, *, labelled: bool = True) -> NDArray[np.float64]:
    """Read a CSV file of numbers whose first column is the label, gzip-compressed or not.

    A header, that is a first line in which no field is a number, and blank lines are skipped.

    Parameters
    ----------
    path : path
        The file. Its first bytes, not its name, tell whether it is compressed.
    labelled : bool
        Whether the first column must be a label. If not, it may hold any number, and there need
        be no other column.

    Returns
    -------
    array of float64, shape (n_samples, n_columns)
        All values finite; labels are whole numbers from 0 to `MAX_LABEL`.

    Raises
    ------
    DataError
        If the file is missing, damaged or empty, or if a line does not fit; the message says
        which line and field.
    """
    with _csv_rows(path, guarded=True) as numbered_rows:
        rows = (line for _, line in numbered_rows)
        first = next(rows, "")
        if not first:
            raise DataError(f"{path}: {_NO_LINES}")
        return _parse_csv(path, itertools.chain([first], rows), labelled=labelled)


def _parse_csv(path: FilePath, rows: Iterator[str], *, labelled: bool) -> NDArray[np.float64]:
    """Return some lines of a CSV file, at least one, as numbers."""
    first = next(rows)
    if labelled and "," not in first:
        raise DataError(
            f"{path}: one field a line; expected the label, then the inputs, with commas"
        )
    try:
        table = np.loadtxt(itertools.chain([first], rows), delimiter=",", comments=None, ndmin=2)
    except DataError:
        raise
    except ValueError as error:
        reason = one_line(error, 120)
    else:
        if (are_labels(table[:, 0]).all() or not labelled) and np.isfinite(table).all():
            return table
        reason = "a value is not finite, or a label is not a whole number"
    raise DataError(_first_bad_line(path, labelled) or f"{path}: {reason}")


def are_labels(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each number whether it can be a label: a whole one from 0 to `MAX_LABEL`."""
    whole: NDArray[np.bool_] = values == np.floor(values)
    return whole & (values >= 0) & (values <= MAX_LABEL)


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
            _check_size(path, declared, os.path.getsize(path))
            if not fits(declared):
                return np.lib.format.open_memmap(path, "r")
            stream.seek(0)
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # as above: NumPy's header parser raises many kinds
        raise DataError(_why_not_read(path, "an .npy file", error)) from None
    return array


def check_inputs(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Return inputs as one contiguous row a sample, in the machine's byte order.

    What is mapped stays as it is in its file.

    Parameters
    ----------
    array : array, shape (n_samples, ...)
        What a file held.
    where : str
        File and name of the array, for the message.

    Raises
    ------
    DataError
        If it does not hold finite numbers, at least one a sample.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} must hold numbers, got the type {array.dtype}")
    if array.ndim < 2 or not array.size:
        raise DataError(
            f"{where} must have shape (samples, features) or (samples, rows, columns), none of "
            f"them 0, got {array.shape}"
        )
    if not isinstance(array, np.memmap):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    elif array.ndim > 2 and not array.flags.c_contiguous:
        raise DataError(
            f"{where} is too large for the memory and in Fortran's order; save it in C's"
        )
    flat = array.reshape(len(array), -1)
    for rows in blocks(flat) if flat.dtype.kind == "f" else ():
        finite = np.isfinite(flat[rows])
        if not finite.all():
            row, column = np.unravel_index(np.argmin(finite), finite.shape)
            row += rows.start
            raise DataError(
                f"{where} holds {flat[row, column]} in row {row}, column {column} (counted from "
                "0); remove or replace it"
            )
    return flat


def check_labels(array: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return class numbers as int64, shape (n_samples,).

    Parameters
    ----------
    array : array, shape (n_samples,) or (n_samples, 1)
        What a file held, of any type of number.
    where : str
        File and name of the array, for the message.

    Raises
    ------
    DataError
        If it does not hold whole numbers from 0 to `MAX_LABEL`, one a sample.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} must hold whole numbers, got the type {array.dtype}")
    if array.ndim == 2 and array.shape[1] > 1:
        raise DataError(
            f"{where} has shape {array.shape}; expected one class number a sample, so turn one-hot "
            "rows into numbers with argmax(axis=1)"
        )
    if array.shape not in ((array.size,), (array.size, 1)) or not array.size:
        raise DataError(f"{where} must have shape (samples,), got {array.shape}")
    flat = array.reshape(-1)
    whole = (flat >= 0) & (flat <= MAX_LABEL)
    if array.dtype.kind == "f":
        whole &= flat == np.floor(flat)
    if not whole.all():
        row = int(np.argmin(whole))
        raise DataError(
            f"{where} must hold whole numbers from 0 to {MAX_LABEL}, got {flat[row]} in row {row} "
            "(counted from 0)"
        )
    return flat.astype(np.int64)


def are_bytes(inputs: NDArray[Any]) -> bool:
    """Whether the values are whole numbers that run from 0 to 255, as 8-bit pixels do."""
    if inputs.min() != 0 or inputs.max() != 255:
        return False
    if inputs.dtype.kind in "iu":
        return True
    parts = (inputs[rows] for rows in blocks(inputs))
    return all(np.array_equal(part, part.astype(np.uint8)) for part in parts)


def check_is_file(path: FilePath) -> None:
    """Raise a `DataError` that says what is wrong if `path` is not a file."""
    if os.path.isdir(path):
        raise DataError(f"{path}: is a folder; expected a file")
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file; check the path")


@contextmanager
def _open(path: FilePath) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file, compressed or not; give it and the most bytes that it can hold."""
    check_is_file(path)
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as raw:
            if raw.read(2) != _GZIP_MAGIC:
                raw.seek(0)
                yield raw, size
                return
            raw.seek(0)
            with gzip.open(raw) as unzipped:
                yield unzipped, size * _DEFLATE_LIMIT  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: gzip data damaged or cut short ({one_line(error, 120)}); fetch the file again"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error, 120)}") from None


def _check_size(path: FilePath, declared: int, limit: int) -> None:
    """Raise unless so many bytes of data can be in a file."""
    if declared > limit:
        raise DataError(
            f"{path}: the header declares {declared} bytes of data, more than a file of this "
            "size can hold; fetch the file again"
        )


def fits(declared: int) -> bool:
    """Whether the memory has room for so many bytes of data, twice."""
    return declared <= TOO_LITTLE_TO_ASK or 2 * declared <= free_memory()


def _check_fits(path: FilePath, declared: int, remedy: str) -> None:
    if not fits(declared):
        raise DataError(
            f"{path}: holds {declared} bytes of data, more than this machine has memory for; "
            f"{remedy}"
        )


def _declared_by_npy(stream: IO[bytes]) -> int:
    """Return how many bytes of data the header of an .npy stream declares."""
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the format is for other things than numbers")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("Object arrays are never loaded")
    if not all(0 <= size < 2**63 for size in shape):
        raise ValueError(f"its header declares the shape {shape}")
    return math.prod(shape) * dtype.itemsize


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
        _check_size(f"{os.fspath(path)}: {name}", declared, info.file_size)
        _check_size(f"{os.fspath(path)}: {name}", declared, size * _DEFLATE_LIMIT)
        total += declared
    _check_size(path, total, size * _DEFLATE_LIMIT * len(names))
    _check_fits(path, total, "save its arrays with numpy.save, as X.npy,y.npy, which may be larger")


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


@contextmanager
def _csv_rows(path: FilePath, *, guarded: bool) -> Iterator[Iterator[tuple[int, str]]]:
    """Open a CSV file; give its lines of data with their numbers, counted from 1.

    They are guarded if they are going to be in memory together.
    """
    # Bytes that are not UTF-8 become a visible mark, which then is reported as not a number.
    with (
        _open(path) as (stream, _),
        io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace") as lines,
    ):
        rows = _nonblank(lines, path, guarded=guarded)
        first = next(rows, (0, ""))
        is_header = all(_number(field) is None for field in first[1].split(","))
        yield rows if is_header else itertools.chain([first], rows)


def _nonblank(
    lines: io.TextIOWrapper, path: FilePath, *, guarded: bool
) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, if guarded as long as their numbers fit the memory."""
    n_characters = 0
    for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), ""), 1):
        n_characters += len(line)
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{path}, line {number}: longer than {_LONGEST_LINE} characters")
        # Two characters can make a number of 8 bytes, and NumPy keeps numbers twice while it reads.
        # What is free by now is without those that came before.
        asks = n_characters > TOO_LITTLE_TO_ASK and n_characters % TOO_LITTLE_TO_ASK < len(line)
        if guarded and asks and free_memory() < 8 * TOO_LITTLE_TO_ASK:
            raise DataError(
                f"{path}, line {number}: more data than this machine has memory for; read it in "
                "chunks (gpunn.data.table_chunks)"
            )
        if not line.isspace():
            yield number, line


def _first_bad_line(path: FilePath, labelled: bool) -> str | None:
    """Say where a CSV file goes wrong; slow, so only for a file that is known to be bad."""
    expected = 0
    with _csv_rows(path, guarded=False) as numbered_rows:
        for line_number, line in numbered_rows:
            fields = line.rstrip("\r\n").split(",")
            expected = expected or len(fields)
            where = f"{path}, line {line_number}"
            if len(fields) != expected:
                return f"{where}: {len(fields)} fields; expected {expected}, as in the lines above"
            for position, field in enumerate(fields, 1):
                number = _number(field)
                if number is None or not math.isfinite(number):
                    what = "number" if number is None else "finite number"
                    return f"{where}, field {position}: {_quote(field)} is not a {what}"
                whole = 0 <= number <= MAX_LABEL and number.is_integer()
                if labelled and position == 1 and not whole:
                    return (
                        f"{where}: the label {_quote(field)} is not a whole number from 0 to "
                        f"{MAX_LABEL}; the label must be the first field"
                    )
    return None


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def _quote(field: str) -> str:
    return repr(field if len(field) <= 30 else field[:27] + "...")


def _npz_names(names: list[str], path: FilePath) -> list[str]:
    pair = next((pair for pair in NPZ_KEYS if set(pair) <= set(names)), None)
    if pair is None:
        pairs = " or ".join(" and ".join(pair) for pair in NPZ_KEYS)
        found = one_line(", ".join(map(repr, names)) or "nothing", 120)
        raise DataError(f"{path}: expected arrays named {pairs}, found {found}")
    test_pair = ("x_test", "y_test") if pair == NPZ_KEYS[0] else ()
    found_of_test = [name for name in test_pair if name in names]
    if len(found_of_test) == 1:
        raise DataError(f"{path}: has {found_of_test[0]} alone; expected both x_test and y_test")
    return [*pair, *found_of_test]


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
