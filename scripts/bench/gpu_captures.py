"""How many launches CuPy records in a graph: what the driver counts before the recording ends."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


def captured_nodes(stream: int) -> int:
    """Return how many nodes have been recorded by a stream, given as an address."""
    driver = ctypes.CDLL("libcuda.so.1")
    status, number = ctypes.c_int(), ctypes.c_uint64()
    graph, before, n_before = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
    found = (status, number, graph, before, n_before)
    check(driver.cuStreamGetCaptureInfo_v2(ctypes.c_void_p(stream), *map(ctypes.byref, found)))
    n_nodes = ctypes.c_size_t()
    check(driver.cuGraphGetNodes(graph, None, ctypes.byref(n_nodes)))
    return n_nodes.value


def check(status: int) -> None:
    """Raise if a call of the driver failed."""
    if status != 0:
        raise OSError(f"CUDA's driver answered {status}")


@contextmanager
def counted_captures(
    stream_class: Any = None, count: Callable[[int], int] = captured_nodes
) -> Iterator[list[int]]:
    """Yield a list that gets the launches of each recording; it stays empty where none is made."""
    counts: list[int] = []
    stream_class = stream_class or cupy_stream()
    end = getattr(stream_class, "end_capture", None)
    if end is None:
        yield counts
        return

    def end_capture(stream: Any, *arguments: Any) -> Any:
        with suppress(Exception):  # that it is not known must not keep anything from being measured
            counts.append(count(stream.ptr))
        return end(stream, *arguments)

    stream_class.end_capture = end_capture
    try:
        yield counts
    finally:
        stream_class.end_capture = end


def cupy_stream() -> Any:
    """Return CuPy's class of streams; None without CuPy."""
    try:
        import cupy
    except ImportError:
        return None
    return cupy.cuda.Stream
