"""What bench_gpu.py measures, and how thoroughly."""

import time
from dataclasses import dataclass

import gpu_baselines as baselines
from gpu_baselines import Task

N_SAMPLES = 60_000
"""As many as MNIST has."""
REPS, FEWEST_REPS = 7, 3
RUN_SECONDS = 0.3
ROW_SECONDS, COMPILE_SECONDS = 15.0, 45.0
"""What must be left for a row to begin, and to begin compiling; a guess until one was seen."""


@dataclass(frozen=True)
class Row(Task):
    """A training, and what is asked of gpunn in it.

    Attributes
    ----------
    least_ratio : float or None
        How many times as fast as the fastest other.
    least_rate : float or None
        Samples a second.
    least_share : float or None
        Of the rate of cuBLAS over the same products.
    products : bool
        Whether the products are measured by themselves.
    """

    least_ratio: float | None = None
    least_rate: float | None = None
    least_share: float | None = None
    products: bool = False


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure; `deadline` is on the clock of `time.monotonic`."""

    device: str
    deadline: float
    contestants: tuple[str, ...] = tuple(baselines.CONTESTANTS)
    n_samples: int = N_SAMPLES
    reps: int = REPS
    run_seconds: float = RUN_SECONDS
    copy_bytes: int = 2**30

    def seconds_left(self) -> float:
        """Return how much time is left."""
        return self.deadline - time.monotonic()
