"""cuBLAS's library as ctypes opens it, for the double of CuPy: handles of one's own.

`library` has the few functions of cuBLAS that gpunn calls, under their names in the library. They
take what ctypes takes, and refuse what it would pass on wrongly: addresses as whole numbers, which
it cuts to 32 bits unless ``argtypes`` says otherwise, and factors of another type. They return 0;
what cuBLAS would answer with another status, or do wrong in silence, is a `MisuseError` at once.
"""

import ctypes
import itertools
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_captures import Run, Use, refuse_while_capturing
from fake_memory import GUARD
from fake_products import CUBLASError, Product, compute_type, find_memory, matrices, prepare
from fake_streams import current_device, find_stream

WORKSPACE_ALIGNMENT = 256
SPOILT_BYTES = 2**16
"""So many of a workspace are overwritten by a product. All of it would take long."""
HOST, DEFAULT_MATH, FULL_PRECISION_REDUCTION = 0, 0, 16


class MisuseError(AssertionError):
    """What cuBLAS would refuse with a status, or would do wrong."""


class _Handle:
    def __init__(self) -> None:
        self.device_id = current_device()
        self.math_mode, self.pointer_mode = DEFAULT_MATH, HOST
        self.set_stream(0)

    def set_stream(self, address: int) -> None:
        self._stream = weakref.ref(find_stream(address))
        # As cuBLAS says: the workspace is its own again.
        self.workspace: tuple[int, int] | None = None

    def stream(self) -> Any:
        stream = self._stream()
        if stream is None:
            raise CUBLASError("the handle's stream has been destroyed")
        return stream


_handles: dict[int, _Handle] = {}
_addresses = itertools.count(0x7000_0000_0000, 64)


def _handle(address: int) -> _Handle:
    if address not in _handles:
        raise CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED")
    handle = _handles[address]
    if handle.device_id != current_device():
        raise CUBLASError(f"the handle belongs to device {handle.device_id}")
    return handle


# How ctypes passes what it is given. `declared` is what ``argtypes`` says, or None.


def _as_address(argument: Any, declared: Any) -> int:
    if declared is not None and (argument is None or isinstance(argument, int)):
        argument = declared(argument)
    if not isinstance(argument, ctypes.c_void_p):
        raise TypeError(f"an address must be a c_void_p, which is not cut to 32 bits: {argument!r}")
    return argument.value or 0


def _as_int(argument: Any, declared: Any) -> int:
    number = argument.value if isinstance(argument, ctypes.c_int) else argument
    if type(number) is not int or not -(2**31) <= number < 2**31:
        raise TypeError(f"not a whole number of 32 bits: {argument!r}")
    return number


def _as_size(argument: Any, declared: Any) -> int:
    if declared is ctypes.c_size_t and isinstance(argument, int):
        argument = ctypes.c_size_t(argument)
    if not isinstance(argument, ctypes.c_size_t):
        raise TypeError(f"a size must be a c_size_t: {argument!r}")
    return argument.value


def _pointed_at(argument: Any) -> Any:
    """Return what ``byref(...)``, ``pointer(...)`` or an array of ctypes points at."""
    if hasattr(argument, "_obj"):
        return argument._obj
    if isinstance(argument, ctypes._Pointer):
        return argument.contents
    if isinstance(argument, ctypes.Array):
        return argument._type_.from_buffer(argument)
    raise TypeError(f"not a pointer: {argument!r}")


def _as_result(argument: Any, declared: Any) -> ctypes.c_void_p:
    result = _pointed_at(argument)
    if not isinstance(result, ctypes.c_void_p):
        raise TypeError(f"a handle is a c_void_p, not {result!r}")
    return result


def _as_factor(argument: Any, declared: Any) -> Callable[[Any], float]:
    """Return what reads a factor, whose type depends on the product."""

    def read(ctype: Any) -> float:
        if isinstance(argument, ctypes.c_void_p) or (declared and isinstance(argument, int)):
            number = ctype.from_address(_as_address(argument, declared))
        else:
            number = _pointed_at(argument)
        if not isinstance(number, ctype):
            raise TypeError(f"alpha and beta must be {ctype.__name__}, got {number!r}")
        value: float = number.value
        return value

    return read


class Entry:
    """A function of the library, which can be told its ``argtypes`` as one of ctypes can."""

    def __init__(self, function: Callable[..., None], *kinds: Callable[[Any, Any], Any]) -> None:
        self._function, self._kinds = function, kinds
        self.argtypes: Any = None
        self.restype: Any = ctypes.c_int

    def __call__(self, *arguments: Any) -> int:
        declared = self.argtypes or [None] * len(self._kinds)
        if not len(arguments) == len(self._kinds) == len(declared):
            raise TypeError(f"takes {len(self._kinds)} arguments, got {len(arguments)}")
        passed = [
            kind(argument, type_)
            for kind, argument, type_ in zip(self._kinds, arguments, declared, strict=True)
        ]
        try:
            self._function(*passed)
        except CUBLASError as error:
            raise MisuseError(str(error)) from error
        return 0


def _create(result: ctypes.c_void_p) -> None:
    refuse_while_capturing("cuBLAS makes a handle")
    result.value = next(_addresses)
    _handles[result.value] = _Handle()


def _destroy(handle: int) -> None:
    refuse_while_capturing("cuBLAS frees a handle")
    _handle(handle)
    del _handles[handle]


def _set_stream(handle: int, stream: int) -> None:
    _handle(handle).set_stream(stream)


def _set_workspace(handle: int, address: int, size: int) -> None:
    state = _handle(handle)
    if address % WORKSPACE_ALIGNMENT or size <= 0:
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE: a workspace begins at 256 bytes")
    find_memory("the workspace", address, size)
    state.workspace = address, size


def _set_math_mode(handle: int, mode: int) -> None:
    _handle(handle).math_mode = mode


def _set_pointer_mode(handle: int, mode: int) -> None:
    _handle(handle).pointer_mode = mode


def _gemm_ex(
    handle: int,
    transa: int,
    transb: int,
    m: int,
    n: int,
    k: int,
    alpha: Callable[[Any], float],
    a: int,
    type_a: int,
    lda: int,
    b: int,
    type_b: int,
    ldb: int,
    beta: Callable[[Any], float],
    c: int,
    type_c: int,
    ldc: int,
    computed_in: int,
    algorithm: int,
) -> None:
    state = _handle(handle)
    if state.math_mode & ~FULL_PRECISION_REDUCTION != DEFAULT_MATH:
        raise CUBLASError("the math mode changes what products are computed in")
    if state.pointer_mode != HOST:
        raise CUBLASError("alpha and beta lie on the host, but the pointer mode is DEVICE")
    wide = compute_type(computed_in).dtype().itemsize == 8
    ctype = ctypes.c_double if wide else ctypes.c_float
    places = [(a, type_a, lda), (b, type_b, ldb), (c, type_c, ldc)]
    factors = matrices(transa, transb, (m, n, k), places)
    product = Product(*factors, alpha(ctype), beta(ctype), computed_in, algorithm)
    state.stream()._submit(*_with_workspace(state, *prepare(product)))


def _with_workspace(state: _Handle, uses: list[Use], run: Run) -> tuple[list[Use], Run]:
    """Let work write to the handle's workspace, in which nobody may keep anything."""
    if state.workspace is None:
        if state.stream().is_capturing():
            raise CUBLASError("cuBLAS would allocate a workspace: it needs one of its own")
        return uses, run
    address, size = state.workspace
    memory = find_memory("the workspace", address, size)
    values = np.ndarray(size, np.uint8, memory.bytes.data, GUARD + address - memory.ptr)
    if any(np.may_share_memory(use.values, values) for use in uses):
        raise CUBLASError("the workspace overlaps a matrix")

    def spoil_and_run(all_uses: list[Use]) -> None:
        all_uses[0].values[:SPOILT_BYTES] = 0xFF
        run(all_uses[1:])

    return [Use(memory, values, True), *uses], spoil_and_run


_FACTOR, _MATRIX = [_as_factor], [_as_address, _as_int, _as_int]
library = SimpleNamespace(
    cublasCreate_v2=Entry(_create, _as_result),
    cublasDestroy_v2=Entry(_destroy, _as_address),
    cublasSetStream_v2=Entry(_set_stream, _as_address, _as_address),
    cublasSetWorkspace_v2=Entry(_set_workspace, _as_address, _as_address, _as_size),
    cublasSetMathMode=Entry(_set_math_mode, _as_address, _as_int),
    cublasSetPointerMode_v2=Entry(_set_pointer_mode, _as_address, _as_int),
    cublasGemmEx=Entry(
        _gemm_ex,
        *(_as_address, _as_int, _as_int, _as_int, _as_int, _as_int),
        *(*_FACTOR, *_MATRIX, *_MATRIX, *_FACTOR, *_MATRIX),
        *(_as_int, _as_int),
    ),
)
