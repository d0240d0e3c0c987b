"""cuBLAS, called in place, in a stated precision, with a handle and a workspace of its own.

Each call says what it computes in, so that nothing that others set changes that. While a step is
recorded cuBLAS may not allocate, which is what the workspace is for; and CuPy's own functions
refuse to be called, which is why these calls go through ctypes. NVIDIA's bindings for Python
(nvmath-python) would do as well, but each of their versions goes with one of CUDA.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

import ctypes
import sys
from typing import Any, NamedTuple

import cupy
import numpy as np

from gpunn.backends.cublas_library import open_library
from gpunn.errors import DeviceError

Array = Any
"""``cupy.ndarray``, which has no type to be checked."""

WORKSPACE_BYTES = 2**25
"""32 MiB, as NVIDIA advises for its larger GPUs (cuBLAS's manual, cublasSetWorkspace)."""

SIDE_WORKSPACE_BYTES = 2**22
"""For small products beside others: 4 MiB, as for smaller GPUs."""

BFLOAT16 = np.dtype(np.uint16)
"""NumPy has no bfloat16: its bits are kept as whole numbers."""


class _Kind(NamedTuple):
    """How cuBLAS calls a type of numbers, and what its products are computed in."""

    number: str
    compute: str
    factor: Any


_KINDS = {
    np.dtype("f"): _Kind("CUDA_R_32F", "CUBLAS_COMPUTE_32F", ctypes.c_float),
    np.dtype("d"): _Kind("CUDA_R_64F", "CUBLAS_COMPUTE_64F", ctypes.c_double),
    BFLOAT16: _Kind("CUDA_R_16BF", "CUBLAS_COMPUTE_32F", ctypes.c_float),
}


_FASTER = {"fp32": "", "tf32": "_FAST_TF32", "bf16": "_FAST_16BF"}
"""What the precision of float32 factors adds to that, where cuBLAS is to round them itself."""


class Cublas:
    """A handle on the current device, for one thread.

    Parameters
    ----------
    workspace_bytes : int
        What its products may use of the device's memory, which two may not share at a time.

    Raises
    ------
    DeviceError
        If cuBLAS cannot be had.
    """

    def __init__(self, workspace_bytes: int = WORKSPACE_BYTES) -> None:
        try:
            self._library = open_library()
        except OSError as error:
            raise DeviceError(f"cuBLAS cannot be loaded: {error}; see gpunn info") from error
        self._handle = ctypes.c_void_p()
        self.workspace = cupy.empty(workspace_bytes, np.uint8)
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._stream: int | None = None

    def __del__(self) -> None:
        # At the end of the program CUDA may be gone already.
        if getattr(self, "_handle", None) and not sys.is_finalizing():
            self._library.cublasDestroy_v2(self._handle)

    def multiply(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool,
        transpose_b: bool,
        alpha: float,
        beta: float,
        precision: str,
    ) -> None:
        """Change `out` in place to ``alpha op(a) op(b) + beta out``, on the current stream.

        See `gpunn.backends.base.Backend.gemm`.
        """
        # cuBLAS is column-major, where out^T = alpha op(b)^T op(a)^T + beta out^T needs no copies:
        # b is its first factor, a its second, and out^T has n rows and m columns.
        m, n = out.shape
        k = a.shape[0] if transpose_a else a.shape[1]
        leading_a, transpose_a = _leading_dimension(a, transpose_a)
        leading_b, transpose_b = _leading_dimension(b, transpose_b)
        cublas, runtime, kind = cupy.cuda.cublas, cupy.cuda.runtime, _KINDS[a.dtype]
        compute = kind.compute + (_FASTER[precision] if a.dtype.char == "f" else "")
        number = getattr(runtime, kind.number)
        self._use_current_stream()
        self._call(
            "cublasGemmEx",
            self._handle,
            ctypes.c_int(cublas.CUBLAS_OP_T if transpose_b else cublas.CUBLAS_OP_N),
            ctypes.c_int(cublas.CUBLAS_OP_T if transpose_a else cublas.CUBLAS_OP_N),
            ctypes.c_int(n),
            ctypes.c_int(m),
            ctypes.c_int(k),
            # cuBLAS reads both from the host's memory, when it is called and not later.
            ctypes.byref(kind.factor(alpha)),
            ctypes.c_void_p(b.data.ptr),
            ctypes.c_int(number),
            ctypes.c_int(leading_b),
            ctypes.c_void_p(a.data.ptr),
            ctypes.c_int(number),
            ctypes.c_int(leading_a),
            ctypes.byref(kind.factor(beta)),
            ctypes.c_void_p(out.data.ptr),
            ctypes.c_int(getattr(runtime, _KINDS[out.dtype].number)),
            ctypes.c_int(n),
            ctypes.c_int(getattr(cublas, compute)),
            ctypes.c_int(cublas.CUBLAS_GEMM_DEFAULT),
        )

    def _use_current_stream(self) -> None:
        stream = cupy.cuda.get_current_stream().ptr
        if stream == self._stream:
            return
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        # In this order: with another stream, cuBLAS goes back to a workspace of its own.
        pointer, size = self.workspace.data.ptr, self.workspace.nbytes
        self._call(
            "cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(pointer), ctypes.c_size_t(size)
        )
        self._stream = stream

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise DeviceError(
                f"cuBLAS failed with status {status} in {name}: the GPU is in trouble, or out of "
                "memory; see gpunn info"
            )


def _leading_dimension(matrix: Array, transpose: bool) -> tuple[int, bool]:
    """Return BLAS's leading dimension of a matrix, and whether BLAS must transpose it.

    A row-major matrix is its own transpose to column-major BLAS; `transpose` already counts that.
    """
    if matrix.flags.c_contiguous:
        return max(1, matrix.shape[1]), transpose
    return max(1, matrix.shape[0]), not transpose
