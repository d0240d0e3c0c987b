"""What must be, whatever is wrong with a file: it is read, or refused in one line that names it."""

import resource
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hostile_files import Kind
from hostile_readers import Read

from gpunn import GpunnError

MEMORY = 2**30
SECONDS = 20
"""What reading a file may take; whoever lets a judge read ends the process then."""
LONGEST_MESSAGE = 1000


class Outcome(NamedTuple):
    """How many readers refused a file, and what should not have been."""

    n_refused: int
    problem: str | None


class Judge:
    """Lets the readers of a kind read files, one after the other, in this process."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.memory_before = _most_memory()

    def __call__(self, path: Path) -> Outcome:
        outcomes = [self._read(read, path) for read in self.kind.reads]
        problems = [outcome.problem for outcome in outcomes if outcome.problem]
        grown = _most_memory() - self.memory_before
        if grown > MEMORY:
            problems.append(f"{grown >> 20} MiB of memory")
        return Outcome(sum(o.n_refused for o in outcomes), "; ".join(problems) or None)

    def _read(self, read: Read, path: Path) -> Outcome:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except GpunnError as error:
            if "\n" in str(error) or not str(error):
                return Outcome(1, f"its message is not one line: {error!s:.200}")
            if len(str(error)) > LONGEST_MESSAGE:
                return Outcome(1, f"its message is too long: {error!s:.200}")
            if str(path.parent) not in str(error):
                return Outcome(1, f"its message does not name the file: {error!s:.200}")
            return Outcome(1, None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in Rust is no Exception
            last = traceback.extract_tb(error.__traceback__)[-1]
            return Outcome(0, f"{error!r:.200} at {last.filename}:{last.lineno}")
        return Outcome(0, None)


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
