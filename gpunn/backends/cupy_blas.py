"""cuBLAS, called in place and in a stated precision.

Each call says what it computes in, so that neither ``CUPY_TF32`` nor other users of CuPy's cuBLAS
handle change that. This module must only be imported when a GPU is asked for; see
`gpunn.backends.select`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np

Array = Any
"""``cupy.ndarray``, which has no type to be checked."""


def multiply(
    a: Array,
    b: Array,
    out: Array,
    transpose_a: bool,
    transpose_b: bool,
    alpha: float,
    beta: float,
    precision: str,
) -> None:
    """Change `out` in place to ``alpha op(a) op(b) + beta out`` on the current device.

    See `gpunn.backends.base.Backend.gemm`.
    """
    # cuBLAS is column-major, where out^T = alpha op(b)^T op(a)^T + beta out^T needs no copies: b is
    # its first factor, a its second, and out^T has n rows and m columns.
    m, n = out.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    leading_a, transpose_a = _leading_dimension(a, transpose_a)
    leading_b, transpose_b = _leading_dimension(b, transpose_b)
    cublas = cupy.cuda.cublas
    runtime = cupy.cuda.runtime
    number = runtime.CUDA_R_32F if out.dtype.char == "f" else runtime.CUDA_R_64F
    # cuBLAS reads both from the host's memory, when it is called and not later.
    factors = np.array([alpha, beta], out.dtype)
    with _plain_handle() as handle:
        cublas.gemmEx(
            handle,
            cublas.CUBLAS_OP_T if transpose_b else cublas.CUBLAS_OP_N,
            cublas.CUBLAS_OP_T if transpose_a else cublas.CUBLAS_OP_N,
            n,
            m,
            k,
            factors.ctypes.data,
            b.data.ptr,
            number,
            leading_b,
            a.data.ptr,
            number,
            leading_a,
            factors.ctypes.data + factors.itemsize,
            out.data.ptr,
            number,
            n,
            _compute_type(out.dtype, precision),
            cublas.CUBLAS_GEMM_DEFAULT,
        )


def _compute_type(dtype: np.dtype[Any], precision: str) -> int:
    """Return cuBLAS's name for what a product of that dtype is computed in."""
    cublas = cupy.cuda.cublas
    if dtype.char == "d":
        return int(cublas.CUBLAS_COMPUTE_64F)
    return int(
        {
            "fp32": cublas.CUBLAS_COMPUTE_32F,
            "tf32": cublas.CUBLAS_COMPUTE_32F_FAST_TF32,
            "bf16": cublas.CUBLAS_COMPUTE_32F_FAST_16BF,
        }[precision]
    )


def _leading_dimension(matrix: Array, transpose: bool) -> tuple[int, bool]:
    """Return BLAS's leading dimension of a matrix, and whether BLAS must transpose it.

    A row-major matrix is its own transpose to column-major BLAS; `transpose` already counts that.
    """
    if matrix.flags.c_contiguous:
        return max(1, matrix.shape[1]), transpose
    return max(1, matrix.shape[0]), not transpose


@contextmanager
def _plain_handle() -> Iterator[int]:
    """Give CuPy's cuBLAS handle for the current stream, without TF32 and with host factors."""
    cublas = cupy.cuda.cublas
    handle = cupy.cuda.device.get_cublas_handle()
    math_mode, pointer_mode = cublas.getMathMode(handle), cublas.getPointerMode(handle)
    cublas.setMathMode(handle, cublas.CUBLAS_DEFAULT_MATH)
    cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
    try:
        yield handle
    finally:
        cublas.setMathMode(handle, math_mode)
        cublas.setPointerMode(handle, pointer_mode)
