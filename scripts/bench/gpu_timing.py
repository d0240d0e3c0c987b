"""How bench_gpu.py takes times.

Every run is timed the same way, whoever runs: the device is idle, an event, the run, the device is
idle again, an event. So it does not matter which streams a library uses.
"""

import time
from collections.abc import Callable
from typing import Any

FEWEST_STEPS = 4


class Clock:
    """Takes times by the device's own events; on a CPU, by the wall clock."""

    def __init__(self, device: str) -> None:
        self._cuda: Any = None
        if device == "cuda":
            import cupy

            self._cuda = cupy.cuda

    def synchronize(self) -> None:
        """Wait for the device. It raises if an earlier failure has broken the process's context."""
        if self._cuda is not None:
            self._cuda.runtime.deviceSynchronize()

    def mark(self) -> Any:
        """Return a mark of this moment in the device's work; `between` reads two of them."""
        if self._cuda is None:
            return time.perf_counter()
        event = self._cuda.Event()
        event.record()
        return event

    def between(self, began: Any, ended: Any) -> float:
        """Return the seconds between two marks that the device has passed."""
        if self._cuda is None:
            return float(ended - began)
        return float(self._cuda.get_elapsed_time(began, ended)) / 1e3

    def seconds(self, run: Callable[[int], None], n: int) -> float:
        """Return how long ``run(n)`` takes."""
        if self._cuda is None:
            start = time.perf_counter()
            run(n)
            return time.perf_counter() - start
        self.synchronize()
        began = self.mark()
        run(n)
        self.synchronize()
        ended = self.mark()
        ended.synchronize()
        return self.between(began, ended)


def calibrate(clock: Clock, run: Callable[[int], None], n: int, most: int, seconds: float) -> int:
    """Return for which n, at most so many, ``run(n)`` takes about so long; it is warm then."""
    for _ in range(6):
        run(n)
        wanted = n * seconds / max(clock.seconds(run, n), 1e-9)
        # Short runs say little of long ones, so grow in steps.
        better = int(min(max(wanted, FEWEST_STEPS), 16 * n, most))
        if n / 2 <= better <= 2 * n:
            return n
        n = better
    run(n)
    return n
