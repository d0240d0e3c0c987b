"""A rank that waits for the others does not wait for ever.

Launchers end all ranks when one of them is killed. What they do not see is a rank that hangs, and
some do not look at all. So each rank counts how often it has met the others, where those on its
machine can read it, and a thread looks every second whether one that is waited for is gone, or has
not come in `LIMIT` seconds. It is named in one line, and all ranks end.
"""

import os
import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 600.0
"""Seconds that a rank waits for the others; ``GPUNN_RANK_SECONDS`` says otherwise."""

_LOOKS_EVERY = 1.0


class Watch:
    """Watches over the waiting of a rank; use it in a ``with`` around each time that it waits.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        All ranks.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._comm, self._since = comm, 0.0
        self._limit = _limit()
        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self._members = node.allgather((comm.rank, os.getpid()))
        self._window = MPI.Win.Allocate_shared(8, 8, comm=node)
        self._counts = [_numbers(self._window, place) for place in range(node.size)]
        self._mine = self._counts[node.rank]
        self._mine[0] = 0
        node.Barrier()
        threading.Thread(target=self._look, name="gpunn-watch", daemon=True).start()

    def __enter__(self) -> None:
        self._mine[0] += 1
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = 0.0

    def _look(self) -> None:
        while True:
            time.sleep(_LOOKS_EVERY)
            since = self._since
            if not since or time.monotonic() - since < _LOOKS_EVERY:
                continue
            waited = time.monotonic() - since
            late = self._late()
            gone = [rank for rank, pid in late if not _is_there(pid)]
            if gone and since == self._since:
                self._end(f"rank {gone[0]} of {self._comm.size} is gone")
            if waited > self._limit and since == self._since:
                whom = " and ".join(f"rank {rank} (process {pid})" for rank, pid in late)
                self._end(
                    f"rank {self._comm.rank} of {self._comm.size} has waited {waited:.0f} s for "
                    f"{whom or 'a rank on another machine'}; GPUNN_RANK_SECONDS sets the limit"
                )

    def _late(self) -> list[tuple[int, int]]:
        """Return the ranks on this machine, and their processes, that have not come yet."""
        met = int(self._mine[0])
        return [
            member
            for member, count in zip(self._members, self._counts, strict=True)
            if count[0] < met
        ]

    def _end(self, why: str) -> None:
        os.write(
            sys.__stderr__.fileno() if sys.__stderr__ else 2,
            f"gpunn: {why}; all ranks end; the last checkpoint is whole\n".encode(),
        )
        self._comm.Abort(1)


def _numbers(window: Any, place: int) -> NDArray[np.int64]:
    """Return the memory that a rank of this machine has in a window that all of them see."""
    return np.frombuffer(window.Shared_query(place)[0], np.int64, 1)


def _limit() -> float:
    try:
        limit = float(os.environ.get("GPUNN_RANK_SECONDS", LIMIT))
    except ValueError:
        return LIMIT
    return limit if limit > 0 else LIMIT


def _is_there(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.Error:
        return False
