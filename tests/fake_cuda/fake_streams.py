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

Work is given to a stream by `Stream._submit`, which notes what it uses and does it, or records it
while the stream captures; see ``fake_captures``.
"""

import ctypes
import itertools
import threading
import time
import weakref
from typing import Any

import numpy as np
from fake_captures import Capture, Clock, Graph, Run, Use, learn, refuse_while_capturing
from fake_errors import CUDARuntimeError

current = threading.local()
_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()
_numbers = itertools.count()
_gone: list[tuple[int, int]] = []
"""Streams that nobody holds any more: their numbers, and how many operations they had."""
_retired: set[int] = set()
"""The numbers of streams that are gone, and that the host knows to be done."""


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
        learn(self.clock, clock)
        self.version += 1

    def wait(self, clock: Clock) -> None:
        """Learn of operations, and of the copies among them, whose sources must be unchanged."""
        _check_copies()
        self.learn(clock)
        _copies[:] = [copy for copy in _copies if self.clock.get(copy.stream, 0) < copy.tick]


_host = _Host()


def _note_gone(number: int, clock: Clock) -> None:
    _gone.append((number, clock[number]))


def _retire() -> None:
    """Forget the streams that are gone and done; otherwise each wait would learn of all of them.

    Python collects streams at any time, so that what they leave is cleared up when one begins.
    """
    for number, tick in list(_gone):
        if _host.clock.get(number, 0) >= tick:
            _gone.remove((number, tick))
            _retired.add(number)
            for known in (_host.clock, *(stream.clock for stream in list(_streams))):
                known.pop(number, None)


class Stream:
    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        if null or ptds or not non_blocking:
            raise NotImplementedError("a stream that waits for the null stream by itself")
        self._begin()

    def _begin(self, null: bool = False) -> None:
        _retire()
        self.device_id, self._number = current_device(), next(_numbers)
        self.ptr = 0 if null else 4096 + 64 * self._number
        self.clock: Clock = {self._number: 0}
        self._host_version = -1
        self._capture: Capture | None = None
        _streams.add(self)
        weakref.finalize(self, _note_gone, self._number, self.clock).atexit = False

    def __enter__(self) -> "Stream":
        self._check_device()
        _stack(self.device_id).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _stack(self.device_id).pop()

    def _check_device(self) -> None:
        if self.device_id != current_device():
            raise RuntimeError("cudaErrorInvalidResourceHandle: a stream of another device")

    def _refuse_null(self) -> None:
        if self.ptr == 0:
            refuse_while_capturing("the null stream is used", 906)

    def _advance(self) -> int:
        """Add an operation, which comes after all that the host knows of; return its number."""
        self._check_device()
        self._refuse_null()
        self._refuse_capturing("what no graph can do here")
        if self._host_version != _host.version:
            learn(self.clock, _host.clock)
            self._host_version = _host.version
        self.clock[self._number] += 1
        return self.clock[self._number]

    def _submit(self, uses: list[Use], run: Run) -> None:
        """Do work that uses memory, or record it if the stream captures."""
        if self._capture is not None:
            self._check_device()
            if self._capture.record(self._number, uses, run):
                raise RaceError("two branches of a graph use the same memory, and neither waits")
            return
        self._advance()
        for use in uses:
            use.memory.uses.by(self)
        run(uses)

    def synchronize(self) -> None:
        refuse_while_capturing("a stream is waited for")
        self._refuse_capturing("a stream is waited for")
        _host.wait(self.clock)

    def wait_event(self, event: "Event") -> None:
        self._refuse_null()
        if event._captured is not None:
            self._join(*event._captured)
            return
        self._refuse_capturing("an event of outside of the capture", 905)
        # A GPU would not wait at all.
        assert event._clock is not None, "waits for an event that was never recorded"
        learn(self.clock, event._clock)

    # Captures.

    def _refuse_capturing(self, what: str, status: int = 900) -> None:
        if self._capture is not None:
            self._capture.invalid = True
            raise CUDARuntimeError(status, what)

    def _join(self, capture: Capture, clock: Clock) -> None:
        """Wait for an event that was recorded in a capture, and be a branch of that from now on."""
        if capture.ended:
            raise CUDARuntimeError(907)
        if self.ptr == 0:
            capture.invalid = True
            raise CUDARuntimeError(906)
        if self._capture not in (None, capture):
            capture.invalid = self._capture.invalid = True
            raise CUDARuntimeError(902)
        self._check_device()
        self._capture = capture
        capture.wait(self._number, clock)

    def begin_capture(self, mode: int | None = None) -> None:
        if mode not in (None, 0, 1, 2):
            raise ValueError(f"no mode of capturing: {mode}")
        self._check_device()
        if self.ptr == 0:
            raise CUDARuntimeError(900, "cannot capture on the default (legacy) stream")
        if self._capture is not None:
            raise CUDARuntimeError(401, "the stream captures already")
        self._capture = Capture(self._number)

    def end_capture(self) -> Graph:
        capture = self._capture
        if capture is None:
            raise CUDARuntimeError(401, "the stream does not capture")
        try:
            nodes = capture.end(self._number)
        finally:
            for stream in list(_streams) if capture.ended else ():
                if stream._capture is capture:
                    stream._capture = None
        return Graph(nodes, self.device_id, get_current_stream)

    def is_capturing(self) -> bool:
        return self._capture is not None


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self._clock: Clock | None = None
        self._captured: tuple[Capture, Clock] | None = None
        self._timed = not disable_timing

    def record(self, stream: Stream | None = None) -> None:
        stream = get_current_stream() if stream is None else stream
        self._clock = self._captured = None
        if stream._capture is not None:
            self._captured = stream._capture, stream._capture.mark(stream._number)
            return
        stream._advance()
        self._clock = dict(stream.clock)
        self._seconds = time.perf_counter()

    @property
    def done(self) -> bool:
        self._check_not_captured()
        return True  # Everything is done at once; the host learns nothing that it may rely on.

    def synchronize(self) -> None:
        refuse_while_capturing("an event is waited for")
        self._check_not_captured()
        if self._clock is not None:
            _host.wait(self._clock)

    def _check_not_captured(self) -> None:
        if self._captured is not None:
            self._captured[0].invalid = True
            raise CUDARuntimeError(907)


def synchronize_device() -> None:
    """Wait for all streams of the current device."""
    for stream in list(_streams):
        if stream.device_id == current_device():
            stream.synchronize()


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    if not (start_event._timed and end_event._timed):
        raise RuntimeError("cudaErrorInvalidResourceHandle: an event without timing")
    for event in (start_event, end_event):
        event._check_not_captured()
    return 1e3 * (end_event._seconds - start_event._seconds)


_null_streams: dict[int, Stream] = {}


def _stack(device_id: int) -> list[Stream]:
    """Return the streams that this thread has made current on a device, one in another."""
    if not hasattr(current, "streams"):
        current.streams = {}
    stack: list[Stream] = current.streams.setdefault(device_id, [])
    return stack


def get_current_stream(device_id: int = -1) -> Stream:
    if device_id not in (-1, current_device()):
        raise NotImplementedError("the current stream of another device")
    stack = _stack(current_device())
    return stack[-1] if stack else _null_stream(current_device())


def _null_stream(device_id: int) -> Stream:
    if device_id not in _null_streams:
        stream = Stream.__new__(Stream)
        stream._begin(null=True)
        _null_streams[device_id] = stream
    return _null_streams[device_id]


def find_stream(ptr: int) -> Stream:
    """Return the stream of the current device that has an address."""
    if ptr == 0:
        return _null_stream(current_device())
    for stream in list(_streams):
        if stream.ptr == ptr:
            stream._check_device()
            return stream
    raise RuntimeError("cudaErrorInvalidResourceHandle: no stream has that address")


class Uses:
    """Which streams use some device memory, and when they last did."""

    def __init__(self) -> None:
        self._clock: Clock = {}
        # CuPy's pool hands out memory that the current stream may still be computing with, and that
        # stream gets it again when it has been given up.
        self._owner = get_current_stream()
        self.by(self._owner)

    def by(self, stream: Stream) -> None:
        """Note a use, or raise if that of another stream may not be over."""
        tick = stream._advance()
        self._check(stream, stream.clock, "a stream uses memory that another one may be using")
        self._clock[stream._number] = tick

    def end(self) -> None:
        """Raise if any stream but the one that gets the memory next may be using it."""
        known = dict(self._owner.clock)
        learn(known, _host.clock)
        self._check(self._owner, known, "device memory is given up that a stream may be using")

    def _check(self, stream: Stream, known: Clock, message: str) -> None:
        for number, tick in self._clock.items():
            if number in _retired or number == stream._number:
                continue
            if known.get(number, 0) < tick:
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
    refuse_while_capturing("pinned memory is allocated")
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
