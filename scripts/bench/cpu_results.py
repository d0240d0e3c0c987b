"""What bench_cpu.py finds: times by contestant, the machine's limits, memory.

All of it is plain values, as it comes from other processes and goes into a JSON file.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cpu_plan import Cell


@dataclass
class Timing:
    """All repetitions of one contestant in one cell.

    Attributes
    ----------
    n_samples : int
        Samples in a run.
    seconds : list of float
        How long each run took.
    note : str
        How it was set up, where there was a choice.
    """

    n_samples: int
    seconds: list[float] = field(default_factory=list)
    note: str = ""

    def per_sample(self, pick: Callable[[list[float]], float] = statistics.median) -> float:
        """Return seconds a sample: the median run's, or that of `min` or `max`."""
        return pick(self.seconds) / self.n_samples


@dataclass
class Row:
    """One cell at one number of threads, with everybody's times by contestant."""

    cell: Cell
    threads: int
    timings: dict[str, Timing] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ratio(self, baseline: str) -> float | None:
        """Return how many times faster than a baseline gpunn is, by medians, or None."""
        if baseline not in self.timings:
            return None
        return self.timings[baseline].per_sample() / self.timings["gpunn"].per_sample()

    def ratio_spread(self, baseline: str) -> tuple[float, float]:
        """Return the lowest and the highest ratio of any two runs."""
        ours, theirs = self.timings["gpunn"], self.timings[baseline]
        return (
            theirs.per_sample(min) / ours.per_sample(max),
            theirs.per_sample(max) / ours.per_sample(min),
        )

    def gflops(self) -> float:
        """Return the rate of gpunn's matrix products over the whole run, in GFLOP/s."""
        return self.cell.flops_per_sample / self.timings["gpunn"].per_sample() / 1e9

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Row":
        """Return the row that `dataclasses.asdict` made these plain values from."""
        timings = {name: Timing(**timing) for name, timing in values["timings"].items()}
        return cls(Cell(**values["cell"]), values["threads"], timings, values["notes"])


@dataclass
class Limits:
    """What the machine itself can do at one number of threads; each value at start and at end.

    Attributes
    ----------
    sgemm : dict of str to list of float
        GFLOP/s of in-place matrix products by shape.
    copy : list of float
        GB/s of copying, bytes read plus bytes written.
    """

    threads: int
    sgemm: dict[str, list[float]] = field(default_factory=dict)
    copy: list[float] = field(default_factory=list)

    @property
    def best_sgemm(self) -> float:
        """The highest rate of any shape at any time."""
        return max(max(rates) for rates in self.sgemm.values())

    def sgemm_at(self, index: int) -> float:
        """Return the highest rate of any shape at the start (0) or at the end (-1)."""
        return max(rates[index] for rates in self.sgemm.values())


@dataclass
class MemoryUse:
    """The most memory that a training took.

    Attributes
    ----------
    what : str
        The training.
    weights, peak : int
        Bytes of the weights, and the largest resident memory of the process.
    skipped : str
        Why it was not measured.
    """

    what: str
    weights: int
    peak: int = 0
    skipped: str = ""
