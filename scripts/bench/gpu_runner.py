"""What one process of bench_gpu.py measures: rows of contestants, and the limits of the device.

Every run is timed the same way, whoever runs: the device is idle, an event, the run, the device is
idle again, an event. So it does not matter which streams a library uses.
"""

import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gpu_baselines as baselines
import numpy as np
from gpu_baselines import N_INPUTS, N_OUTPUTS, Samples, Task, Weights, one_line

import gpunn

N_SAMPLES = 60_000
"""As many as MNIST has."""
REPS, FEWEST_REPS = 7, 3
RUN_SECONDS = 0.3
FEWEST_STEPS = 4
ROW_SECONDS, COMPILE_SECONDS = 15.0, 45.0
"""What must be left for a row to begin, and to begin compiling; a guess until one was seen."""

EVERYWHERE = "all rows"
"""The label of what is begun for no row alone."""

Send = Callable[[tuple[Any, ...]], None]
"""Takes an event: ("begin", label, who), ("row", label, result), ..."""


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


class Clock:
    """Takes times by the device's own events; on a CPU, by the wall clock."""

    def __init__(self, device: str) -> None:
        self._cuda: Any = None
        if device == "cuda":
            import cupy

            self._cuda = cupy.cuda

    def synchronize(self) -> None:
        """Wait for the device. It raises if an earlier failure has broken the process's context."""
        if self._cuda is not None:
            self._cuda.runtime.deviceSynchronize()

    def seconds(self, run: Callable[[int], None], n: int) -> float:
        """Return how long ``run(n)`` takes."""
        if self._cuda is None:
            start = time.perf_counter()
            run(n)
            return time.perf_counter() - start
        began, ended = self._cuda.Event(), self._cuda.Event()
        self.synchronize()
        began.record()
        run(n)
        self.synchronize()
        ended.record()
        ended.synchronize()
        return float(self._cuda.get_elapsed_time(began, ended)) / 1e3


def calibrate(clock: Clock, run: Callable[[int], None], n: int, most: int, seconds: float) -> int:
    """Return for which n, at most so many, ``run(n)`` takes about so long; it is warm then."""
    for _ in range(6):
        run(n)
        wanted = n * seconds / max(clock.seconds(run, n), 1e-9)
        # Short runs say little of long ones, so grow in steps.
        better = int(min(max(wanted, FEWEST_STEPS), 16 * n, most))
        if n / 2 <= better <= 2 * n:
            return n
        n = better
    run(n)
    return n


# Whether all compute the same.


def allowed_difference(task: Task, n_steps: int, start: Any, change: Any) -> float:
    """Return how far two ways of training may be apart, relative to the change of an array.

    Factors of products are rounded to a unit roundoff u, a few dozen times on the way through a
    step; sums of K numbers have an error of K 2^-24 at most; each step stores each weight rounded
    to float32, which counts more the less the weights have moved. Adam divides by 1 - 0.999^t,
    which float32 knows to 2^-24 / 0.001. Another loss or rate is off by a multiple of the change.
    """
    unit = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-9}[task.precision]
    sums = max(N_INPUTS, task.hidden, task.batch) * 2.0**-24
    stored = n_steps * 2.0**-23 * norm(start) / norm(change)
    adam = 2.0**-24 / 0.001 if task.optimizer == "adam" else 0.0
    return float(64 * unit + sums + stored + adam)


def norm(array: Any) -> float:
    """Return the length of an array, computed in double precision; never 0."""
    return max(float(np.sqrt(np.square(array, dtype=np.float64).sum())), 1e-300)


@dataclass
class Pass:
    """What one pass through a few batches brought: the weights after it and its loss."""

    n_steps: int
    weights: Weights
    loss: float


def agreement(task: Task, start: Weights, ours: Pass, theirs: Pass) -> dict[str, Any]:
    """Return by how much another's first pass differs from gpunn's, and whether that is allowed."""
    loss = abs(theirs.loss - ours.loss) / abs(ours.loss)
    found = {"loss": (loss, allowed_difference(task, 0, 0.0, 1.0))}
    for name, weights in ours.weights.items():
        change = weights - start[name]
        difference = norm(theirs.weights[name] - weights) / norm(change)
        found[name] = (difference, allowed_difference(task, ours.n_steps, start[name], change))
    # NaN is never below a bound.
    same = all(difference <= min(allowed, 0.5) for difference, allowed in found.values())
    return {"same": same, "steps": ours.n_steps, "differences": found}


# One row.


class Bench:
    """What the rows of a process share: samples, clock, and who is not here."""

    def __init__(self, plan: Plan, barred: dict[str, str], send: Send) -> None:
        self.plan, self.send = plan, send
        others = [name for name in baselines.CONTESTANTS if name not in plan.contestants]
        self.absent = dict.fromkeys(others, "not asked for")
        self.absent |= barred
        for name in baselines.CONTESTANTS:
            if name not in self.absent:
                # Libraries that do not go together may break where they are loaded.
                send(("begin", EVERYWHERE, name))
                problem = baselines.problem_of(name, plan.device)
                if problem is not None:
                    self.absent[name] = problem
        self.clock = Clock(plan.device)
        self.samples = Samples(plan.n_samples)
        self.compile_seconds = COMPILE_SECONDS

    def measure(self, row: Row, barred: dict[str, str]) -> dict[str, Any]:
        """Return the times of everyone who is there and computes what gpunn computes."""
        heat = Heat(self, row, barred)
        try:
            heat.line_up()
            heat.take_turns()
            heat.measure_products()
        finally:
            heat.close()
        return heat.result


class Heat:
    """All contestants in one row."""

    def __init__(self, bench: Bench, row: Row, barred: dict[str, str]) -> None:
        self._bench, self._row, self._plan = bench, row, bench.plan
        self._clock = bench.clock
        self._entrants: dict[str, baselines.Contestant] = {}
        self._start: Weights = {}
        self._ours: Pass | None = None
        self._absent = {**bench.absent, **barred}
        self.result = {
            **dataclasses.asdict(row),
            "label": row.label,
            "absent": self._absent,
            "agreement": {},
            "runs": {},
            "products": {},
        }

    def line_up(self) -> None:
        """Make everyone, check their first pass, and find out how long each takes."""
        for name in baselines.CONTESTANTS:
            if {name, "gpunn"} & set(self._absent):
                continue
            needed = self._bench.compile_seconds + ROW_SECONDS
            if name == "torch.compile" and self._plan.seconds_left() < needed:
                self._absent[name] = "not enough time left to compile"
                continue
            self._bench.send(("begin", self._row.label, name))
            began = time.monotonic()
            try:
                self._enter(name)
            except Exception as error:  # whatever a compiler, a driver or a full memory raises
                self._absent[name] = one_line(error)
                self._clock.synchronize()
            if name == "torch.compile":
                self._bench.compile_seconds = time.monotonic() - began

    def _enter(self, name: str) -> None:
        row, samples = self._row, self._bench.samples
        entrant = baselines.CONTESTANTS[name](row, samples, self._plan.device, self._start or None)
        self._entrants[name] = entrant
        if self._ours is None:
            self._start = entrant.weights()
        # A few blocks of single samples, and steps enough that a wrong state would show.
        n_steps = min(max(6400 // row.batch, 8), 100, len(samples.inputs) // row.batch)
        entrant.run(n_steps)
        first = Pass(n_steps, entrant.weights(), entrant.loss())
        if self._ours is None:
            self._ours = first
        else:
            found = agreement(row, self._start, self._ours, first)
            self.result["agreement"][name] = found
            if not found["same"]:
                self._absent[name] = "computes something else: see agreement"
                return
        most = len(samples.inputs) // row.batch
        n_steps = calibrate(self._clock, entrant.run, n_steps, most, self._plan.run_seconds)
        self.result["runs"][name] = {"samples": n_steps * row.batch, "seconds": []}

    def take_turns(self) -> None:
        """Take times; each repetition begins with another one, so that all follow all."""
        runs = self.result["runs"]
        names = list(runs)
        for rep in range(self._plan.reps if "gpunn" in runs else 0):
            if rep >= FEWEST_REPS and self._plan.seconds_left() < ROW_SECONDS / 3:
                break
            shift = rep % len(names)
            for name in names[shift:] + names[:shift]:
                self._bench.send(("begin", self._row.label, name))
                n_steps = runs[name]["samples"] // self._row.batch
                seconds = self._clock.seconds(self._entrants[name].run, n_steps)
                runs[name]["seconds"].append(seconds)
                runs[name]["last_loss"] = self._entrants[name].loss()

    def measure_products(self) -> None:
        """Measure the step's products by themselves, where the row wants that."""
        if self._row.products and not {"gpunn", "cuBLAS"} & set(self._absent):
            self._bench.send(("begin", self._row.label, "cuBLAS"))
            with_torch = "PyTorch" not in self._absent
            self.result["products"] = measure_products(
                self._row, self._plan, self._clock, with_torch=with_torch
            )

    def close(self) -> None:
        """Give all memory back."""
        for entrant in self._entrants.values():
            entrant.close()
        self._entrants.clear()
        self._start, self._ours = {}, None
        gc.collect()
        if self._plan.device == "cuda":
            sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()


# The device's limits.


class Product(NamedTuple):
    """A matrix product of a step; `factor` is what it adds to its output, 0 if it replaces it."""

    name: str
    a: tuple[int, int]
    b: tuple[int, int]
    transpose_a: bool
    transpose_b: bool
    factor: float

    @property
    def out(self) -> tuple[int, int]:
        """The output's shape."""
        return self.a[self.transpose_a], self.b[not self.transpose_b]

    @property
    def flops(self) -> int:
        """Multiplications plus additions."""
        return 2 * self.out[0] * self.out[1] * self.a[not self.transpose_a]


def products_of(task: Task) -> list[Product]:
    """Return the products of a step. There are five, as nothing is sent back to the inputs."""
    n, h, inputs, outputs = task.batch, task.hidden, N_INPUTS, N_OUTPUTS
    return [
        Product("Z_1 = X W_1^T", (n, inputs), (h, inputs), False, True, 0.0),
        Product("Z_2 = A_1 W_2^T", (n, h), (outputs, h), False, True, 0.0),
        Product("D_2 W_2", (n, outputs), (outputs, h), False, False, 0.0),
        Product("W_2 += D_2^T A_1", (n, outputs), (n, h), True, False, 1e-6),
        Product("W_1 += D_1^T X", (n, h), (n, inputs), True, False, 1e-6),
    ]


def measure_products(
    task: Task, plan: Plan, clock: Clock, *, with_torch: bool
) -> dict[str, dict[str, float]]:
    """Return each product's flops and its seconds as gpunn and as PyTorch call cuBLAS for it."""
    found = {}
    for product in products_of(task):
        callers = {"gpunn": gpunn_product(product, task.precision, plan.device)}
        if with_torch:
            callers["PyTorch"] = torch_product(product, task.precision, plan.device)
        found[product.name] = {"flops": float(product.flops)}
        for name, call in callers.items():

            def repeat(n: int, call: Callable[[], Any] = call) -> None:
                for _ in range(n):
                    call()

            n = calibrate(clock, repeat, FEWEST_STEPS, 10_000, plan.run_seconds / 5)
            times = [clock.seconds(repeat, n) / n for _ in range(plan.reps)]
            found[product.name][name] = statistics.median(times)
    return found


def gpunn_product(product: Product, precision: str, device: str) -> Callable[[], Any]:
    backend = gpunn.get_backend(device, precision)
    generator = np.random.default_rng(1)
    a, b = (backend.asarray(generator.random(s, np.float32)) for s in (product.a, product.b))
    out = backend.zeros(product.out, np.float32)
    return lambda: backend.gemm(
        a,
        b,
        out,
        transpose_a=product.transpose_a,
        transpose_b=product.transpose_b,
        alpha=product.factor or 1.0,
        beta=float(product.factor != 0),
    )


def torch_product(product: Product, precision: str, device: str) -> Callable[[], Any]:
    """Return the same through PyTorch, which set its precision when it lined up."""
    import torch

    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(shape, device=device).to(kind) for shape in (product.a, product.b))
    a, b = (a.T if product.transpose_a else a), (b.T if product.transpose_b else b)
    out = torch.zeros(product.out, device=device, dtype=kind)
    if product.factor:
        return lambda: out.addmm_(a, b, alpha=product.factor)
    return lambda: torch.mm(a, b, out=out)


def copy_rate(plan: Plan, clock: Clock) -> float:
    """Return bytes read plus bytes written a second when the device copies within its memory."""
    backend = gpunn.get_backend(plan.device)
    source = backend.zeros((plan.copy_bytes // 4,), np.float32)
    target = backend.zeros((plan.copy_bytes // 4,), np.float32)

    def copy(n: int) -> None:
        for _ in range(n):
            backend.copy_into(source, target)

    n = calibrate(clock, copy, FEWEST_STEPS, 10_000, plan.run_seconds / 5)
    times = [clock.seconds(copy, n) / n for _ in range(plan.reps)]
    return 2 * plan.copy_bytes / statistics.median(times)
