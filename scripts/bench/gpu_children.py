"""Processes of bench_gpu.py that may die or hang without taking the rest with them."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from gpu_plan import Plan

LONGEST_SILENCE, GRACE = 240.0, 15.0
"""Seconds without a word after which a process is taken to hang, and after the end of the time."""


def _in_child(target: Callable[..., None], arguments: tuple[Any, ...], sender: Any) -> None:
    os.setpgid(0, 0)  # so that whatever it starts can be ended with it
    target(*arguments, sender.send)


def events_of(
    target: Callable[..., None], arguments: tuple[Any, ...], seconds: Callable[[], float]
) -> Iterator[tuple[Any, ...]]:
    """Yield what ``target(*arguments, send)`` sends from a child, and at last ("end", how).

    The child is killed if it is silent for longer than `seconds()`.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(target, arguments, sender))
    child.start()
    sender.close()
    how = "was silent for too long"
    try:
        while receiver.poll(max(0.0, seconds())):
            yield receiver.recv()
    except EOFError:
        child.join(10)
        how = f"ended with {child.exitcode}"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()
        child.join()
    yield ("end", how)


def patience(plan: Plan) -> float:
    """Return for how long a child may be silent."""
    return min(LONGEST_SILENCE, plan.seconds_left() + GRACE)
