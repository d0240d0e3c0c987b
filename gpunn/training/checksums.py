"""The SHA-256 of a checkpoint: of all that it holds, each value with its name, type and shape.

A process by itself has it all, and one hash is enough. Ranks that share the hidden units each hash
their own part, so that none reads or writes more than its share: the checksum is then that of the
plain values, that of the arrays that belong to all, and one for each part with the units that it
is of. A file is looked through in the parts in which it was written, by as many ranks as there are.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import ModelFileError
from gpunn.parallel.ranks import Ranks
from gpunn.parallel.sharing import NOT_SHARED, Sharing, unit_axis


class Source(Protocol):
    """Arrays by name, in memory or in a file."""

    def names(self) -> list[str]:
        """Return their names, in order."""

    def about(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return an array's dtype and shape."""

    def bytes_of(self, name: str, axis: int, units: slice) -> Iterator[NDArray[np.uint8]]:
        """Yield the bytes of a part of an array, from its first number to its last."""


class MemorySource:
    """Arrays in memory."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def names(self) -> list[str]:
        """Return their names, in order."""
        return sorted(self._arrays)

    def about(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return an array's dtype and shape."""
        return self._arrays[name].dtype, self._arrays[name].shape

    def bytes_of(self, name: str, axis: int, units: slice) -> Iterator[NDArray[np.uint8]]:
        """Yield the bytes of a part of an array, in one piece."""
        array = self._arrays[name]
        part = array[(slice(None),) * axis + (units,)] if array.ndim else array
        yield np.ascontiguousarray(part).reshape(-1).view(np.uint8)


def checksum_of(
    header: dict[str, Any], arrays: Mapping[str, NDArray[Any]], sharing: Sharing = NOT_SHARED
) -> Any:
    """Return the checksum of a checkpoint, a text or plain values; all ranks must ask for it.

    Parameters
    ----------
    header : dict
        Its plain values; the first rank's count.
    arrays : dict of str to ndarray
        This rank's arrays.
    sharing : Sharing
        What each rank has.
    """
    source, everything = MemorySource(arrays), slice(None)
    if not sharing.is_split:
        return _hash(header, source, source.names(), everything)
    units = sharing.units
    own = _hash(None, source, _shared(source), everything)
    parts = sharing.ranks.gather([units.start, units.stop, own])
    return {"rest": _hash(header, source, _not_shared(source), everything), "parts": parts}


def fits_checksum(header: dict[str, Any], source: Source, expected: Any, ranks: Ranks) -> bool:
    """Whether what this rank looks at of a checkpoint is as the checksum says.

    Raises
    ------
    ModelFileError
        If it is no checksum.
    """
    everything = slice(None)
    if isinstance(expected, str):
        # Made by one process, in one go.
        return not ranks.is_first or expected == _hash(header, source, source.names(), everything)
    try:
        rest, parts = expected["rest"], [(int(a), int(b), str(c)) for a, b, c in expected["parts"]]
    except (KeyError, TypeError, ValueError):
        raise ModelFileError("its checksum makes no sense") from None
    shared = _shared(source)
    ends = [0, *(stop for _, stop, _ in parts)]
    n_units = {source.about(name)[1][unit_axis(name) or 0] for name in shared}
    if n_units != {ends[-1]} or ends[:-1] != [start for start, _, _ in parts]:
        return False
    mine = parts[ranks.rank :: ranks.size]
    if any(sha != _hash(None, source, shared, slice(start, stop)) for start, stop, sha in mine):
        return False
    return not ranks.is_first or rest == _hash(header, source, _not_shared(source), everything)


def _shared(source: Source) -> list[str]:
    return [name for name in source.names() if unit_axis(name) is not None]


def _not_shared(source: Source) -> list[str]:
    return [name for name in source.names() if unit_axis(name) is None]


def _hash(header: dict[str, Any] | None, source: Source, names: list[str], units: slice) -> str:
    """Return the SHA-256 of plain values and of those units of some arrays."""
    digest = hashlib.sha256()
    if header is not None:
        digest.update(json.dumps(header, sort_keys=True).encode())
    for name in names:
        dtype, whole = source.about(name)
        axis, shape = unit_axis(name) or 0, list(whole)
        if units != slice(None):
            shape[axis] = units.stop - units.start
        digest.update(f"\n{name} {dtype.str} {tuple(shape)}\n".encode())
        for numbers in source.bytes_of(name, axis, units):
            digest.update(numbers.data)
    return digest.hexdigest()
