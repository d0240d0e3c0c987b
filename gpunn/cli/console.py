"""Where the command line's lines go, and the first line of every run: the device.

With ``--json`` the last line of standard output is one JSON object, and all else goes to standard
error.
"""

import json
import math
import os
import sys
from typing import Any, TextIO

from gpunn.backends.base import Backend
from gpunn.backends.select import select_backend
from gpunn.errors import OutputError, one_line
from gpunn.parallel.alike import describe_ranks
from gpunn.parallel.ranks import ALONE, Ranks


class Console:
    """Where lines go: to standard output, or beside it when that is for JSON alone."""

    def __init__(self, *, as_json: bool, quiet: bool = False, ranks: Ranks = ALONE) -> None:
        self.as_json, self.ranks = as_json, ranks
        # Of several ranks the first one speaks for all.
        self.quiet = quiet or not ranks.is_first
        self._full: OSError | None = None

    def say(self, text: str = "") -> None:
        """Print a line for a person, and go on if that cannot be done any more.

        Ctrl-C ends a `tee` at once, and a disk is full of other things: neither must end a
        training whose network is still to be saved.
        """
        if self.quiet:
            return
        file = sys.stderr if self.as_json else sys.stdout
        try:
            print(text, file=file, flush=True)
        except BrokenPipeError:
            stop_printing(file)
        except OSError as error:
            stop_printing(file)
            self._full = None if self.as_json else error
            print(f"gpunn: cannot print: {one_line(error)}; the work goes on", file=sys.stderr)

    def report(self, text: str, result: dict[str, Any]) -> None:
        """Print a command's result: as text, or as one line of JSON.

        Raises
        ------
        BrokenPipeError
            If nobody reads it.
        OutputError
            If it cannot be printed for another reason.
        """
        if not self.ranks.is_first:
            return
        shown = json.dumps(plain(result), allow_nan=False) if self.as_json else text
        try:
            if self._full is not None:
                raise self._full
            print(shown, flush=True)
        except BrokenPipeError:
            stop_printing(sys.stdout)
            raise
        except OSError as error:
            stop_printing(sys.stdout)
            raise OutputError(f"cannot print the result: {one_line(error)}") from error


def stop_printing(file: TextIO) -> None:
    """Let nothing more go to a file that takes nothing, not even as Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def plain(value: Any) -> Any:
    """Return a value as JSON has it, which knows no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def choose_device(device: str, console: Console, precision: str = "fp32") -> Backend:
    """Return the backend of a device, and say which it is and why.

    That a GPU could not be taken is said even where all else is quiet.
    """
    backend, reason, fell_back = select_backend(device, precision)
    why = f"{reason}{'; see gpunn info' if fell_back else ''}"
    line = f"running on {backend.describe()}: {why}"
    if console.ranks.size > 1:
        line = f"running on {describe_ranks(console.ranks, backend)}: {why}"
    if console.quiet and fell_back and console.ranks.is_first:
        print(line, file=sys.stderr)
    console.say(line)
    return backend
