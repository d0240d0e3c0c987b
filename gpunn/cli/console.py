"""Where the command line's lines go, and the first line of every run: the device.

With ``--json`` the last line of standard output is one JSON object, and all else goes to standard
error.
"""

import json
import math
import sys
from typing import Any

from gpunn.backends.base import Backend
from gpunn.backends.select import select_backend


class Console:
    """Where lines go: to standard output, or beside it when that is for JSON alone."""

    def __init__(self, *, as_json: bool, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet

    def say(self, text: str = "") -> None:
        """Print a line for a person."""
        if not self.quiet:
            print(text, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def report(self, text: str, result: dict[str, Any]) -> None:
        """Print a command's result: as text, or as one line of JSON."""
        print(json.dumps(plain(result), allow_nan=False) if self.as_json else text, flush=True)


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
    line = f"running on {backend.describe()}: {reason}{'; see gpunn info' if fell_back else ''}"
    if console.quiet and fell_back:
        print(line, file=sys.stderr)
    console.say(line)
    return backend
