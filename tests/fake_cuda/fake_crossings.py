"""Crossings between host and device: counted, and forbidden on request.

Whatever copies in either direction, or waits for the device to read a number, is one. `crossings`
counts them; inside ``with no_crossings():`` the first one is a `CrossingError`. While a thread
captures a graph there may be none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fake_captures import refuse_while_capturing


class CrossingError(AssertionError):
    """Something crossed between host and device where nothing may."""


class Crossings:
    """Counts the crossings, and forbids them on request."""

    def __init__(self) -> None:
        self.to_device = 0
        self.to_host = 0
        self._forbidden = 0

    def note(self, direction: str, what: str) -> None:
        refuse_while_capturing(what)
        setattr(self, direction, getattr(self, direction) + 1)
        if self._forbidden:
            raise CrossingError(f"{what} crosses ({direction})")

    @contextmanager
    def forbidden(self) -> Iterator[None]:
        self._forbidden += 1
        try:
            yield
        finally:
            self._forbidden -= 1


crossings = Crossings()


def no_crossings() -> Any:
    """Raise a `CrossingError` at the first crossing inside a ``with`` block."""
    return crossings.forbidden()
