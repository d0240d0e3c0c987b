"""Captures of CUDA graphs, and the graphs, for the double of CuPy.

Work that is given to a capturing stream is recorded and not done: what will be done, and the parts
of memory that it uses, at the addresses that they have now. As on a GPU a graph keeps no memory
alive; that it uses memory which has been given up is an error here.

Streams that wait for each other's events are branches of one capture, each with a vector clock as
in ``fake_streams``. A branch that writes to what another one uses, without having waited for it, is
noticed when the work is recorded, which is when it is decided that a graph does not wait.

What CUDA, or CuPy, does not allow meanwhile calls `refuse_while_capturing`. It is stricter than
CuPy's relaxed mode: no memory is allocated, since CuPy's pool may have to ask CUDA for it.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from fake_errors import CUDARuntimeError

Clock = dict[int, int]
"""By a stream's number, how many of its operations are known to be done."""


def learn(clock: Clock, other: Clock) -> None:
    for number, tick in list(other.items()):
        clock[number] = max(clock.get(number, 0), tick)


class Use(NamedTuple):
    """A part of an allocation that work uses: the memory, and NumPy's array of the part."""

    memory: Any
    values: Any
    written: bool = False


Run = Callable[[list[Use]], None]
"""Work. It must know of device memory by the uses alone, or a graph would keep that alive."""


class _Part(NamedTuple):
    """A use whose memory may have been given up since."""

    memory: "weakref.ref[Any]"
    values: Any
    written: bool

    def revive(self) -> Use:
        memory = self.memory()
        if memory is None:
            raise GivenUpError("a graph uses device memory that has been given up")
        return Use(memory, self.values, self.written)

    def clashes(self, other: "_Part") -> bool:
        return (self.written or other.written) and np.may_share_memory(self.values, other.values)


class GivenUpError(AssertionError):
    """A graph uses memory that no array holds any more."""


class _Node(NamedTuple):
    """One piece of work in a graph: the tick-th of its branch."""

    branch: int
    tick: int
    parts: list[_Part]
    run: Run


_thread = threading.local()


def _captures() -> "weakref.WeakSet[Capture]":
    """Return the captures that this thread has begun and not ended."""
    if not hasattr(_thread, "captures"):
        _thread.captures = weakref.WeakSet()
    captures: weakref.WeakSet[Capture] = _thread.captures
    return captures


def refuse_while_capturing(what: str, status: int = 900) -> None:
    """Raise, and make this thread's captures invalid, if it has any."""
    captures = list(_captures())
    for capture in captures:
        capture.invalid = True
    if captures:
        raise CUDARuntimeError(status, what)


def note_loaded(loaded: set[Any], key: Any, name: str) -> None:
    """Note that a kernel is launched, which loads it the first time: not during a capture."""
    if key not in loaded:
        refuse_while_capturing(f"the kernel {name} is not loaded yet")
    loaded.add(key)


class Capture:
    """What is recorded of a stream, and of those that join it."""

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self.invalid = self.ended = False
        # By branch: how far it has come, and how far it knows the others to have come.
        self._clocks: dict[int, Clock] = {origin: {origin: 0}}
        self._nodes: list[_Node] = []
        self._thread = threading.get_ident()
        _captures().add(self)

    def _step(self, branch: int) -> int:
        self._clocks[branch][branch] += 1
        return self._clocks[branch][branch]

    def record(self, branch: int, uses: list[Use], run: Run) -> bool:
        """Add work to a branch; say whether it races with that of another one."""
        parts = [_Part(weakref.ref(u.memory), u.values, u.written) for u in uses]
        node = _Node(branch, self._step(branch), parts, run)
        known = self._clocks[branch]
        unknown = [other for other in self._nodes if known.get(other.branch, 0) < other.tick]
        self._nodes.append(node)
        races = any(
            part.clashes(part_there)
            for other in unknown
            for part_there in other.parts
            for part in parts
        )
        self.invalid |= races
        return races

    def mark(self, branch: int) -> Clock:
        """Return what an event that is recorded in a branch stands for."""
        return dict(self._clocks[branch])

    def wait(self, branch: int, clock: Clock) -> None:
        """Let a branch wait for an event. A new one has a first operation: it must be joined."""
        if branch not in self._clocks:
            self._clocks[branch] = {branch: 1}
        learn(self._clocks[branch], clock)

    def end(self, branch: int) -> list[_Node]:
        if branch != self.origin:
            self.invalid = True
            raise CUDARuntimeError(903)
        if threading.get_ident() != self._thread:
            self.invalid = True
            raise CUDARuntimeError(908)
        _captures().discard(self)
        self.ended = True
        if self.invalid:
            raise CUDARuntimeError(901)
        known = self._clocks[branch]
        if any(known.get(b, 0) < clock[b] for b, clock in self._clocks.items()):
            raise CUDARuntimeError(904)
        return self._nodes


class Graph:
    """Work that was recorded, in an order in which it can be done."""

    def __init__(
        self, nodes: list[_Node], device_id: int, get_current_stream: Callable[[], Any]
    ) -> None:
        self._nodes, self._device_id = nodes, device_id
        self._get_current_stream = get_current_stream

    def launch(self, stream: Any = None) -> None:
        refuse_while_capturing("a graph in a graph")
        stream = self._get_current_stream() if stream is None else stream
        if stream.device_id != self._device_id:
            raise RuntimeError("cudaErrorInvalidResourceHandle: a graph of another device")
        work = [([part.revive() for part in node.parts], node.run) for node in self._nodes]
        stream._submit([], lambda _: None)  # so that an empty graph has rules, too
        for uses, run in work:
            stream._submit(uses, run)

    def upload(self, stream: Any = None) -> None:
        refuse_while_capturing("the upload of a graph")
        stream = self._get_current_stream() if stream is None else stream
        stream._submit([], lambda _: None)
