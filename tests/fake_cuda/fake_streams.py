"""Streams, events and pinned memory for the double of CuPy, which make a missing wait an error.

The double does everything at once, so that without a wait nothing would go wrong. Instead each
stream counts its operations, and knows how far each other stream had come when it last waited for
it, directly or through others; so does the host (vector clocks). Device memory remembers which
streams used it, and when. Three things are errors:

- a stream uses memory that another one used, and has not waited for that;
- device memory or pinned memory is given up, and it is not known that the streams that use it are
  done (raised where Python collects it, which pytest turns into a failure);
- pinned memory is no longer what it was when a copy from it began, and the host has not waited for
  that copy in between.
"""

import ctypes
import itertools
import threading
import time
import weakref
from typing import Any

import numpy as np

Clock = dict[int, int]
"""By a stream's number, how many of its operations are known to be done."""

current = threading.local()
_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()
_numbers = itertools.count()


def current_device() -> int:
    return getattr(current, "id", 0)


class RaceError(AssertionError):
    """Two streams, or a stream and the host, use the same memory, and neither waits."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # One error is enough: what comes after it starts anew.
        _copies.clear()
        for stream in _streams:
            _host.learn(stream.clock)


class _Host:
    """What the host knows of the streams."""

    def __init__(self) -> None:
        self.clock: Clock = {}
        self.version = 0

    def learn(self, clock: Clock) -> None:
        _learn(self.clock, clock)
        self.version += 1

    def wait(self, clock: Clock) -> None:
        """Learn of operations, and of the copies among them, whose sources must be unchanged."""
        _check_copies()
        self.learn(clock)
        _copies[:] = [copy for copy in _copies if self.clock.get(copy.stream, 0) < copy.tick]


def _learn(clock: Clock, other: Clock) -> None:
    for number, tick in other.items():
        clock[number] = max(clock.get(number, 0), tick)


_host = _Host()


class Stream:
    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        if null or ptds or not non_blocking:
            raise NotImplementedError("a stream that waits for the null stream by itself")
        self._begin()

    def _begin(self) -> None:
        self._device_id, self._number = current_device(), next(_numbers)
        self.clock: Clock = {self._number: 0}
        self._host_version = -1
        _streams.add(self)

    def _advance(self) -> int:
        """Add an operation, which comes after all that the host knows of; return its number."""
        if self._device_id != current_device():
            raise RuntimeError("cudaErrorInvalidResourceHandle: a stream of another device")
        if self._host_version != _host.version:
            _learn(self.clock, _host.clock)
            self._host_version = _host.version
        self.clock[self._number] += 1
        return self.clock[self._number]

    def synchronize(self) -> None:
        _host.wait(self.clock)

    def wait_event(self, event: "Event") -> None:
        # A GPU would not wait at all.
        assert event._clock is not None, "waits for an event that was never recorded"
        _learn(self.clock, event._clock)


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self._clock: Clock | None = None
        self._timed = not disable_timing

    def record(self, stream: Stream | None = None) -> None:
        stream = get_current_stream() if stream is None else stream
        stream._advance()
        self._clock = dict(stream.clock)
        self._seconds = time.perf_counter()

    def synchronize(self) -> None:
        if self._clock is not None:
            _host.wait(self._clock)


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    if not (start_event._timed and end_event._timed):
        raise RuntimeError("cudaErrorInvalidResourceHandle: an event without timing")
    return 1e3 * (end_event._seconds - start_event._seconds)


_null_streams: dict[int, Stream] = {}


def get_current_stream(device_id: int = -1) -> Stream:
    if device_id not in (-1, current_device()):
        raise NotImplementedError("the current stream of another device")
    if current_device() not in _null_streams:
        stream = Stream.__new__(Stream)
        stream._begin()
        _null_streams[current_device()] = stream
    return _null_streams[current_device()]


class Uses:
    """Which streams use some device memory, and when they last did."""

    def __init__(self) -> None:
        self._clock: Clock = {}
        # CuPy's pool hands out memory that the current stream may still be computing with.
        self.by(get_current_stream())

    def by(self, stream: Stream) -> None:
        """Note a use, or raise if that of another stream may not be over."""
        tick = stream._advance()
        self._check(stream, stream.clock, "a stream uses memory that another one may be using")
        self._clock[stream._number] = tick

    def end(self, device_id: int) -> None:
        """Raise if any stream but the null stream, which gets the memory next, may be using it."""
        stream = _null_streams[device_id]
        known = dict(stream.clock)
        _learn(known, _host.clock)
        self._check(stream, known, "device memory is given up that a stream may be using")

    def _check(self, stream: Stream, known: Clock, message: str) -> None:
        for number, tick in self._clock.items():
            if number != stream._number and known.get(number, 0) < tick:
                raise RaceError(message)


# Pinned memory.


class _Copy:
    """A copy from pinned memory that the host does not know to have ended."""

    def __init__(self, source: Any, stream: Stream) -> None:
        self.stream, self.tick = stream._number, stream.clock[stream._number]
        self.address, self.values = source.ctypes.data, source.tobytes()

    def is_changed(self) -> bool:
        return ctypes.string_at(self.address, len(self.values)) != self.values


_copies: list[_Copy] = []
_pinned: dict[int, int] = {}
"""The sizes of all pinned memory, by address."""


def alloc_pinned_memory(size: int) -> Any:
    memory = np.full(-(-max(size, 1) // 512) * 512, 0xFF, np.uint8)
    address = memory.ctypes.data
    _pinned[address] = memory.nbytes
    weakref.finalize(memory, _give_up, address).atexit = False
    return memory


def _give_up(address: int) -> None:
    end = address + _pinned.pop(address)
    if any(address <= copy.address < end for copy in _copies):
        raise RaceError("pinned memory is given up that a copy may be reading")


def begin_copy(source: Any, stream: Stream, uses: Uses) -> None:
    """Note that a stream copies from pinned memory to device memory."""
    start, end = source.ctypes.data, source.ctypes.data + source.nbytes
    if not any(a <= start and end <= a + size for a, size in _pinned.items()):
        raise ValueError("a copy is only asynchronous, and safe, from pinned memory")
    _check_copies()
    uses.by(stream)
    _copies.append(_Copy(source, stream))


def _check_copies() -> None:
    if any(copy.is_changed() for copy in _copies):
        raise RaceError("pinned memory was written to while a copy may have been reading it")
