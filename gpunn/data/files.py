"""Opening a file that is not trusted, compressed or not.

A size that a file's header claims is compared with the file and with the memory before memory is
asked for. Whatever is wrong ends in one line of `DataError` that names the file.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from gpunn.errors import DataError, one_line
from gpunn.host_memory import TOO_LITTLE_TO_ASK, free_memory

FilePath = str | os.PathLike[str]

CHUNK_VALUES = 2**20
"""Numbers that are read at a time from a file that does not fit: 8 MiB."""

DEFLATE_LIMIT = 1032
"""No byte of a deflate stream can stand for more than this many bytes of data."""

_GZIP_MAGIC = b"\x1f\x8b"


def check_is_file(path: FilePath) -> None:
    """Raise a `DataError` that says what is wrong if `path` is not a file."""
    if os.path.isdir(path):
        raise DataError(f"{path}: is a folder; expected a file")
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file; check the path")


@contextmanager
def open_file(path: FilePath) -> Iterator[tuple[BinaryIO, int]]:
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
                yield unzipped, size * DEFLATE_LIMIT  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: gzip data damaged or cut short ({one_line(error, 120)}); fetch the file again"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error, 120)}") from None


def check_size(path: FilePath, declared: int, limit: int) -> None:
    """Raise unless so many bytes of data can be in a file."""
    if declared > limit:
        raise DataError(
            f"{path}: the header declares {declared} bytes of data, more than a file of this "
            "size can hold; fetch the file again"
        )


def fits(declared: int) -> bool:
    """Whether the memory has room for so many bytes of data, twice."""
    return declared <= TOO_LITTLE_TO_ASK or 2 * declared <= free_memory()


def memory_runs_out(n_read: int, n_last: int) -> bool:
    """Whether numbers that are being read as text will not fit, asked once in a while.

    Parameters
    ----------
    n_read : int
        Characters read so far.
    n_last : int
        How many of them have come since the last call.
    """
    # Two characters can make a number of 8 bytes, and NumPy keeps numbers twice while it reads.
    # What is free by now is without those that came before.
    asks = n_read > TOO_LITTLE_TO_ASK and n_read % TOO_LITTLE_TO_ASK < n_last
    return asks and free_memory() < 8 * TOO_LITTLE_TO_ASK


def check_fits(path: FilePath, declared: int, remedy: str) -> None:
    """Raise unless the memory has room for so many bytes of data, twice."""
    if not fits(declared):
        raise DataError(
            f"{path}: holds {declared} bytes of data, more than this machine has memory for; "
            f"{remedy}"
        )


def fingerprint(files: Iterable[tuple[str, FilePath]]) -> str:
    """Return what tells files from others: a hash of the name of each, its size and its bytes.

    Parameters
    ----------
    files : iterable of (str, path)
        What each is called, which counts, and where it is, which does not.
    """
    digest = hashlib.sha256()
    for name, path in files:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(name.encode(errors="surrogateescape") + b"\0" + content)
    return digest.hexdigest()[:32]
