"""SIGINT (Ctrl-C) and SIGTERM as requests to end in good order.

The first signal is noted, and whoever works looks between two steps whether one has come. By then
both signals do again what they did before, so that a second one ends the program at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
"""What a training that a signal ends is called."""


class Interrupt:
    """Which signal has come, by its name in `SIGNALS`; None as long as none has."""

    kind: str | None = None


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first SIGINT or SIGTERM into a request."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread gets signals, and only it may choose what happens.
        yield interrupt
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def request(number: int, frame: object) -> None:
        interrupt.kind = SIGNALS[signal.Signals(number)]
        restore()

    for number in SIGNALS:
        signal.signal(number, request)
    try:
        yield interrupt
    finally:
        restore()
