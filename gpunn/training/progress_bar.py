"""A progress bar in one line, whatever the width of the terminal; in a notebook, its own kind.

Import this only where a bar is to be shown: it loads tqdm.
"""

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # It says that it is new, or that a notebook lacks ipywidgets and gets a terminal's bar.
    warnings.simplefilter("ignore", TqdmWarning)
    # What tqdm.auto chooses, too, which takes three times as long to load because of asyncio.
    from tqdm.autonotebook import tqdm

IN_NOTEBOOK = tqdm.__module__ == "tqdm.notebook"

ERASE = "\r\x1b[J"
"""To the start of the line, and clear it with all below: a narrowed terminal has wrapped it."""

NARROWEST = 7
"""Columns of the smallest bar that is worth its place, with its two edges."""


def can_be_shown() -> bool:
    """Say whether standard error is a terminal, or this is a notebook."""
    return IN_NOTEBOOK or (is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb")


def is_terminal(file: TextIO | None) -> bool:
    """Say whether a file is a terminal; it may be closed from the start, and so None."""
    return file is not None and file.isatty()


class FittingBar(tqdm):  # type: ignore[misc]
    """A progress bar, with as many numbers beside it as the terminal has room for.

    Parameters
    ----------
    total : int
        How much there is to do.
    unit : str
        In what, in the plural, such as "samples".
    initial : int
        How much of it was done before, which counts neither for the rate nor for the time left.
    leave : bool
        Whether the bar stays when it is closed.
    disable : bool
        Whether not to show it at all.

    Attributes
    ----------
    latest : sequence of str
        What else to show, the most important first.
    """

    latest: Sequence[str] = ()

    def __init__(
        self, total: int, unit: str, *, initial: int = 0, leave: bool, disable: bool = False
    ) -> None:
        super().__init__(
            total=total,
            unit=unit,
            initial=initial,
            leave=leave,
            disable=disable,
            dynamic_ncols=True,
            miniters=1,  # look at the clock at every update: a fast start must not make it coarse
            smoothing=0,  # the mean rate, in which pauses for validation count
        )

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm makes its line from, with a layout that fits the terminal as it is now."""
        facts: dict[str, Any] = super().format_dict
        # A full line would begin the next one on some terminals. 0 is a width that is not known.
        columns = None if self.gui else (facts["ncols"] or 80) - 1
        return {**facts, "ncols": columns, "bar_format": layout(self._numbers(facts), columns)}

    def _numbers(self, facts: dict[str, Any]) -> list[str]:
        """Return all that there is to show, the most important first."""
        done, elapsed = facts["n"] - facts["initial"], facts["elapsed"]
        if done <= 0 or elapsed <= 0:
            return list(self.latest)
        rate, missing = done / elapsed, facts["total"] - facts["n"]
        when = f"{self.format_interval(math.ceil(missing / rate))} left"
        if missing <= 0:
            when = f"took {self.format_interval(elapsed)}"
        return [when, *self.latest, f"{self.format_sizeof(rate)} {self.unit}/s"]


class TerminalBar(FittingBar):
    """A progress bar that a terminal shows in one line, also after it was made narrower."""

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """Return what shows a line in place of the one before.

        The cursor stays at its start. There it still is when the terminal has become narrower and
        the line was wrapped, so that all of it can be cleared.
        """

        def show(line: str) -> None:
            file.write(f"{ERASE}{line}\r")
            file.flush()

        return show


ProgressBar = FittingBar if IN_NOTEBOOK else TerminalBar


def layout(numbers: Sequence[str], columns: int | None) -> str:
    """Return tqdm's format of a line.

    Parameters
    ----------
    numbers : sequence of str
        What to show after the share that is done, the most important first.
    columns : int or None
        How wide the line may be: the last numbers are left out if there is no room, and the bar if
        they leave none to it. None if it does not matter.
    """
    shown = "".join(_that_fit(numbers, None if columns is None else columns - len("100%")))
    has_bar = columns is None or columns - len("100%" + shown) >= NARROWEST
    return f"{{percentage:3.0f}}%{'|{bar}|' if has_bar else ''}{shown}"


def _that_fit(numbers: Sequence[str], room: int | None) -> Iterator[str]:
    """Yield numbers with what stands before them, as long as there is room for them."""
    for index, number in enumerate(numbers):
        text = f"{', ' if index else ' '}{number}"
        if room is not None:
            room -= len(text)
            if room < 0:
                return
        yield text
