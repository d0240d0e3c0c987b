"""Devices of the double of CuPy, and their memory, which is the host's.

An allocation knows its device and which streams use it, begins as NaN, and has a guard on both
sides, so that what is written beside it is noticed.
"""

import threading
import weakref
from typing import Any, ClassVar

import numpy as np
from fake_captures import refuse_while_capturing
from fake_errors import CUDARuntimeError
from fake_streams import Uses, current, current_device

N_DEVICES = 2
DEVICE_BYTES = 8 * 2**30
"""Memory of each device. Tests make it smaller here, in this module, where it is looked up."""
MOST_SHARED_BYTES_OPTIN = 227 * 1024
N_MULTIPROCESSORS = 6
"""Few, as every thread of every block is a fibre on the host."""
GUARD = 256
"""Bytes on both sides of an allocation that nobody may write to."""
ALIGNMENT = 512
"""Of an allocation's address, in bytes."""


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,})")


class Device:
    def __init__(self, device: "int | Device | None" = None) -> None:
        self.id = current_device() if device is None else int(device)
        self._stack: list[int] = []

    def __int__(self) -> int:
        return self.id

    @property
    def pci_bus_id(self) -> str:
        return f"0000:{self.id + 1:02X}:00.0"

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "CooperativeLaunch": 1,
            "MultiProcessorCount": N_MULTIPROCESSORS,
            "MaxSharedMemoryPerBlockOptin": MOST_SHARED_BYTES_OPTIN,
        }

    def __enter__(self) -> "Device":
        self._stack.append(current_device())
        if not 0 <= self.id < N_DEVICES:
            self._stack.pop()
            raise CUDARuntimeError(101)
        current.id = self.id
        return self

    def __exit__(self, *_: object) -> None:
        current.id = self._stack.pop()


class GuardedBytes:
    """0xFF bytes (NaN, or the index -1), aligned as CuPy's pool does, with a guard on both sides.

    The alignment is CuPy's, so that an address which is aligned here by luck is no test.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        room = np.full(nbytes + 2 * GUARD + ALIGNMENT, 0xFF, np.uint8)
        start = -(room.ctypes.data + GUARD) % ALIGNMENT
        self.bytes = room[start : start + nbytes + 2 * GUARD]

    def damaged(self) -> bool:
        end = GUARD + self.nbytes
        return bool((self.bytes[:GUARD] != 0xFF).any() or (self.bytes[end:] != 0xFF).any())

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return np.ndarray(shape, dtype, self.bytes.data, GUARD)


class Memory(GuardedBytes):
    """An allocation on a device."""

    _live: ClassVar["weakref.WeakSet[Memory]"] = weakref.WeakSet()
    _lock: ClassVar = threading.Lock()

    def __init__(self, nbytes: int) -> None:
        refuse_while_capturing("device memory is allocated")
        self.device_id = current_device()
        used = used_bytes(self.device_id) if nbytes else 0
        if used + nbytes > DEVICE_BYTES:
            raise OutOfMemoryError(nbytes, used)
        super().__init__(nbytes)
        self.ptr = self.bytes.ctypes.data + GUARD if nbytes else 0
        self.uses = Uses()
        with Memory._lock:
            Memory._live.add(self)

    def __del__(self) -> None:
        if hasattr(self, "uses"):
            self.uses.end()

    @classmethod
    def live(cls) -> "list[Memory]":
        """Return the allocations there are, whatever other threads allocate meanwhile."""
        with cls._lock:
            return list(cls._live)


def used_bytes(device_id: int) -> int:
    return sum(memory.nbytes for memory in Memory.live() if memory.device_id == device_id)
