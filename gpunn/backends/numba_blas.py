"""NumPy's own BLAS, called in place from compiled code.

NumPy itself has no call that adds a product to an array. But its wheels bring an OpenBLAS whose
functions have names, and compiled code can call a function by its address. So nearly all products
go through one library, with one pool of threads, that of every ``a @ b``; single samples that have
no loop still go through SciPy's. In wheels of the same day it is the newer of the two.
"""

import ctypes
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.numba_library import Library
from gpunn.backends.numpy_blas import Blas, blas_libraries

Values = NDArray[Any]

NAMES = ("scipy_cblas_sgemm64_", "scipy_cblas_dgemm64_", "scipy_openblas_get_num_threads64_")
"""Of the functions in NumPy's wheels. The end says that whole numbers have 64 bits, which is what
the compiled call hands over."""


def numpys_blas(loops: Library) -> Blas:
    """Return NumPy's BLAS; SciPy's where NumPy has none with these names."""
    for library in blas_libraries():
        addresses = _addresses(library.filepath)
        if addresses is not None:
            return NumpysBlas(library, addresses, loops)
    return Blas()


def _addresses(path: str) -> list[int] | None:
    """Return where the functions are; None if a library has other names for them."""
    library = ctypes.CDLL(path)
    try:
        functions = [getattr(library, name) for name in NAMES]
    except AttributeError:
        return None
    return [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]


class NumpysBlas(Blas):
    """The products of NumPy's library; the rest, where it is asked for, is SciPy's."""

    def __init__(self, library: Any, addresses: list[int], loops: Library) -> None:
        self._library = library
        self.dot = {"f": np.dot, "d": np.dot}
        self._loops = loops
        *products, self._count_threads = addresses
        self._products = dict(zip("fd", products, strict=True))

    def gemm(
        self,
        a: Values,
        b: Values,
        out: Values,
        transpose_a: bool,
        transpose_b: bool,
        alpha: float,
        beta: float,
    ) -> None:
        if not self.multiply(a, b, out, transpose_a, transpose_b, alpha, beta):
            self.scipys.gemm(a, b, out, transpose_a, transpose_b, alpha, beta)

    def multiply(self, a: Any, b: Any, out: Values, *factors: float) -> int:
        code = out.dtype.char
        places = self._products.get(code, 0), self._count_threads
        return self._loops("gemm", code)(*places, out, a, b, *factors)

    @cached_property
    def scipys(self) -> Blas:
        return Blas()

    def share_cores(self, n_processes: int) -> None:
        super().share_cores(n_processes)
        self.scipys.share_cores(n_processes)
