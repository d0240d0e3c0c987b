"""The command line on several ranks: one speaks, and all end together."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

from gpunn import launcher
from gpunn.errors import ParameterError
from gpunn.parallel.ranks import Ranks

ON_RANKS = ("train", "evaluate", "predict", "parity", "info")
"""The commands that several ranks do together."""


def check_command(name: str, ranks: Ranks) -> None:
    """Raise ParameterError if a command is for one process, and there are several."""
    if ranks.size > 1 and name not in ON_RANKS:
        raise ParameterError(
            f"gpunn {name} runs in one process, and {ranks.size} were started: start it without "
            "mpiexec or srun"
        )


@contextlib.contextmanager
def silent_unless_first() -> Iterator[None]:
    """Let nothing be printed meanwhile, unless this is the first rank; nor warnings, ever."""
    if launcher.rank() == 0:
        yield
        return
    warnings.simplefilter("ignore")
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def end(ranks: Ranks, text: str, status: int) -> int:
    """Say why a command fails, on all ranks once, and return its exit status."""
    if ranks.size > 1:
        from gpunn.parallel.ending import fail

        fail(ranks, text, status)
    elif launcher.rank() == 0:
        sys.stderr.write(f"{text}\n")
    return status
