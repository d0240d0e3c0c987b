"""How much memory the machine has, and amounts of it in words."""

from typing import NamedTuple

from gpunn import launcher

TOO_LITTLE_TO_ASK = 2**26
"""Bytes that every machine and device has: asking takes longer than using so few."""


class MemoryInfo(NamedTuple):
    """Memory of a device, in bytes."""

    free: int
    total: int


def host_memory() -> MemoryInfo:
    """Return the host's free and total memory."""
    import psutil  # here, because only much data needs it

    memory = psutil.virtual_memory()
    return MemoryInfo(memory.available, memory.total)


def free_memory() -> int:
    """Return how many bytes of the host's memory are free for this process.

    Those that a launcher has started here share what there is.
    """
    return host_memory().free // launcher.n_local()


def in_gib(n_bytes: float) -> str:
    """Return an amount of memory for a person to read."""
    return f"{n_bytes / 2**30:.1f} GiB"
