"""The one sum of a step: in rank order, with as few bytes as a sum can be had for.

Each rank gets its own slice of the array from all others, adds up the slices in rank order, and
sends the sum to all others. MPI only carries the numbers, so that no choice of an MPI library
changes a bit of the result, and all ranks have the same. Of an array of N bytes, each of P ranks
sends 2 (P - 1) / P N bytes: N with two ranks, and less than 2 N however many there are.

Source: R. Thakur, R. Rabenseifner and W. Gropp, *Optimization of collective communication
operations in MPICH* (2005), for the reduce-scatter and the all-gather that make a sum.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


class HostSum:
    """A sum over ranks of arrays of one size and dtype, in host memory.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        The ranks.
    size : int
        Numbers in an array.
    dtype : dtype
        Their type.
    """

    def __init__(self, comm: Any, size: int, dtype: np.dtype[Any]) -> None:
        from mpi4py import MPI

        self._comm, self._byte, n_ranks = comm, MPI.BYTE, comm.size
        bounds = [size * rank // n_ranks for rank in range(n_ranks + 1)]
        counts = [(stop - start) * dtype.itemsize for start, stop in pairwise(bounds)]
        own = counts[comm.rank]
        self._slices = (counts, [start * dtype.itemsize for start in bounds[:-1]])
        self._rows = ([own] * n_ranks, [own * rank for rank in range(n_ranks)])
        self._parts = np.empty((n_ranks, own // dtype.itemsize), dtype)
        self._total = np.empty(own // dtype.itemsize, dtype)
        self.n_bytes_sent = sum(counts) - own + own * (n_ranks - 1)
        """What a rank sends in one sum."""

    def add_up(self, array: NDArray[Any]) -> None:
        """Change a contiguous array in place to its sum over all ranks."""
        flat = array.reshape(-1)
        self._comm.Alltoallv(
            [flat, *self._slices, self._byte], [self._parts, *self._rows, self._byte]
        )
        self._finish(flat)

    def begin(self, array: NDArray[Any]) -> Any:
        """Let the slices of an array go on their way; `end` waits for them."""
        return self._comm.Ialltoallv(
            [array.reshape(-1), *self._slices, self._byte], [self._parts, *self._rows, self._byte]
        )

    def end(self, request: Any, array: NDArray[Any]) -> None:
        """Change the array that `begin` was given in place to its sum over all ranks."""
        request.Wait()
        self._finish(array.reshape(-1))

    def _finish(self, flat: NDArray[Any]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(self._total, self._parts[0])
            for part in self._parts[1:]:
                np.add(self._total, part, self._total)
        self._comm.Allgatherv(
            [self._total, self._total.nbytes, self._byte], [flat, *self._slices, self._byte]
        )
