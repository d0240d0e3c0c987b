"""What the machine itself can do: matrix products, and copying memory.

Both are measured with the threads of this process's BLAS, at the start and at the end of a run, as
a machine may become slower in between.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from cpu_plan import Plan
from cpu_results import Limits
from cpu_timing import seconds_of
from made_samples import N_INPUTS
from turns import PAUSE


def sgemm_shapes(plan: Plan) -> Iterator[tuple[int, int, int, bool]]:
    """Yield (m, n, k, first one transposed): squares, and what wide layers' steps consist of."""
    for size in (plan.sgemm_size // 2, plan.sgemm_size, plan.sgemm_size * 3 // 2):
        yield size, size, size, False
    for hidden in (h for h in plan.grid_hidden if h >= 2000):
        for batch in (b for b in plan.grid_batches if b >= 100):
            yield N_INPUTS, hidden, batch, False  # the update: W^T += X^T D
            yield hidden, batch, N_INPUTS, True  # the way forward: Z^T = W X^T


def sgemm_gflops(m: int, n: int, k: int, transposed: bool, seconds: float) -> float:
    """Return the best rate of ``c += alpha a b``, written over c as a training step does it."""
    from scipy.linalg.blas import sgemm

    generator = np.random.default_rng(0)
    # Fortran's order, as SciPy would copy anything else, and c would not be written over.
    a = np.asfortranarray(generator.random((k, m) if transposed else (m, k), dtype=np.float32))
    b_transposed = not transposed
    b = np.asfortranarray(generator.random((n, k) if b_transposed else (k, n), dtype=np.float32))
    c = np.zeros((m, n), np.float32, order="F")

    def multiply(_: int = 0) -> None:
        # So small a factor that c stays finite, however often something is added to it.
        result = sgemm(1e-6, a, b, 1.0, c, transposed, b_transposed, overwrite_c=1)
        assert np.shares_memory(result, c)

    multiply()
    best, until = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < until:
        best = min(best, seconds_of(multiply, 0))
    return 2e-9 * m * n * k / best


def copy_gbytes(n_bytes: int, threads: int, seconds: float) -> float:
    """Return the best rate of copying memory with so many threads, each its own part."""
    source, target = np.ones(n_bytes // 4, np.float32), np.zeros(n_bytes // 4, np.float32)
    pairs = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    best, until = math.inf, time.perf_counter() + seconds
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() < until or best == math.inf:
            began = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(*pair), pairs))
            best = min(best, time.perf_counter() - began)
    return 2e-9 * source.nbytes / best


def add_limits(limits: Limits, plan: Plan) -> None:
    """Measure the limits once more, into the lists."""
    for m, n, k, transposed in sgemm_shapes(plan):
        time.sleep(PAUSE)
        rate = sgemm_gflops(m, n, k, transposed, plan.run_seconds)
        limits.sgemm.setdefault(f"{m}x{n}x{k}", []).append(rate)
    limits.copy.append(copy_gbytes(plan.copy_bytes, limits.threads, 3 * plan.run_seconds))
