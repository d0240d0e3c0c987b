"""SciPy's BLAS, called in place.

The wheels of NumPy and SciPy carry an OpenBLAS each, with threads of its own that spin while they
wait. A loop that used both would have two pools fight for the same cores. So products go through
one of them: SciPy's, which can also accumulate into its output, or with the extra ``fast`` NumPy's
(`gpunn.backends.numba_blas`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

Values = NDArray[Any]


class Blas:
    """The products that a network needs, for float32 (``"f"``) and float64 (``"d"``)."""

    def __init__(self) -> None:
        # Imported here because scipy.linalg costs more than all the rest of `import gpunn`.
        from scipy.linalg import blas

        self._gemm = {"f": blas.sgemm, "d": blas.dgemm}
        self.gemv = {"f": blas.sgemv, "d": blas.dgemv}
        self.dot = {"f": blas.sdot, "d": blas.ddot}
        self.ger = {"f": blas.sger, "d": blas.dger}
        libraries = blas_libraries()
        scipys = [library for library in libraries if "scipy.libs" in library.filepath]
        # Outside wheels, NumPy and SciPy share one library.
        self._library = (scipys or libraries or [None])[0]

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
        """Change `out` in place to ``alpha op(a) op(b) + beta out``; see `Backend.gemm`."""
        if out.size == 0:
            return
        # BLAS is column-major, where out^T = alpha op(b)^T op(a)^T + beta out^T needs no copies: to
        # it a row-major matrix is its own transpose. So the factors change places, and each goes as
        # the column-major view of its memory: a row-major one as its transpose, with its own flag,
        # a column-major one as itself, with the other flag.
        b, transpose_b = (b.T, transpose_b) if b.flags.c_contiguous else (b, not transpose_b)
        a, transpose_a = (a.T, transpose_a) if a.flags.c_contiguous else (a, not transpose_a)
        multiply = self._gemm[out.dtype.char]
        # Without overwrite_c, SciPy would write to a copy and leave `out` as it is.
        multiply(alpha, b, a, beta, out.T, transpose_b, transpose_a, overwrite_c=1)

    def multiply(self, a: Any, b: Any, out: Values, *factors: float) -> int:
        """Look at the matrices, and do what `gemm` does if they suit; return 0 if nothing was done.

        Only compiled code can look at them in less time than Python.
        """
        return 0

    @property
    def scipys(self) -> "Blas":
        """SciPy's BLAS, which has the products with vectors, too."""
        return self

    @property
    def path(self) -> str | None:
        """The library's file, if it has threads to set."""
        return None if self._library is None else str(self._library.filepath)

    @property
    def n_threads(self) -> int:
        """How many threads the library uses now."""
        return 1 if self._library is None else int(self._library.num_threads)

    def share_cores(self, n_processes: int) -> None:
        """Use only so many threads that several processes on this machine have cores enough.

        Whoever says in the environment how many there are to be, or has bound each process to
        cores of its own, has decided already.
        """
        chosen = any(name in os.environ for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"))
        n_cores = os.cpu_count() or 1
        bound = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < n_cores
        if n_processes > 1 and self._library is not None and not chosen and not bound:
            self._library.set_num_threads(max(1, n_cores // n_processes))

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Use one thread for a while: small products take longer to share out than to do."""
        before = self.n_threads
        if before == 1:
            yield
            return
        self._library.set_num_threads(1)
        try:
            yield
        finally:
            self._library.set_num_threads(before)


def blas_libraries() -> list[Any]:
    """Return the controllers of those that are loaded and have threads to set."""
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().lib_controllers
    return [library for library in found if library.user_api == "blas"]
