"""Sums over ranks that each have a GPU, by NCCL through CuPy.

The sum is work of the device like any other: the host gives it away and goes on. NCCL adds up in an
order that follows from the ranks and how they are connected, so that the same ranks in the same
places give the same bits, and all of them the same.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

import platform
from collections.abc import Callable
from typing import Any

import cupy

from gpunn.backends.rank_sum import RankLinks, RankSum
from gpunn.errors import DeviceError

Array = Any


def make_nccl_sum(device: Any, ranks: RankLinks) -> RankSum | None:
    """Return how a GPU adds up over ranks by itself; None if NCCL is not on all of them.

    Raises
    ------
    DeviceError
        On all ranks, if two of them have the same GPU, which NCCL cannot do.
    """
    nccl = _nccl()
    places = ranks.gather((platform.node(), device.pci_bus_id))
    for rank, place in enumerate(places):
        first = places.index(place)
        if first < rank:
            raise DeviceError(
                f"ranks {first} and {rank} have the same GPU of {place[0]} ({place[1]}): start one "
                "rank for each GPU, or use device 'cpu'"
            )
    if not all(ranks.gather(nccl is not None)):
        return None
    return NcclSum(nccl, device, ranks)


def _nccl() -> Any:
    """Return CuPy's binding of NCCL, or None if NCCL cannot be used."""
    try:
        from cupy.cuda import nccl
    except ImportError:
        return None
    return nccl if nccl.available else None


def nccl_version() -> int | None:
    """Return the version of NCCL, such as 22703 for 2.27.3; None without it."""
    nccl = _nccl()
    return None if nccl is None else int(nccl.get_version())


def _event() -> Any:
    return cupy.cuda.Event(disable_timing=True)


class NcclSum(RankSum):
    """Adds up arrays over ranks on their GPUs."""

    def __init__(self, nccl: Any, device: Any, ranks: RankLinks) -> None:
        self._nccl, self._device, self._n_ranks = nccl, device, ranks.size
        identity = ranks.same(nccl.get_unique_id() if ranks.rank == 0 else None)
        with device:
            self._comm = nccl.NcclCommunicator(ranks.size, identity, ranks.rank)
            self._beside = cupy.cuda.Stream(non_blocking=True)
            self._last = _event()

    def add_up(self, array: Array) -> None:
        with self._device:
            self._add_up(array, cupy.cuda.get_current_stream())

    def begin(self, array: Array) -> Callable[[], None]:
        ready, summed = _event(), _event()
        with self._device:
            ready.record()
            self._beside.wait_event(ready)
            self._add_up(array, self._beside)
            summed.record(self._beside)

        def wait() -> None:
            with self._device:
                cupy.cuda.get_current_stream().wait_event(summed)

        return wait

    def _add_up(self, array: Array, stream: Any) -> None:
        nccl, place = self._nccl, array.data.ptr
        kind = {"f": nccl.NCCL_FLOAT32, "d": nccl.NCCL_FLOAT64}[array.dtype.char]
        self._comm.allReduce(place, place, array.size, kind, nccl.NCCL_SUM, stream.ptr)
        self._last.record(stream)

    def is_done(self) -> bool:
        with self._device:
            return bool(self._last.done)

    def n_bytes_sent(self, array: Array) -> int:
        # What a ring takes; a tree takes the array once up and once down.
        return 2 * (self._n_ranks - 1) * int(array.nbytes) // self._n_ranks
