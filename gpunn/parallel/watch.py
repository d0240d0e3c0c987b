"""A rank that waits for the others does not wait for ever.

Launchers end all ranks when one of them is killed. What they do not see is a rank that hangs, and
some do not look at all. So each rank counts how often it has met the others, where those on its
machine can read it. A thread looks every second whether one that is waited for is gone, has ended
as if all were done, or has not come in `LIMIT` seconds. It is named in one line, and all ranks end.
"""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import ParameterError

LIMIT = 600.0
"""Seconds that a rank waits for the others; ``GPUNN_RANK_SECONDS`` says otherwise."""

LOOKS_EVERY = 1.0

TIME_TO_PRINT = 0.5
"""Seconds that a launcher is given to print what was said, before it hears that all is over."""


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
        self._given: tuple[float, Callable[[], bool]] = (0.0, lambda: True)
        self._limit = _limit()
        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self._members = node.allgather((comm.rank, os.getpid()))
        self._window = MPI.Win.Allocate_shared(16, 8, comm=node)
        # Of each: how often it has met the others, and whether it has ended.
        self._counts = [_numbers(self._window, place) for place in range(node.size)]
        self._mine = self._counts[node.rank]
        self._mine[:] = 0
        node.Barrier()
        atexit.register(self._note_end)
        threading.Thread(target=self._look, name="gpunn-watch", daemon=True).start()

    def __enter__(self) -> None:
        self._mine[0] += 1
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = 0.0

    def _note_end(self) -> None:
        self._mine[1] = 1

    def note_sum(self, is_done: Callable[[], bool]) -> None:
        """Note that a device gets a sum, whose time runs from now until it is done."""
        self._mine[0] += 1
        self._given = time.monotonic(), is_done

    def _waits_since(self) -> float:
        """Return since when this rank waits for the others, itself or by its device; 0 if not."""
        given, is_done = self._given
        return self._since or (0.0 if is_done() else given)

    def _look(self) -> None:
        while True:
            time.sleep(LOOKS_EVERY)
            since = self._waits_since()
            waited = time.monotonic() - since
            why = self._why(waited) if since and waited > LOOKS_EVERY else None
            if why is not None and since == self._waits_since():
                self._end(why)

    def _why(self, waited: float) -> str | None:
        """Return why there is no use in waiting any longer; None if there is."""
        states = {rank: _state(pid) for rank, pid in self._members}
        gone = [rank for rank, state in states.items() if state is None]
        if gone:
            return f"rank {gone[0]} of {self._comm.size} is gone"
        met = int(self._mine[0])
        late = [m for m, count in zip(self._members, self._counts, strict=True) if count[0] < met]
        for (rank, _), (n_met, has_ended) in zip(self._members, self._counts, strict=True):
            if has_ended and n_met < met:
                return f"rank {rank} of {self._comm.size} has ended, and the others wait for it"
        if waited < self._limit:
            return None
        # One that has come and does not go on is one that somebody has stopped.
        late = late or [m for m in self._members if states[m[0]] == "stopped"]
        whom = " and ".join(f"rank {rank} (process {pid})" for rank, pid in late)
        if not whom:
            elsewhere = self._comm.size > len(self._members)
            whom = "ranks on other machines" if elsewhere else "the others"
        return (
            f"rank {self._comm.rank} of {self._comm.size} has waited {waited:.0f} s for {whom} "
            "(GPUNN_RANK_SECONDS sets this limit)"
        )

    def _end(self, why: str) -> None:
        text = f"gpunn: {why}, so all ranks end; go on from a checkpoint, if there are any\n"
        os.write(2, text.encode())  # the main thread may hold what else prints
        time.sleep(TIME_TO_PRINT)
        self._comm.Abort(1)


def _numbers(window: Any, place: int) -> NDArray[np.int64]:
    """Return the memory that a rank of this machine has in a window that all of them see."""
    return np.frombuffer(window.Shared_query(place)[0], np.int64, 2)


def _limit() -> float:
    text = os.environ.get("GPUNN_RANK_SECONDS", str(LIMIT))
    with contextlib.suppress(ValueError):
        if (limit := float(text)) > 0:
            return limit
    raise ParameterError(
        f"GPUNN_RANK_SECONDS must be a number of seconds above 0, got {text!r:.60}"
    )


def _state(pid: int) -> str | None:
    """Return what a process is doing, as psutil calls it; None if it has ended."""
    import psutil

    try:
        state: str = psutil.Process(pid).status()
    except psutil.Error:
        return None
    return None if state in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else state
