"""Where a step's time goes: every call of the backend, timed by the device in a plain step.

The backend's methods, and those of what its ``make_`` methods return, are wrapped in the object
itself. A step that the device would record is done call by call. Before each call the device is
kept busy for longer than the host needs for the call, so that the marks around it have no waiting
for the host between them; what two marks cost that have nothing between them is taken off.
"""

import inspect
import statistics
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
from gpu_captures import counted_captures
from gpu_gpunn import Gpunn
from gpu_plan import Plan
from gpu_task import Task
from gpu_timing import Clock
from made_samples import Samples

NO_WORK = {
    *("owns", "describe", "memory_info", "synchronize", "work_dtype", "kept_memory"),
    *("empty", "contiguous", "make_staging_buffer"),
}
"""Methods that give the device nothing to do."""
HELD = 150_000
"""Multiplications one after the other, about 0.3 ms on a GPU: longer than the host needs for a call
of the backend. A call of what the backend made may be a whole step, and gets ten times as long."""
REPS = 3

Totals = dict[str, tuple[int, float]]
"""By the name of a call, how often it was done and how many seconds it took."""


class Watch:
    """Times the methods of a backend while it is attached."""

    def __init__(self, clock: Clock, hold: Callable[[int], None]) -> None:
        self._clock, self._hold = clock, hold
        self._marks: list[tuple[str, Any, Any, int]] = []
        self._open: list[int] = []

    @contextmanager
    def attached(self, backend: Any) -> Iterator[None]:
        """Wrap a backend's methods for a while."""
        names = self._wrap(backend, "")
        try:
            yield
        finally:
            for name in names:
                delattr(backend, name)

    def _wrap(self, thing: Any, prefix: str) -> list[str]:
        methods = inspect.getmembers(type(thing), inspect.isfunction)
        names = [name for name, _ in methods if name[0] != "_" and name not in NO_WORK]
        for name in names:
            method = getattr(thing, name)
            wrapped = self._making(name, method) if name.startswith("make_") else None
            setattr(thing, name, wrapped or self._timed(f"{prefix}{name}", method))
        return names

    def _making(self, name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(make)
        def making(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            if made is not None:
                if hasattr(made, "problem"):
                    made.problem = "every call is timed"  # so that it records nothing
                self._wrap(made, f"{name.removeprefix('make_')}.")
            return made

        return making

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self._open:
                self._hold(10 * HELD if "." in name else HELD)
            label = name if "." in name else f"{name} {shapes_of([*args, *kwargs.values()])}"
            parent = self._open[-1] if self._open else -1
            place = len(self._marks)
            self._open.append(place)
            began = self._clock.mark()
            self._marks.append((label, began, began, parent))
            try:
                return method(*args, **kwargs)
            finally:
                self._marks[place] = (label, began, self._clock.mark(), parent)
                self._open.pop()

        return timed

    def empty_seconds(self) -> float:
        """Return what a call takes that does nothing."""
        self._marks.clear()
        nothing = self._timed("nothing", lambda: None)
        for _ in range(9):
            nothing()
        self._clock.synchronize()
        return statistics.median(self._clock.between(a, b) for _, a, b, _ in self._marks)

    def totals(self, run: Callable[[], None], empty: float) -> Totals:
        """Return the calls of a run; a call's time is without that of calls within it."""
        self._marks.clear()
        run()
        self._clock.synchronize()
        whole = [self._clock.between(a, b) for _, a, b, _ in self._marks]
        own = [seconds - empty for seconds in whole]
        for seconds, (_, _, _, parent) in zip(whole, self._marks, strict=True):
            if parent >= 0:
                own[parent] -= seconds + empty
        found: dict[str, list[float]] = defaultdict(list)
        for (label, *_), seconds in zip(self._marks, own, strict=True):
            found[label].append(max(seconds, 0.0))
        return {label: (len(times), sum(times)) for label, times in found.items()}


def shapes_of(values: list[Any]) -> str:
    """Return the shapes of the arrays among some arguments, such as ``(256, 784) (10,)``."""
    shapes = [getattr(value, "shape", None) for value in values]
    return " ".join(str(shape) for shape in shapes if isinstance(shape, tuple))


def make_hold(device: str) -> Callable[[int], None]:
    """Return what keeps a GPU busy, and leaves its caches alone; on a CPU there is no need."""
    if device != "cuda":
        return lambda n: None
    import cupy

    code = "for (long long i = 0; i < n; ++i) y = y * 0.999f + 1.0f"
    kernel = cupy.ElementwiseKernel("int64 n", "float32 y", code, "bench_hold")
    number = cupy.zeros(1, np.float32)
    return lambda n: kernel(n, number)


def measure_parts(task: Task, samples: Samples, plan: Plan, clock: Clock) -> dict[str, Any]:
    """Return each call's number and seconds a step, and the launches of a recorded step.

    What a training does once, such as allocating, is as much in twice the steps, so that the
    difference shows the steps alone.
    """
    # Single samples go in blocks, of which this is a whole number.
    n_steps = 512 if task.batch == 1 else max(8, 200 // task.batch)
    n_steps = min(n_steps, len(samples.inputs) // task.batch // 2)
    with counted_captures() as launches:
        Gpunn(task, samples, plan.place).run(2 * n_steps)
    ours = Gpunn(task, samples, plan.place)
    watch = Watch(clock, make_hold(plan.device))
    with watch.attached(ours.backend), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours.run(2 * n_steps)
        empty = watch.empty_seconds()
        pairs = [
            [watch.totals(lambda n=n: ours.run(n), empty) for n in (n_steps, 2 * n_steps)]
            for _ in range(REPS)
        ]
    return {
        "steps": n_steps,
        "launches_a_step": launches[-1] if launches else None,
        "calls": differences(pairs, n_steps),
    }


def differences(pairs: list[list[Totals]], n_steps: int) -> list[dict[str, Any]]:
    """Return what the calls of a step are, and take, the longest first."""
    found = []
    for label in {label for pair in pairs for label in pair[1]}:
        each = [[totals.get(label, (0, 0.0)) for totals in pair] for pair in pairs]
        calls = (each[0][1][0] - each[0][0][0]) / n_steps
        each_step = calls > 0 and label in pairs[0][0]
        if each_step and "." not in label:
            seconds = calls * statistics.median(total / n for _, (n, total) in each)
        else:
            # One call of a fused way may learn from many batches, so that more are no more calls.
            seconds = statistics.median(long[1] - short[1] for short, long in each) / n_steps
        # Whatever else is done once a training shows as no more calls, or with other shapes.
        if each_step or ("." in label and seconds > 0):
            found.append({"call": label, "calls_a_step": calls, "seconds_a_step": seconds})
    return sorted(found, key=lambda part: -part["seconds_a_step"])
