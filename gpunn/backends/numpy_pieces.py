"""How the CPU cuts elementwise work: pieces for a core's cache, threads, and scratch memory.

A formula of several NumPy calls then reads and writes main memory once.
"""

import math
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.numpy_blas import Blas

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

PIECE = 32_768
"""Numbers in a piece: three arrays of it, in float64, fit an L2 cache of one mebibyte."""

BLOCK_BYTES = 2**20
"""Of weights that an optimizer changes at a time: they, their gradient and what is remembered of
them stay in the cache, and the product that makes the gradient is still a large one."""

FEWEST_BLOCKS = 4
"""Smaller matrices stay in the cache as a whole."""

CACHE_LINE = 64
"""Bytes in a cache line, and in the longest vector of numbers."""

LINE = CACHE_LINE // np.dtype(np.float32).itemsize
"""Numbers in a cache line at most."""

WORTH_SHARING = 8
"""Fewer pieces than this are done before another thread has heard of them."""

MANY_VIEWS = 256
"""In so many shapes a thread's scratch memory is remembered; making a view anew takes a while."""

Tile = tuple[slice, slice]
_Item = TypeVar("_Item")


@lru_cache(maxsize=256)
def tiles(n_rows: int, n_columns: int, whole_rows: bool) -> tuple[Tile, ...]:
    """Cut a matrix into tiles of at most `PIECE` numbers, or at least one row each."""
    width = n_columns if whole_rows else min(n_columns, PIECE)
    height = max(1, PIECE // max(1, width))
    return tuple(
        (slice(i, i + height), slice(j, j + width))
        for i in range(0, n_rows, height)
        for j in range(0, n_columns, max(1, width))
    )


@lru_cache(maxsize=256)
def pieces(size: int) -> tuple[slice, ...]:
    """Cut a flat array into pieces of at most `PIECE` numbers."""
    return tuple(slice(start, start + PIECE) for start in range(0, size, PIECE))


@lru_cache(maxsize=256)
def blocks_of_rows(n_rows: int, n_bytes: int) -> tuple[slice, ...]:
    """Cut the rows of a matrix into blocks of about `BLOCK_BYTES`; a small one stays whole."""
    n_blocks = n_bytes // BLOCK_BYTES
    if n_blocks < FEWEST_BLOCKS:
        return (slice(None),)
    height = max(1, -(-n_rows // n_blocks))
    return tuple(slice(start, start + height) for start in range(0, n_rows, height))


def aligned(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array that begins where a cache line does: vectors are stored twice as fast."""
    memory = np.empty(size * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size * dtype.itemsize].view(dtype)


@cache
def _pool(n_threads: int) -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(n_threads, thread_name_prefix="gpunn")


def _do_all(items: Sequence[_Item], work: Callable[[_Item], None]) -> None:
    # What NumPy ignores is set for each thread by itself.
    with np.errstate(over="ignore"):
        for item in items:
            work(item)


def spread(items: Sequence[_Item], work: Callable[[_Item], None], blas: Blas) -> None:
    """Do the work on all items, on as many threads as BLAS has; NumPy releases the GIL."""
    if len(items) < WORTH_SHARING:
        _do_all(items, work)
        return
    n_threads = min(blas.n_threads, len(items))
    others = [
        _pool(n_threads - 1).submit(_do_all, items[k::n_threads], work) for k in range(1, n_threads)
    ]
    _do_all(items[::n_threads], work)
    for other in others:
        other.result()


def share(n: int, work: Callable[[int, int], object], blas: Blas, unit: int = 1) -> None:
    """Do the work on places 0 to n, a part of whole units on each thread of BLAS.

    A loop that is one call needs no pieces for the cache. With `LINE` as the unit of numbers that
    lie side by side, parts begin where a cache line does, and no two threads write to the same one.
    """
    n_threads = blas.n_threads
    part = -(-n // (n_threads * unit)) * unit
    starts = range(part, n, part)
    others = [_pool(n_threads - 1).submit(work, a, min(a + part, n)) for a in starts]
    work(0, min(part, n))
    for other in others:
        other.result()


class ScratchMemory(threading.local):
    """Memory for what lasts no longer than a call, each thread's own."""

    def __init__(self) -> None:
        self._whole: dict[tuple[str, int], NDArray[Any]] = {}
        self._views: dict[tuple[Any, ...], NDArray[Any]] = {}

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any], slot: int) -> NDArray[Any]:
        """Return the memory of that dtype and number, in that shape."""
        key = (shape, dtype.char, slot)
        try:
            return self._views[key]
        except KeyError:
            self._views[key] = self._new_view(shape, dtype, slot)
            return self._views[key]

    def _new_view(self, shape: tuple[int, ...], dtype: np.dtype[Any], slot: int) -> NDArray[Any]:
        size = math.prod(shape)
        whole = self._whole.get((dtype.char, slot))
        if whole is None or whole.size < size:
            whole = self._whole[dtype.char, slot] = aligned(max(PIECE, size), dtype)
            self._views.clear()  # among them those of the smaller memory, which nobody needs now
        if len(self._views) >= MANY_VIEWS:
            self._views.clear()
        return whole[:size].reshape(shape)
