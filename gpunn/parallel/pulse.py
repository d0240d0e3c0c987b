"""What ranks must agree on while they train: what time it is, and whether a signal has come.

Their clocks differ, and a signal reaches them at different steps. If one made a checkpoint or ended
after a step and another went on, both would wait for ever. So about twice a second they tell each
other; how many steps that is follows from the clock that they agree on, and is the same on all.
"""

import time

from gpunn.parallel.ranks import Ranks

PERIOD = 0.5
"""Seconds from one exchange to the next, about; a step may take longer."""

MOST_STEPS = 100_000

KINDS = (None, "interrupted", "terminated")
"""What a signal makes of a training; the later one counts."""


class Pulse:
    """A clock and a signal that are the same on all ranks.

    Parameters
    ----------
    ranks : Ranks
        The ranks, which all make one; one by itself looks at its own clock and signals.

    Attributes
    ----------
    kind : str or None
        The signal that has come, of `KINDS`.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self.kind: str | None = None
        # From the beginning all have the same time: what is done when follows from it.
        _, self._now = ranks.agree(0, time.perf_counter())
        self._steps, self._left = 1, 1

    def now(self) -> float:
        """Return the time in seconds, on several ranks that of the last exchange."""
        return time.perf_counter() if self._ranks.size == 1 else self._now

    def beat(self, kind: str | None) -> None:
        """Count a step; `kind` is the signal that has come to this rank."""
        if self._ranks.size == 1:
            self.kind = kind
            return
        self._left -= 1
        if self._left == 0:
            self._exchange(kind)

    def _exchange(self, kind: str | None) -> None:
        before = self._now
        number, self._now = self._ranks.agree(KINDS.index(kind), time.perf_counter())
        self.kind = KINDS[int(number)]
        seconds = max(self._now - before, 1e-9)
        self._steps = int(min(max(PERIOD * self._steps / seconds, 1), MOST_STEPS, 2 * self._steps))
        self._left = self._steps
