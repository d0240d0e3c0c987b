"""What bench_gpu.py measures, and how thoroughly."""

import time
from dataclasses import dataclass

import gpu_baselines as baselines
from gpu_task import Place, Task

N_SAMPLES = 60_000
"""As many as MNIST has."""
FEWEST_REPS = 3
LONG_RUN = 600.0
"""From so many seconds on there is time for torch.compile's slowest mode, and for long runs."""


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
    """How thoroughly to measure; `deadline` is on the clock of `time.monotonic`.

    Attributes
    ----------
    compile_mode : str
        That of torch.compile. "max-autotune" tries many kernels, which took 46 seconds a row.
    row_seconds, compile_seconds : float
        What must be left for a row to begin, and to begin compiling; a guess until one was seen.
    """

    device: str
    deadline: float
    contestants: tuple[str, ...] = tuple(baselines.CONTESTANTS)
    n_samples: int = N_SAMPLES
    reps: int = 7
    run_seconds: float = 0.3
    copy_bytes: int = 2**30
    compile_mode: str = "max-autotune"
    row_seconds: float = 15.0
    compile_seconds: float = 45.0

    @property
    def place(self) -> Place:
        """Where contestants train."""
        return Place(self.device, self.compile_mode)

    def seconds_left(self) -> float:
        """Return how much time is left."""
        return self.deadline - time.monotonic()


SHORT = {
    "reps": 5,
    "run_seconds": 0.1,
    "compile_mode": "reduce-overhead",
    "row_seconds": 7.0,
    "compile_seconds": 12.0,
}
"""What a plan for a run that is not long has instead."""
