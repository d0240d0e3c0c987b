"""The rows of bench_gpu.py, by importance: a run that is short of time leaves out the last ones.

What has a promise comes first, but for the rows that say how speed changes between the small
networks and the wide ones. The searches for the largest network come last, as each has the GPU, and
most of a minute, to itself.
"""

import dataclasses

from gpu_accuracy import Accuracy
from gpu_largest import Largest
from gpu_plan import Row

AnyRow = Row | Accuracy | Largest

WIDE = {"products": True, "least_share": 0.85}

ROWS: tuple[AnyRow, ...] = (
    Row((200,), 1, least_ratio=12, least_rate=1_000_000),
    Row((2048,), 256, "adam", least_ratio=1.2),
    Row((65_536,), 1024, precision="bf16", least_ratio=1.4, **WIDE),
    Row((200,), 100, least_ratio=1.5),
    Row((1000,), 100),
    Row((8192,), 1024, products=True),
    Row((8192,), 1024, precision="tf32", products=True),
    Row((8192,), 1024, precision="bf16", products=True),
    Row((65_536,), 1024, least_ratio=1.03, **WIDE),
    Row((65_536,), 1024, precision="tf32", least_ratio=1.3, **WIDE),
    Row((200,), 10, least_ratio=2),
    Row((1000,), 1, least_ratio=5),
    Row((2048,), 256, "momentum", least_ratio=1.2),
    Row((1024, 1024), 256, "adam", dropout=0.5, least_ratio=1.1),
    Row((2048,), 256, least_ratio=1.2),
    Accuracy(),
    Largest(100),
    Largest(20),
)


def rehearsed(row: AnyRow) -> AnyRow:
    """Return a row at a size that a CPU goes through at once."""
    if isinstance(row, Largest):
        return row
    if isinstance(row, Accuracy):
        return dataclasses.replace(row, hidden=(16,), goal=0.6)
    small = tuple(round(n_units**0.4) for n_units in row.hidden)
    return dataclasses.replace(row, hidden=small, batch=min(row.batch, 128))
