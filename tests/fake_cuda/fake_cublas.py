"""cuBLAS for the double of CuPy: products of matrices at addresses, in host memory.

A product is refused unless its matrices lie within allocations of the current device, do not
overlap, and have leading dimensions that fit. Lower precisions round the factors as tensor cores
do.
"""

import ctypes
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from fake_memory import GUARD, Memory
from fake_modules import make_module
from fake_streams import current_device, get_current_stream


class CUBLASError(RuntimeError):
    pass


class _Handle:
    def __init__(self) -> None:
        # Neither is what gpunn needs, so that it has to set both.
        self.math_mode = cublas.CUBLAS_TENSOR_OP_MATH
        self.pointer_mode = cublas.CUBLAS_POINTER_MODE_DEVICE


_HANDLE_BASE = 7000


def get_cublas_handle() -> int:
    return _HANDLE_BASE + current_device()


@cache
def _handle_of(device_id: int) -> _Handle:
    return _Handle()


def _handle(handle: int) -> _Handle:
    if handle != get_cublas_handle():
        raise CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED")
    return _handle_of(current_device())


def _matrix(name: str, ptr: int, shape: tuple[int, int], leading: int, dtype: Any) -> Any:
    """Return the column-major matrix at an address, if it lies within one allocation."""
    rows, columns = shape
    itemsize = np.dtype(dtype).itemsize
    if rows * columns == 0:
        return np.zeros(shape, dtype)
    extent = (leading * (columns - 1) + rows) * itemsize
    for memory in Memory.live():
        if memory.ptr <= ptr and ptr + extent <= memory.ptr + memory.nbytes:
            if memory.device_id != current_device():
                raise CUBLASError(f"{name} lies on device {memory.device_id}")
            memory.uses.by(get_current_stream())
            offset = GUARD + ptr - memory.ptr
            return np.ndarray(
                shape, dtype, memory.bytes.data, offset, (itemsize, leading * itemsize)
            )
    raise CUBLASError(f"{name}: the matrix does not lie within an allocation")


class _ComputeType(NamedTuple):
    """What a product is computed in."""

    number: int
    dtype: Any
    ctype: Any
    dropped_bits: int
    """Bits of the factors' significands that are rounded away."""


_COMPUTE_TYPES = {
    68: _ComputeType(0, np.float32, ctypes.c_float, 0),
    70: _ComputeType(1, np.float64, ctypes.c_double, 0),
    75: _ComputeType(0, np.float32, ctypes.c_float, 16),
    77: _ComputeType(0, np.float32, ctypes.c_float, 13),
}


def _rounded(matrix: Any, dropped_bits: int) -> Any:
    """Return float32 numbers with fewer bits, rounded to the nearest, ties to even."""
    if not dropped_bits:
        return matrix
    bits = matrix.view(np.uint32)
    half = (1 << (dropped_bits - 1)) - 1 + (bits >> dropped_bits & 1)
    rounded = (bits + half.astype(np.uint32)) >> dropped_bits << dropped_bits
    return np.where(np.isfinite(matrix), rounded.astype(np.uint32).view(np.float32), matrix)


def _gemm_ex(
    handle: int,
    transa: int,
    transb: int,
    m: int,
    n: int,
    k: int,
    alpha: int,
    A: int,
    Atype: int,
    lda: int,
    B: int,
    Btype: int,
    ldb: int,
    beta: int,
    C: int,
    Ctype: int,
    ldc: int,
    computeType: int,
    algo: int,
) -> None:
    state = _handle(handle)
    if get_current_stream().is_capturing():
        # As CuPy does, though cuBLAS could.
        raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")
    if state.math_mode != cublas.CUBLAS_DEFAULT_MATH:
        raise CUBLASError("products must not depend on who set the math mode before")
    if state.pointer_mode != cublas.CUBLAS_POINTER_MODE_HOST:
        raise CUBLASError("alpha and beta lie on the host, but the pointer mode is DEVICE")
    compute = _COMPUTE_TYPES.get(computeType)
    if compute is None or not Atype == Btype == Ctype == compute.number or algo != -1:
        raise CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED")
    shape_a, shape_b = ((m, k), (k, n))
    shape_a = shape_a[::-1] if transa else shape_a
    shape_b = shape_b[::-1] if transb else shape_b
    for leading, rows in ((lda, shape_a[0]), (ldb, shape_b[0]), (ldc, m)):
        if leading < max(1, rows) or min(m, n, k) < 0:
            raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    dtype = compute.dtype
    a, b = _matrix("A", A, shape_a, lda, dtype), _matrix("B", B, shape_b, ldb, dtype)
    c = _matrix("C", C, (m, n), ldc, dtype)
    if any(x.size and c.size and np.may_share_memory(x, c) for x in (a, b)):
        raise CUBLASError("C overlaps A or B")
    a, b = (_rounded(x, compute.dropped_bits) for x in (a, b))
    factor = compute.ctype.from_address(alpha).value
    factor_c = compute.ctype.from_address(beta).value
    product = (a.T if transa else a) @ (b.T if transb else b) if factor else 0
    scaled = np.asarray(product, dtype) * np.asarray(factor, dtype)
    # With beta == 0, BLAS does not read C at all: there may be NaN in it.
    c[...] = scaled if factor_c == 0 else scaled + np.asarray(factor_c, dtype) * c


cublas = make_module(
    "cupy.cuda.cublas",
    CUBLAS_OP_N=0,
    CUBLAS_OP_T=1,
    CUBLAS_DEFAULT_MATH=0,
    CUBLAS_TENSOR_OP_MATH=1,
    CUBLAS_GEMM_DEFAULT=-1,
    CUBLAS_COMPUTE_32F=68,
    CUBLAS_COMPUTE_64F=70,
    CUBLAS_COMPUTE_32F_FAST_16BF=75,
    CUBLAS_COMPUTE_32F_FAST_TF32=77,
    CUBLAS_POINTER_MODE_HOST=0,
    CUBLAS_POINTER_MODE_DEVICE=1,
    CUBLASError=CUBLASError,
    gemmEx=_gemm_ex,
    getMathMode=lambda handle: _handle(handle).math_mode,
    setMathMode=lambda handle, mode: setattr(_handle(handle), "math_mode", mode),
    getPointerMode=lambda handle: _handle(handle).pointer_mode,
    setPointerMode=lambda handle, mode: setattr(_handle(handle), "pointer_mode", mode),
)
