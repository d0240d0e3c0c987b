"""Model files that several ranks write together and read together, each its own part.

It is the same file as one process writes, byte for byte: a safetensors file with everything else
about the model in its metadata (`gpunn.model_file`). The first rank makes it in a temporary folder
beside its destination, each rank writes its own numbers where they belong, and when all are on the
disk, the first one renames it. All ranks must see the same file system.

Numbers are read and written a few MiB at a time, and never mapped: a rank needs no more memory than
its own part takes, however large the file is.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import ModelFileError, OutputError, one_line
from gpunn.model_file import FORMAT, LARGEST_HEADER, described, header_of, replacing
from gpunn.parallel.ranks import Ranks
from gpunn.parallel.sharing import Piece, Sharing

PIECE_BYTES = 2**24
"""What is read, written and hashed at a time."""

LOOKS, LOOK_BYTES = 256, 2**16
"""Where ranks look whether they have the same file: 16 MiB, at equal distances."""

_CODES = {"float64": "F64", "float32": "F32", "int64": "I64", "uint32": "U32", "uint64": "U64"}
_DTYPES = {code: np.dtype(name) for name, code in _CODES.items()}


class _Tensor(NamedTuple):
    """An array in a file: its dtype, its shape, and where its first byte is."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def runs(self, piece: Piece, shape: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
        """Yield the place in the file of each run of an array, and the run in the flat array.

        The array is of that shape, and lies in this one as the piece says.
        """
        size, itemsize = math.prod(shape), self.dtype.itemsize
        axis = piece.axis or 0
        inner = math.prod(self.shape[axis + 1 :])
        run = size if axis == 0 else shape[axis] * inner
        whole = self.shape[axis] * inner if self.shape else 1
        for number in range(size // run if run else 0):
            place = number * whole + piece.start * inner
            yield self.start + place * itemsize, slice(number * run, (number + 1) * run)


def write_parts(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    header: dict[str, Any],
    sharing: Sharing,
) -> None:
    """Write a model file on all ranks, whole or not at all.

    Parameters
    ----------
    path : path-like
        Where to; the first rank's counts.
    arrays : dict of str to ndarray
        This rank's arrays by name. Those that no rank has a part of are the first rank's.
    header : dict
        Values that JSON can hold; the first rank's count.
    sharing : Sharing
        What each rank has.

    Raises
    ------
    OutputError
        On all ranks, if it could not be written. What was at `path` before is still there.
    """
    ranks = sharing.ranks
    pieces = {name: sharing.piece(name, array.shape) for name, array in arrays.items()}
    said = None
    with ExitStack() as stack:
        begun = ranks.same(_attempt(lambda: _begin(stack, path, arrays, pieces, header, ranks)))
        if isinstance(begun, str):
            raise OutputError(f"cannot write {path}: {begun}")
        temporary, start = begun
        tensors = _laid_out(arrays, pieces, start)
        wrong = ranks.gather(_attempt(lambda: _fill(temporary, arrays, pieces, tensors, ranks)))
        said = next((text for text in wrong if text is not None), None)
        if said is not None:
            raise OutputError(f"cannot write {path}: {said}")
        said = ranks.same(_attempt(stack.close))
    if said is not None:
        raise OutputError(f"cannot write {path}: {said}")


def _attempt(work: Callable[[], Any]) -> Any:
    """Return what some work returns, or in a line what kept it from being done."""
    try:
        return work()
    except (OSError, OutputError) as error:
        return one_line(error)


def _begin(
    stack: ExitStack,
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    pieces: Mapping[str, Piece],
    header: dict[str, Any],
    ranks: Ranks,
) -> tuple[Path, int] | None:
    """Make the file with its header, on the first rank; return where, and where numbers begin."""
    if not ranks.is_first:
        return None
    tensors = _laid_out(arrays, pieces, 0)
    entries: dict[str, Any] = {"__metadata__": {FORMAT: described(path, header)}}
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": _CODES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [tensor.start, tensor.start + tensor.n_bytes],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    temporary: Path = stack.enter_context(replacing(path))
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + sum(tensor.n_bytes for tensor in tensors.values()))
    return temporary, 8 + len(text)


def _laid_out(
    arrays: Mapping[str, NDArray[Any]], pieces: Mapping[str, Piece], start: int
) -> dict[str, _Tensor]:
    """Return where each whole array lies: in the order of safetensors, wide numbers first."""
    tensors = {}
    for name in sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)):
        tensors[name] = tensor = _Tensor(arrays[name].dtype, pieces[name].shape, start)
        start += tensor.n_bytes
    return tensors


def _fill(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    pieces: Mapping[str, Piece],
    tensors: Mapping[str, _Tensor],
    ranks: Ranks,
) -> None:
    """Write this rank's numbers to where they belong, and wait until they are on the disk."""
    file = os.open(path, os.O_WRONLY)
    try:
        for name, tensor in tensors.items():
            if pieces[name].axis is None and not ranks.is_first:
                continue
            flat = np.ascontiguousarray(arrays[name]).reshape(-1)
            for place, run in tensor.runs(pieces[name], arrays[name].shape):
                _write(file, flat[run].view(np.uint8), place)
        os.fsync(file)
    finally:
        os.close(file)


def _write(file: int, numbers: NDArray[np.uint8], place: int) -> None:
    done = 0
    while done < len(numbers):
        done += os.pwrite(file, numbers[done : done + PIECE_BYTES].data, place + done)


class PartReader:
    """A model file, of which a rank reads its part.

    Parameters
    ----------
    path : path-like
        The file.

    Attributes
    ----------
    header : dict
        What was given when it was written.

    Raises
    ------
    ModelFileError
        If there is no such file, it is damaged, or it is not one of gpunn's.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelFileError(f"no model file at {self.path}; give the path of a saved network")
        try:
            entries, start = self._entries()
            metadata = entries.pop("__metadata__", None) or {}
            self.tensors = _checked(entries, start, self.path.stat().st_size)
        except ModelFileError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelFileError(
                f"{self.path} is damaged, or no network that gpunn saved: {one_line(error)}"
            ) from error
        self.header = header_of(self.path, metadata)

    def _entries(self) -> tuple[dict[str, Any], int]:
        """Return the header of the format, and where the numbers begin."""
        with self.path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            if n_header > min(LARGEST_HEADER, self.path.stat().st_size):
                raise ModelFileError(
                    f"{self.path} is damaged, or no network that gpunn saved: its first 8 bytes "
                    f"announce a header of {n_header} bytes"
                )
            entries = json.loads(file.read(n_header))
        if not isinstance(entries, dict):
            raise ValueError("its header is no object")
        return entries, 8 + n_header

    def read(self, sharing: Sharing) -> dict[str, NDArray[Any]]:
        """Return this rank's arrays by name.

        Raises
        ------
        ModelFileError
            If the arrays are not those of a network of that size, or cannot be read.
        """
        return {name: self._part(name, sharing, sharing.ranks.rank) for name in self.tensors}

    def _part(self, name: str, sharing: Sharing, rank: int) -> NDArray[Any]:
        tensor = self.tensors[name]
        shape = list(tensor.shape)
        axis = sharing.piece(name, shape).axis
        if axis is not None:
            if len(shape) <= axis or shape[axis] != sharing.layer_sizes[1]:
                raise ModelFileError(
                    f"{self.path} is damaged: expected {name} of {sharing.layer_sizes[1]} hidden "
                    f"units, found {tuple(shape)}"
                )
            units = sharing.units_of(rank)
            shape[axis] = units.stop - units.start
        array = np.empty(shape, tensor.dtype)
        flat = array.reshape(-1)
        try:
            with self.path.open("rb", buffering=0) as file:
                for place, run in tensor.runs(sharing.piece(name, shape, rank), tuple(shape)):
                    _read(file.fileno(), flat[run].view(np.uint8), place)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{self.path} cannot be read: {one_line(error)}") from error
        return array

    def fingerprint(self) -> str:
        """Return a hash of the file's header, its size, and its bytes in `LOOKS` places.

        Raises
        ------
        ModelFileError
            If it cannot be read.
        """
        digest = hashlib.sha256(json.dumps(self.header, sort_keys=True).encode())
        try:
            with self.path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(str(size).encode())
                for place in np.linspace(0, max(0, size - LOOK_BYTES), LOOKS).astype(int).tolist():
                    digest.update(os.pread(file.fileno(), LOOK_BYTES, place))
        except OSError as error:
            raise ModelFileError(f"{self.path} cannot be read: {one_line(error)}") from error
        return digest.hexdigest()[:16]

    def names(self) -> list[str]:
        """Return the names of its arrays, in order."""
        return sorted(self.tensors)

    def about(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return an array's dtype and shape."""
        return self.tensors[name].dtype, self.tensors[name].shape

    def bytes_of(self, name: str, axis: int, units: slice) -> Iterator[NDArray[np.uint8]]:
        """Yield the bytes of some units of an array, which lie along that axis, bit by bit."""
        tensor = self.tensors[name]
        shape, start = list(tensor.shape), units.start or 0
        if units != slice(None):
            shape[axis] = units.stop - units.start
        room = np.empty(PIECE_BYTES, np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for place, run in tensor.runs(Piece(tensor.shape, axis, start), tuple(shape)):
                n_bytes = (run.stop - run.start) * tensor.dtype.itemsize
                for first in range(0, n_bytes, PIECE_BYTES):
                    numbers = room[: min(PIECE_BYTES, n_bytes - first)]
                    _read(file.fileno(), numbers, place + first)
                    yield numbers


def _read(file: int, numbers: NDArray[np.uint8], place: int) -> None:
    done = 0
    while done < len(numbers):
        n_read = os.preadv(file, [numbers[done : done + PIECE_BYTES].data], place + done)
        if n_read == 0:
            raise ValueError("it ends too early")
        done += n_read


def _checked(entries: dict[str, Any], start: int, n_bytes: int) -> dict[str, _Tensor]:
    """Return where each array lies, in a file of so many bytes whose numbers begin at `start`."""
    tensors = {}
    for name, entry in entries.items():
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        whole = all(type(n) is int and 0 <= n < 2**62 for n in (*shape, first, last))
        if entry["dtype"] not in _DTYPES or not whole:
            raise ValueError(f"{name!r:.60} is no array that a network has")
        tensor = _Tensor(_DTYPES[entry["dtype"]], shape, start + first)
        if last - first != tensor.n_bytes or start + last > n_bytes:
            raise ValueError(f"{name!r:.60} does not fit the file")
        tensors[name] = tensor
    ends = sorted((t.start, t.start + t.n_bytes) for t in tensors.values())
    if ends and (
        ends[0][0] != start
        or ends[-1][1] != n_bytes
        or any(one[1] != other[0] for one, other in pairwise(ends))
    ):
        raise ValueError("its arrays overlap or leave gaps")
    return tensors
