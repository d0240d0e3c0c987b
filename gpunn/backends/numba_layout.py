"""Where an array's object keeps what the fused loops ask of it, in bytes from its beginning.

NumPy promises it to C programs: ``PyArrayObject_fields`` and ``PyArray_Descr`` in its C interface.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEAD = object.__basicsize__
"""What all of Python's objects begin with; its end is the address of their type."""

FIELDS = {
    "type": HEAD - 8,
    "data": HEAD,
    "n_axes": HEAD + 8,
    "sizes": HEAD + 16,
    "description": HEAD + 40,
    "flags": HEAD + 48,
}
"""Of an array's object; "description" is the address of its dtype's."""

DESCRIPTION = {"code": HEAD + 9, "order": HEAD + 10}
"""Of a dtype's object: the letter of its type, and that of its byte order."""


def is_known() -> bool:
    """Say whether arrays here are as described."""
    arrays = [np.empty((2, 3), "f"), np.empty((5, 4), "d").T, np.empty(7, ">f4")[::2]]
    arrays[0].flags.writeable = False
    return all(_found(array) == _expected(array) for array in arrays)


def _found(array: NDArray[Any]) -> tuple[Any, ...]:
    def at(place: int, kind: Any) -> Any:
        return kind.from_address(place).value

    place = id(array)
    sizes = at(place + FIELDS["sizes"], ctypes.c_void_p)
    description = at(place + FIELDS["description"], ctypes.c_void_p)
    return (
        at(place + FIELDS["type"], ctypes.c_void_p),
        at(place + FIELDS["data"], ctypes.c_void_p),
        at(place + FIELDS["n_axes"], ctypes.c_int),
        tuple(at(sizes + 8 * axis, ctypes.c_ssize_t) for axis in range(array.ndim)),
        at(description + DESCRIPTION["code"], ctypes.c_char),
        at(description + DESCRIPTION["order"], ctypes.c_char),
        at(place + FIELDS["flags"], ctypes.c_int),
    )


def _expected(array: NDArray[Any]) -> tuple[Any, ...]:
    letters = [letter.encode() for letter in (array.dtype.char, array.dtype.byteorder)]
    where = array.ctypes.data
    return (id(np.ndarray), where, array.ndim, array.shape, *letters, array.flags.num)
