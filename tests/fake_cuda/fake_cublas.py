"""cuBLAS as CuPy's own module has it, for the double of CuPy: one handle a device.

`library` is cuBLAS without CuPy, as ctypes would open it; see ``fake_cublas_library``.
"""

import ctypes
from functools import cache

from fake_cublas_library import library
from fake_modules import make_module
from fake_products import (
    COMPUTE_32F,
    COMPUTE_64F,
    COMPUTE_FAST_16BF,
    COMPUTE_FAST_TF32,
    CUBLASError,
    Product,
    compute_type,
    matrices,
    prepare,
)
from fake_streams import current_device, get_current_stream

__all__ = ["CUBLASError", "cublas", "get_cublas_handle", "library"]


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
        # CuPy refuses, though cuBLAS would not.
        raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")
    if state.math_mode != cublas.CUBLAS_DEFAULT_MATH:
        raise CUBLASError("products must not depend on who set the math mode before")
    if state.pointer_mode != cublas.CUBLAS_POINTER_MODE_HOST:
        raise CUBLASError("alpha and beta lie on the host, but the pointer mode is DEVICE")
    wide = compute_type(computeType).dtype().itemsize == 8
    factors = [
        (ctypes.c_double if wide else ctypes.c_float).from_address(x).value for x in (alpha, beta)
    ]
    places = [(A, Atype, lda), (B, Btype, ldb), (C, Ctype, ldc)]
    product = Product(*matrices(transa, transb, (m, n, k), places), *factors, computeType, algo)
    get_current_stream()._submit(*prepare(product))


cublas = make_module(
    "cupy.cuda.cublas",
    CUBLAS_OP_N=0,
    CUBLAS_OP_T=1,
    CUBLAS_DEFAULT_MATH=0,
    CUBLAS_TENSOR_OP_MATH=1,
    CUBLAS_GEMM_DEFAULT=-1,
    CUBLAS_COMPUTE_32F=COMPUTE_32F,
    CUBLAS_COMPUTE_64F=COMPUTE_64F,
    CUBLAS_COMPUTE_32F_FAST_16BF=COMPUTE_FAST_16BF,
    CUBLAS_COMPUTE_32F_FAST_TF32=COMPUTE_FAST_TF32,
    CUBLAS_POINTER_MODE_HOST=0,
    CUBLAS_POINTER_MODE_DEVICE=1,
    CUBLASError=CUBLASError,
    gemmEx=_gemm_ex,
    getMathMode=lambda handle: _handle(handle).math_mode,
    setMathMode=lambda handle, mode: setattr(_handle(handle), "math_mode", mode),
    getPointerMode=lambda handle: _handle(handle).pointer_mode,
    setPointerMode=lambda handle, mode: setattr(_handle(handle), "pointer_mode", mode),
)
