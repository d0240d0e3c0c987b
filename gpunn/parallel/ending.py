"""How ranks end together when something fails.

An error that all ranks have, such as a wrong option, is said once. One that only some have ends the
others too, which would wait for ever. Which it is shows in seconds: a rank that fails waits a
moment for the others to fail, too.
"""

import sys
import time
import traceback
from types import TracebackType
from typing import Any

from gpunn.parallel.mpi import MpiRanks
from gpunn.parallel.ranks import Ranks
from gpunn.parallel.watch import TIME_TO_PRINT

PATIENCE = 5.0
"""Seconds in which ranks that fail together come together."""


def end_together(ranks: MpiRanks) -> None:
    """Let an error that nobody catches end all ranks."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        fail(ranks, "".join(traceback.format_exception(kind, error, trace)).rstrip())

    sys.excepthook = hook


def fail(ranks: Ranks, text: str, status: int = 1) -> None:
    """Say why this rank fails; end all others, unless they have failed as well.

    Parameters
    ----------
    ranks : Ranks
        The ranks.
    text : str
        What is to be said, once if all have failed, else with the name of this rank.
    status : int
        The exit status of all.
    """
    assert isinstance(ranks, MpiRanks)
    if _all_come(ranks.ends):
        texts = ranks.ends.gather(text) or []
        for rank, other in enumerate(texts):
            if rank == 0:
                _say(other)
            elif _last_line(other) != _last_line(texts[0]):
                _say(f"rank {rank} of {ranks.size}: {other}")
        return
    _say(f"rank {ranks.rank} of {ranks.size}: {text}; all ranks end")
    time.sleep(TIME_TO_PRINT)
    ranks.comm.Abort(status)


def _all_come(ends: Any) -> bool:
    """Wait until all ranks are here, and say whether they have come in time."""
    request, until = ends.Ibarrier(), time.monotonic() + PATIENCE
    while not request.Test():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _last_line(text: str) -> str:
    return text.rpartition("\n")[2]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
