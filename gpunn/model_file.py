"""Model files: safetensors, with everything else about the model as JSON in the metadata.

The format is a length, a JSON header and the raw numbers: reading it runs no code. This module
knows only names, arrays and a dictionary of plain values; `gpunn.network.files` makes a network of
them.

A file is written in a temporary folder beside its destination, flushed to the disk and renamed, so
that a crash at any moment leaves the old file or the new one, never half of one.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import ModelFileError, OutputError, one_line

FORMAT = "gpunn-1"

LARGEST_HEADER = 2**24
"""Bytes of the header of a model file; as lists in lists, more of it could fill the memory."""


def write_model(
    path: str | os.PathLike[str], parameters: dict[str, NDArray[Any]], header: dict[str, Any]
) -> None:
    """Write a model file, whole or not at all.

    Parameters
    ----------
    path : path-like
        Where to. The folder must exist; a file that is there is replaced at the end.
    parameters : dict of str to ndarray
        Host arrays by name, float32 or float64.
    header : dict
        Values that JSON can hold.

    Raises
    ------
    OutputError
        If it could not be written. What was at `path` before is still there.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    # One entry alone: safetensors writes several in any order, and equal models make equal files.
    metadata = {FORMAT: described(path, header)}
    tensors = {name: np.ascontiguousarray(array) for name, array in parameters.items()}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError, ValueError) as error:
        raise OutputError(
            f"cannot write {path}: {one_line(error)}; check that the folder exists, can be "
            f"written to and has {_mebibytes(tensors)} free"
        ) from error


def described(path: str | os.PathLike[str], header: dict[str, Any]) -> str:
    """Return everything about a model but its numbers as a text.

    Raises
    ------
    OutputError
        If it is longer than a file has room for.
    """
    text = json.dumps(header, allow_nan=False)
    if len(text) > LARGEST_HEADER // 2:
        raise OutputError(
            f"cannot write {path}: the description of the model takes {len(text)} bytes, but "
            f"a model file has room for {LARGEST_HEADER // 2}"
        )
    return text


def header_of(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Return what `described` made a text of, from a file's metadata.

    Raises
    ------
    ModelFileError
        If it is not there, or damaged.
    """
    if FORMAT not in metadata:
        found = ", ".join(map(repr, metadata)) or "none"
        raise ModelFileError(
            f"{path} is a safetensors file but not a gpunn model: "
            f"expected a description named {FORMAT!r}, found {found:.80}"
        )
    try:
        header = json.loads(metadata[FORMAT])
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: its description is not JSON") from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{path} is damaged: its description is not a JSON object")
    return header


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write a file at, which takes the place of `path` at the end.

    If anything goes wrong, the temporary file is removed and what was at `path` is still there.
    What is no regular file, such as a pipe, cannot be replaced: the file is copied into it at the
    end. A symbolic link stays, and the file that it names is replaced.

    The temporary file has a folder of its own, beside `path`: a library may write further temporary
    files beside the one it was asked for, and what a killed process leaves behind is then in one
    place whose name tells what it is.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        with tempfile.TemporaryDirectory() as name:
            temporary = Path(name, path.name)
            yield temporary
            with temporary.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
        return
    path = Path(os.path.realpath(path))
    # Names may have 255 bytes, and a character up to four.
    folder = path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.tmp")
    temporary = folder / path.name
    try:
        folder.mkdir()
        yield temporary
        # A library may have made it for its owner alone; the user's umask says whose it is.
        temporary.chmod(folder.stat().st_mode & 0o666)
        _flush(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text to a file in UTF-8, whole or not at all.

    Raises
    ------
    OutputError
        If it could not be written. What was there before is still there.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(text.encode())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


def check_writable(path: str | os.PathLike[str], *others: str | os.PathLike[str] | None) -> None:
    """Raise now if a file could not be written there later, before hours of work are spent.

    Parameters
    ----------
    path : path-like
        Where a file is going to be written.
    *others : path-like or None
        Files that are read or written beside it, and must not be the same.

    Raises
    ------
    OutputError
        If the folder does not exist or cannot be written to, the path is a folder, or it is one of
        the other files.
    """
    path = Path(path)
    for other in others:
        # Devices such as /dev/stdout may be both.
        if other is not None and _is_same(path, Path(other)) and not path.is_char_device():
            raise OutputError(f"cannot write {path}: it would replace {other}; give another name")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise OutputError(
            f"cannot write {path}: the folder {path.parent} does not exist; make it first"
        )
    if path.exists() and not path.is_file():
        if not os.access(path, os.W_OK):
            raise OutputError(f"cannot write {path}: {os.strerror(errno.EACCES)}")
        return
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them does not exist yet
        return path.resolve() == other.resolve()


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a model file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    parameters : dict of str to ndarray
        Host arrays by name.
    header : dict
        What was given to `write_model`.

    Raises
    ------
    ModelFileError
        If there is no such file, it is damaged, or it is not one of gpunn's.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"no model file at {path}; give the path of a saved network")
    try:
        with path.open("rb") as raw:
            n_header = int.from_bytes(raw.read(8), "little")
        if n_header > min(LARGEST_HEADER, path.stat().st_size):
            raise ModelFileError(
                f"{path} is damaged, or no network that gpunn saved: it does not begin as a "
                "safetensors file does"
            )
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            parameters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except ModelFileError:
        raise
    except (
        OSError, SafetensorError, TypeError, ValueError, KeyError, AttributeError, MemoryError,
    ) as error:  # fmt: skip
        raise ModelFileError(
            f"{path} is damaged, or no network that gpunn saved: {one_line(error)}"
        ) from error
    return parameters, header_of(path, metadata)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    # The rename itself is only safe once the folder is on the disk. Windows cannot open folders.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mebibytes(tensors: dict[str, NDArray[Any]]) -> str:
    size = sum(array.nbytes for array in tensors.values())
    return f"{max(1, round(size / 2**20))} MiB"
