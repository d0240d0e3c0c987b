"""Several ranks, by MPI through mpi4py.

This module is imported only where a launcher has started several processes.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpunn.backends.base import Array, Backend
from gpunn.backends.rank_sum import RankSum
from gpunn.parallel.ranks import Ranks
from gpunn.parallel.sums import HostSum
from gpunn.parallel.watch import Watch

T = TypeVar("T")


def library_name() -> str:
    """Return which MPI this is, such as "MPICH 5.0.2"."""
    from mpi4py import MPI

    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}"


class MpiRanks(Ranks):
    """The ranks that a launcher has started.

    Attributes
    ----------
    n_bytes_sent : int
        What this rank has sent so far in sums.
    comm, ends : mpi4py.MPI.Comm
        Two ways to the others, the second one for ranks that fail.
    """

    def __init__(self, comm: Any) -> None:
        self.comm, self.ends = comm.Dup(), comm.Dup()
        self.rank, self.size = comm.rank, comm.size
        self.library = library_name()
        self.n_bytes_sent = 0
        self._sums: dict[tuple[int, str], HostSum] = {}
        self._slots: dict[tuple[int, int, str], HostSum] = {}
        self._on_devices: dict[str, RankSum | None] = {}
        self._watch = Watch(comm)

    def add_up(self, backend: Backend, array: Array) -> None:
        on_device = self._on_device(backend)
        if on_device is not None:
            self._watch.note_sum(on_device.is_done)
            on_device.add_up(array)
            self.n_bytes_sent += on_device.n_bytes_sent(array)
            return
        host = array if isinstance(array, np.ndarray) else backend.to_host(array)
        with self._watch:
            own = self.host_sum(host.size, host.dtype)
            own.add_up(host)
        self.n_bytes_sent += own.n_bytes_sent
        if host is not array:
            backend.copy_into(backend.asarray(host), array)

    def begin_sum(self, backend: Backend, array: Array, slot: int) -> Callable[[], None]:
        on_device = self._on_device(backend)
        if on_device is not None:
            self._watch.note_sum(on_device.is_done)
            self.n_bytes_sent += on_device.n_bytes_sent(array)
            return on_device.begin(array)
        host = array if isinstance(array, np.ndarray) else backend.to_host(array)
        key = (slot, host.size, host.dtype.char)
        if key not in self._slots:
            self._slots[key] = HostSum(self.comm, host.size, host.dtype)
        own = self._slots[key]
        request = own.begin(host)
        self.n_bytes_sent += own.n_bytes_sent

        def wait() -> None:
            with self._watch:
                own.end(request, host)
            if host is not array:
                backend.copy_into(backend.asarray(host), array)

        return wait

    def _on_device(self, backend: Backend) -> RankSum | None:
        """Return how a device adds up over ranks by itself, if it does."""
        if backend.name not in self._on_devices:
            self._on_devices[backend.name] = backend.make_rank_sum(self)
        return self._on_devices[backend.name]

    def host_sum(self, size: int, dtype: np.dtype[Any]) -> HostSum:
        """Return what adds up arrays of that size in host memory."""
        key = (size, dtype.char)
        if key not in self._sums:
            self._sums[key] = HostSum(self.comm, size, dtype)
        return self._sums[key]

    def same(self, value: T) -> T:
        with self._watch:
            return self.comm.bcast(value)  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        with self._watch:
            return self.comm.allgather(value)  # type: ignore[no-any-return]

    def to_first(self, value: T, rank: int) -> T:
        with self._watch:
            if rank != 0 and self.rank == rank:
                self.comm.send(value, 0)
            elif rank != 0 and self.rank == 0:
                return self.comm.recv(source=rank)  # type: ignore[no-any-return]
        return value

    def agree(self, number: float, clock: float) -> tuple[float, float]:
        mine, all_of_them = np.array([number, clock]), np.empty((self.size, 2))
        with self._watch:
            self.comm.Allgather(mine, all_of_them)
        return float(all_of_them[:, 0].max()), float(all_of_them[0, 1])
