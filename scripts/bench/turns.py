"""The order in which a benchmark's contestants take their turns."""

from collections.abc import Sequence

PAUSE = 0.1
"""Seconds between runs: a BLAS's idle threads spin for a while, at the cost of who comes next."""


def turns(names: Sequence[str], rep: int) -> list[str]:
    """Return the names in the order of a repetition.

    Each repetition begins with another one, so that nobody always follows the same one.
    """
    shift = rep % len(names)
    return [*names[shift:], *names[:shift]]
