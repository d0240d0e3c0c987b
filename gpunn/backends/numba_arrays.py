"""NumPy's arrays as compiled code sees them, and what it asks of them before it writes.

A loop gets the address of an array's object; `gpunn.backends.numba_layout` says what is where. To
ask here takes nanoseconds, and in Python several microseconds.
"""

# Numba has no types to check against, and what it compiles is Python in form alone.
# mypy: ignore-errors

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from gpunn.backends.numba_layout import DESCRIPTION, FIELDS

OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}
"""A division by zero is no error, and a product and a sum may be one instruction. None of what else
"fast" arithmetic allows: NaN, infinity and the order of sums stay as they are written."""

SUMMING = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
"""Sums may be taken in another order, many at a time. NaN and infinity stay as they are, and the
sign of a zero may not."""

LETTERS = {code: np.uint8(ord(code)) for code in "fdi"}
"""NumPy's letters for float32, float64 and int32, as arrays keep them."""

READ, WRITTEN = 0x101, 0x501
"""NumPy's flags of arrays that are row-major and aligned, and of those that may be changed, too."""

WHOLE, SHORT, LETTER = np.intp(0), np.int32(0), np.uint8(0)
NATIVE = ord("=")


def inlined(function):
    """Return a function that becomes part of whatever loop calls it."""
    return njit(function, forceinline=True, **OPTIONS)


@intrinsic
def pointer(context, place, number):
    """Return an address as that of numbers; `number` is one of them, for its type."""

    def make(ctx, builder, signature, arguments):
        kind = ctx.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], kind)

    return types.CPointer(number)(place, number), make


def _object(symbol):
    """Return what gives the address of one of Python's objects, which the library hands in."""

    @intrinsic
    def address(context):
        def make(ctx, builder, signature, arguments):
            found = builder.module.globals.get(symbol)
            if found is None:
                found = ir.GlobalVariable(builder.module, ir.IntType(8), symbol)
            return builder.ptrtoint(found, ctx.get_value_type(types.intp))

        return types.intp(), make

    return address


_array_type, _none = _object("gpunn_ndarray"), _object("gpunn_none")

_TYPE, _DATA, _N_AXES, _SIZES = (FIELDS[name] for name in ("type", "data", "n_axes", "sizes"))
_DESCRIPTION, _FLAGS = FIELDS["description"], FIELDS["flags"]
_CODE, _ORDER = DESCRIPTION["code"], DESCRIPTION["order"]


@inlined
def at(place, number):
    """Return the number at an address; `number` is of its type."""
    return pointer(place, number)[0]


@inlined
def numbers(array, number):
    """Return where an array's numbers are."""
    return pointer(at(array + _DATA, WHOLE), number)


@inlined
def size(array, axis):
    """Return how long an axis is."""
    return at(at(array + _SIZES, WHOLE) + 8 * axis, WHOLE)


@inlined
def is_none(array):
    """Say whether it is None and no array."""
    return array == _none()


@inlined
def is_array(array, code, flags, n_axes):
    """Say whether it is an array of that dtype, with those flags, and of so many axes."""
    if at(array + _TYPE, WHOLE) != _array_type() or at(array + _N_AXES, SHORT) != n_axes:
        return False
    description = at(array + _DESCRIPTION, WHOLE)
    if at(description + _CODE, LETTER) != code or at(description + _ORDER, LETTER) != NATIVE:
        return False
    return (at(array + _FLAGS, SHORT) & flags) == flags


@inlined
def is_vector(array, code, flags, n):
    """Say whether it is a vector of so many numbers."""
    return is_array(array, code, flags, 1) and size(array, 0) == n


@inlined
def is_none_or_vector(array, code, n):
    """Say whether it is None, or a vector to be read."""
    return is_none(array) or is_vector(array, code, READ, n)


@inlined
def are_alike(array, other, code, flags):
    """Say whether a second array is of the first one's shape, and also as it should be."""
    n_axes = at(array + _N_AXES, SHORT)
    if not is_array(other, code, flags, n_axes):
        return False
    same = True
    for axis in range(n_axes):
        same = same and size(array, axis) == size(other, axis)
    return same


@inlined
def is_of_any_shape(array, code, flags):
    """Say whether an array of any shape is as it should be."""
    return at(array + _TYPE, WHOLE) == _array_type() and is_array(
        array, code, flags, at(array + _N_AXES, SHORT)
    )
