"""Measure how fast gpunn trains on a CPU, beside other ways and beside the machine's own limits.

    python scripts/bench/bench_cpu.py                 all of it; needs an otherwise idle machine
    python scripts/bench/bench_cpu.py --only online   a part
    python scripts/bench/bench_cpu.py --quick         tiny and meaningless, to see that it works

Everything that is compared is measured in one run, in turns, so that a machine that becomes slower
or faster does so for everyone. ``docs/benchmarks/README.md`` says what each row means.
"""

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

import gpunn

Values = NDArray[Any]
Run = Callable[[int], object]
"""Train on the first so many samples, once through."""

N_INPUTS, N_OUTPUTS = 784, 10
LEARNING_RATE = 1e-4
"""Speed does not depend on it, as long as nothing overflows: the widest network sets how large."""
MOST_SAMPLES = 60_000
"""As many as MNIST has; more would measure reading X from memory, and nobody trains on so many."""
FEWEST_STEPS = 4
LONGEST_RUN = 2.0
"""Who would take longer, in seconds, is given fewer samples; times are compared per sample."""
PAUSE = 0.1
"""Seconds between runs: a BLAS's idle threads spin for a while, at the cost of who comes next."""

SECTIONS = ("online", "grid", "adam", "limits", "memory")
PEERS = {
    "plain": "plain loop",
    "torch": "PyTorch",
    "compile": "torch.compile",
    "sklearn": "scikit-learn",
}
INSTALL = "pip install '.[bench]'"
DEFAULT_OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "cpu.json"

LEAST_ONLINE_PLAIN = {200: 12.0, 2000: 50.0}
LEAST = {
    ("online", "torch"): 17.0,
    ("grid", "torch"): 1.15,
    ("grid", "sklearn"): 1.5,
    ("adam", "torch"): 1.15,
    ("adam", "sklearn"): 1.15,
}
LEAST_GRID_MEAN = 1.5
LEAST_SHARE = 0.80
MOST_MEMORY = 1.25


@dataclass(frozen=True)
class Cell:
    """One training that is measured: a network 784-hidden-10, a batch size and a rule."""

    section: str
    hidden: int
    batch: int
    optimizer: str = "sgd"

    @property
    def label(self) -> str:
        """What it is called in tables and pictures."""
        network = f"{N_INPUTS}-{self.hidden}-{N_OUTPUTS}"
        if self.section == "online":
            return f"online {network}"
        rule = ", Adam" if self.section == "adam" else ""
        return f"{network}, batch {self.batch}{rule}"

    @property
    def flops_per_sample(self) -> int:
        """What the step's matrix products count, as multiplications plus additions.

        For the inputs' side ``Z_1 = X W_1^T`` and the update ``D_1^T X``: two products of
        n_inputs * hidden multiplications a sample. For the outputs' side ``A_1 W_2^T``, ``D_2 W_2``
        and the update ``D_2^T A_1``: three of hidden * n_outputs. Nothing is sent back to the
        inputs. Elementwise work is not counted, as it is no part of the limit compared with.
        """
        return 2 * self.hidden * (2 * N_INPUTS + 3 * N_OUTPUTS)

    @property
    def bytes_streamed_per_sample(self) -> int:
        """What one sample at a time moves if weights come from memory: two reads, one write."""
        return 3 * 4 * self.hidden * (N_INPUTS + N_OUTPUTS)

    def least_ratio(self, peer: str) -> float | None:
        """Return the ratio to a peer that gpunn promises, if it promises one."""
        if (self.section, peer) == ("online", "plain"):
            return LEAST_ONLINE_PLAIN.get(self.hidden)
        return LEAST.get((self.section, peer))

    @property
    def promises_share(self) -> bool:
        """Whether gpunn promises a share of the matrix products' own speed."""
        return self.section == "grid" and self.hidden >= 2000 and self.batch == 256


@dataclass
class Timing:
    """All repetitions of one contender in one cell.

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
    """One cell at one number of threads, with everybody's times by contender."""

    cell: Cell
    threads: int
    timings: dict[str, Timing] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ratio(self, peer: str) -> float | None:
        """Return how many times faster than a peer gpunn is, by medians; None if not measured."""
        if peer not in self.timings:
            return None
        return self.timings[peer].per_sample() / self.timings["gpunn"].per_sample()

    def ratio_spread(self, peer: str) -> tuple[float, float]:
        """Return the lowest and the highest ratio of any two runs."""
        ours, theirs = self.timings["gpunn"], self.timings[peer]
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


@dataclass(frozen=True)
class Plan:
    """What is measured, and how thoroughly."""

    sections: tuple[str, ...]
    reps: int
    run_seconds: float
    most_samples: int
    online_hidden: tuple[int, ...]
    grid_hidden: tuple[int, ...]
    grid_batches: tuple[int, ...]
    adam_hidden: tuple[int, ...]
    sgemm_size: int
    copy_bytes: int
    memory_hidden: int
    compile: bool

    @classmethod
    def make(cls, options: argparse.Namespace) -> "Plan":
        """Return the plan that the command line asks for."""
        sections = tuple(options.only or SECTIONS)
        if options.quick:
            return cls(
                sections=sections,
                reps=options.reps or 2,
                run_seconds=0.01,
                most_samples=2000,
                online_hidden=(200,),
                grid_hidden=(30, 200),
                grid_batches=(10,),
                adam_hidden=(200,),
                sgemm_size=256,
                copy_bytes=2**24,
                memory_hidden=10_000,
                compile=options.compile,
            )
        return cls(
            sections=sections,
            reps=options.reps or 5,
            run_seconds=0.3,
            most_samples=MOST_SAMPLES,
            online_hidden=(200, 2000),
            grid_hidden=(30, 200, 2000, 10_000),
            grid_batches=(10, 100, 256),
            adam_hidden=(200, 2000),
            sgemm_size=2048,
            copy_bytes=2**28,
            memory_hidden=1_000_000,
            compile=options.compile,
        )

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of the sections asked for."""
        if "online" in self.sections:
            yield from (Cell("online", hidden, 1) for hidden in self.online_hidden)
        if "grid" in self.sections:
            for hidden in self.grid_hidden:
                yield from (Cell("grid", hidden, batch) for batch in self.grid_batches)
        if "adam" in self.sections:
            yield from (Cell("adam", hidden, 200, "adam") for hidden in self.adam_hidden)


class Samples:
    """Made-up samples as each contender wants them; speed does not depend on what they show."""

    def __init__(self, n_samples: int) -> None:
        generator = np.random.default_rng(0)
        self.inputs = generator.random((n_samples, N_INPUTS), dtype=np.float32)
        self.labels = generator.integers(0, N_OUTPUTS, n_samples)
        self.targets = np.full((n_samples, N_OUTPUTS), 0.01, np.float32)
        self.targets[np.arange(n_samples), self.labels] = 0.99


# The contenders. Each is made for a cell and then called with a number of samples.


def gpunn_run(cell: Cell, samples: Samples) -> Run:
    if cell.section == "online":
        network = gpunn.ThreeLayerNetwork(
            N_INPUTS, cell.hidden, N_OUTPUTS, LEARNING_RATE, device="cpu"
        )
        return lambda n: network.train(samples.inputs[:n], samples.targets[:n])
    wide = gpunn.Network(
        [N_INPUTS, cell.hidden, N_OUTPUTS],
        output_activation="softmax",
        loss="cross_entropy",
        device="cpu",
    )
    return lambda n: gpunn.fit(
        wide,
        samples.inputs[:n],
        samples.labels[:n],
        epochs=1,
        batch_size=cell.batch,
        optimizer=cell.optimizer,
        learning_rate=LEARNING_RATE,
    )


class PlainLoop:
    """A three-layer network as a reader of a textbook writes it down from the formulas.

    With ``o = s(W_2 h)``, ``h = s(W_1 x)`` and the sigmoid s, each sample's errors ``t - o`` go
    back as ``W_2^T (t - o)``, and a layer's weights change by
    ``lr * (error * output * (1 - output)) below^T``.
    """

    def __init__(self, hidden: int, learning_rate: float = LEARNING_RATE) -> None:
        generator = np.random.default_rng(0)
        self.learning_rate = learning_rate
        self.weights_1 = generator.normal(0.0, N_INPUTS**-0.5, (hidden, N_INPUTS))
        self.weights_2 = generator.normal(0.0, hidden**-0.5, (N_OUTPUTS, hidden))

    def train(self, inputs: Values, targets: Values) -> Values:
        """Learn from one sample; return its output errors from before."""
        x = np.array(inputs, ndmin=2).T
        t = np.array(targets, ndmin=2).T
        h = self.sigmoid(np.dot(self.weights_1, x))
        o = self.sigmoid(np.dot(self.weights_2, h))
        output_errors = t - o
        hidden_errors = np.dot(self.weights_2.T, output_errors)
        self.weights_2 += self.learning_rate * np.dot(output_errors * o * (1.0 - o), h.T)
        self.weights_1 += self.learning_rate * np.dot(hidden_errors * h * (1.0 - h), x.T)
        return output_errors[:, 0]

    @staticmethod
    def sigmoid(z: Values) -> Values:
        """Return the logistic function of z."""
        return 1.0 / (1.0 + np.exp(-z))


def plain_run(cell: Cell, samples: Samples) -> Run:
    loop = PlainLoop(cell.hidden)
    # Converted beforehand: how samples come into float64 is not what is measured. A loop that goes
    # through all weights for each sample does not notice when samples come round again.
    rows = samples.inputs[:2000].astype(np.float64)
    targets = samples.targets.astype(np.float64)

    def run(n: int) -> None:
        for i in range(n):
            loop.train(rows[i % len(rows)], targets[i])

    return run


def check_same_rule() -> None:
    """Make sure that the plain loop and `ThreeLayerNetwork` learn the same from samples.

    Raises
    ------
    AssertionError
        If they do not, as then their times say nothing.
    """
    samples, hidden, rate = Samples(20), 30, 0.3
    network = gpunn.ThreeLayerNetwork(N_INPUTS, hidden, N_OUTPUTS, rate, device="cpu")
    loop = PlainLoop(hidden, rate)
    start = network.parameters()
    loop.weights_1 = start["layers.0.weight"].astype(np.float64)
    loop.weights_2 = start["layers.1.weight"].astype(np.float64)
    theirs = [loop.train(*pair) for pair in zip(samples.inputs, samples.targets, strict=True)]
    ours = network.train(samples.inputs, samples.targets)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(
        network.parameters()["layers.0.weight"], loop.weights_1, atol=1e-4, rtol=1e-3
    )


def torch_run(cell: Cell, samples: Samples, *, fused: bool, mode: str | None = None) -> Run:
    """Return PyTorch's usual loop, eager or with the model compiled in some mode."""
    import torch
    from torch import nn

    online = cell.section == "online"
    layers: list[nn.Module] = [
        nn.Linear(N_INPUTS, cell.hidden, bias=not online),
        nn.Sigmoid(),
        nn.Linear(cell.hidden, N_OUTPUTS, bias=not online),
    ]
    model: Any = nn.Sequential(*layers, nn.Sigmoid()) if online else nn.Sequential(*layers)
    rule = torch.optim.Adam if cell.optimizer == "adam" else torch.optim.SGD
    # None leaves the choice to PyTorch, as in a loop that does not mention it.
    optimizer = rule(model.parameters(), lr=LEARNING_RATE, fused=True if fused else None)
    loss_of = nn.MSELoss() if online else nn.CrossEntropyLoss()
    inputs = torch.from_numpy(samples.inputs)
    targets = torch.from_numpy(samples.targets if online else samples.labels)
    if mode is not None:
        model = torch.compile(model, mode=mode)

    def run(n: int) -> None:
        # `ThreeLayerNetwork.train` takes samples in their order, so the online loop does too.
        order = None if online else torch.randperm(n)
        for start in range(0, n, cell.batch):
            batch: Any = slice(start, start + cell.batch)
            if order is not None:
                batch = order[batch]
            loss = loss_of(model(inputs[batch]), targets[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run


def sklearn_run(cell: Cell, samples: Samples) -> Run:
    """Return scikit-learn's own epoch: `partial_fit` goes through all batches once."""
    from sklearn.neural_network import MLPClassifier

    classifier = MLPClassifier(
        (cell.hidden,),
        activation="logistic",
        solver=cell.optimizer,
        alpha=0.0,
        batch_size=cell.batch,
        learning_rate="constant",
        learning_rate_init=LEARNING_RATE,
        shuffle=True,
        momentum=0.0,
        nesterovs_momentum=False,
        random_state=0,
    )
    first = slice(0, cell.batch)
    classes = np.arange(N_OUTPUTS)
    classifier.partial_fit(samples.inputs[first], samples.labels[first], classes=classes)
    assert classifier.coefs_[0].dtype == np.float32
    return lambda n: classifier.partial_fit(samples.inputs[:n], samples.labels[:n])


# Taking times.


def seconds_of(run: Run, n_samples: int) -> float:
    began = time.perf_counter()
    run(n_samples)
    return time.perf_counter() - began


def whole_batches(n_samples: float, batch: int, most: int) -> int:
    """Return about so many samples as whole batches, a few at least and `most` at most."""
    n_batches = min(round(n_samples / batch), most // batch)
    return max(n_batches, FEWEST_STEPS) * batch


def calibrate(run: Run, batch: int, plan: Plan) -> int:
    """Return how many samples make a run of about the planned seconds."""
    n_samples = whole_batches(0, batch, plan.most_samples)
    run(n_samples)  # first calls allocate
    while True:
        seconds = seconds_of(run, n_samples)
        wanted = whole_batches(n_samples * plan.run_seconds / seconds, batch, plan.most_samples)
        # Short runs say little of long ones, so grow in steps.
        if wanted <= 4 * n_samples:
            return wanted
        n_samples = whole_batches(4 * n_samples, batch, plan.most_samples)


def warm_up(run: Run, n_samples: int, batch: int) -> int:
    """Run once; return how many samples to give this contender."""
    n_few = min(n_samples, FEWEST_STEPS * batch)
    run(n_few)
    expected = seconds_of(run, n_few) * n_samples / n_few
    if expected > LONGEST_RUN:
        return whole_batches(n_samples * LONGEST_RUN / expected, batch, n_samples)
    run(n_samples)
    return n_samples


def fastest(choices: dict[str, Callable[[], Run]], n_samples: int) -> tuple[str, Run, list[str]]:
    """Return the name and the run of the fastest choice, and what went wrong with others.

    Raises
    ------
    RuntimeError
        If all of them fail.
    """
    best: tuple[float, str, Run] | None = None
    problems = []
    for name, make in choices.items():
        try:
            run = make()
            run(n_samples)
            seconds = min(seconds_of(run, n_samples) for _ in range(3))
        except Exception as error:  # whatever a compiler or an option not offered here raises
            problems.append(f"{name} fails: {str(error).strip().splitlines()[:1]}")
            continue
        if best is None or seconds < best[0]:
            best = (seconds, name, run)
    if best is None:
        raise RuntimeError("; ".join(problems))
    return best[1], best[2], problems


def contenders(
    cell: Cell, samples: Samples, n_samples: int, plan: Plan, row: Row
) -> Iterator[tuple[str, str, Run]]:
    """Yield name, note and run of each peer that is installed; put problems into the row."""
    few = max(FEWEST_STEPS * cell.batch, min(n_samples, n_samples // 10, 20 * cell.batch))
    if cell.section == "online":
        yield "plain", "", plain_run(cell, samples)
    if find_spec("torch") is not None:
        name, run, problems = fastest(
            {
                "default": lambda: torch_run(cell, samples, fused=False),
                "fused": lambda: torch_run(cell, samples, fused=True),
            },
            few,
        )
        row.notes += problems
        yield "torch", f"optimizer {name}", run
        if plan.compile:
            fused = name == "fused"
            modes = ("default", "max-autotune-no-cudagraphs")
            try:
                mode, run, problems = fastest(
                    {
                        m: lambda m=m: torch_run(cell, samples, fused=fused, mode=m)  # type: ignore[misc]
                        for m in modes
                    },
                    few,
                )
                row.notes += problems
                yield "compile", f"mode {mode}, optimizer {name}", run
            except RuntimeError as error:
                row.notes.append(f"torch.compile: {error}")
    if cell.section != "online" and find_spec("sklearn") is not None:
        yield "sklearn", "", sklearn_run(cell, samples)


def measure_cell(cell: Cell, samples: Samples, threads: int, plan: Plan) -> Row:
    """Time everyone in turns."""
    row = Row(cell, threads)
    runs = {"gpunn": gpunn_run(cell, samples)}
    n_samples = calibrate(runs["gpunn"], cell.batch, plan)
    row.timings["gpunn"] = Timing(n_samples)
    runs["gpunn"](n_samples)
    for name, note, run in contenders(cell, samples, n_samples, plan, row):
        runs[name] = run
        row.timings[name] = Timing(warm_up(run, n_samples, cell.batch), note=note)
    names = list(runs)
    for rep in range(plan.reps):
        # Each repetition begins with another one, so that nobody always follows the same one.
        shift = rep % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(PAUSE)
            timing = row.timings[name]
            timing.seconds.append(seconds_of(runs[name], timing.n_samples))
    return row


# The machine's limits.


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
    a = np.asfortranarray(generator.random((k, m) if transposed else (m, k), dtype=np.float32))
    b_transposed = not transposed
    b = np.asfortranarray(generator.random((n, k) if b_transposed else (k, n), dtype=np.float32))
    c = np.zeros((m, n), np.float32, order="F")

    def multiply(_: int = 0) -> None:
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


# Processes. Threads are chosen before a BLAS is loaded, and memory is a whole process's; so each
# number of threads, and each training whose memory is measured, gets a process of its own.


def in_child(task: dict[str, Any], threads: int | None = None) -> dict[str, Any]:
    """Return what this script finds when it is run with a task, and perhaps so many threads.

    Raises
    ------
    SystemExit
        If it fails.
    """
    environment = dict(os.environ)
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        path.write_text(json.dumps(task))
        command = [sys.executable, __file__, "--worker", str(path)]
        status = subprocess.run(command, env=environment, check=False).returncode
        if status != 0:
            raise SystemExit(f"bench_cpu: the process for {task['kind']} ended with {status}")
        result: dict[str, Any] = json.loads(path.read_text())
        return result


def work(path: Path) -> None:
    """Do a task and put its result into the file it came in."""
    task = json.loads(path.read_text())
    if task["kind"] == "speed":
        plan: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in task["plan"].items()
        }
        result = work_speed(Plan(**plan), task["threads"])
    else:
        result = work_memory(task["way"], task["hidden"])
    path.write_text(json.dumps(result))


def work_speed(plan: Plan, threads: int) -> dict[str, Any]:
    """Measure all cells with the threads that this process was started with."""
    from threadpoolctl import threadpool_info

    # The classes are random: that they are not learnt is no news.
    warnings.filterwarnings("ignore", module="sklearn")
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
    limits, cells = Limits(threads), list(plan.cells())
    has_limits = "limits" in plan.sections or bool(cells)
    if has_limits:
        progress(threads, "limits")
        add_limits(limits, plan)
    rows = []
    if cells:
        if "online" in plan.sections:
            check_same_rule()
        samples = Samples(max(plan.most_samples, FEWEST_STEPS * max(c.batch for c in cells)))
        for cell in cells:
            progress(threads, cell.label)
            rows.append(measure_cell(cell, samples, threads, plan))
    if has_limits:
        progress(threads, "limits again")
        add_limits(limits, plan)
    pools = [
        {
            "library": pool["internal_api"],
            "version": pool.get("version"),
            "kernels": pool.get("architecture"),
            "threads": pool["num_threads"],
            "package": Path(pool["filepath"]).parent.name,
        }
        for pool in threadpool_info()
    ]
    return {
        "threads": threads,
        "rows": [asdict(row) for row in rows],
        "limits": asdict(limits) if has_limits else None,
        "thread_pools": pools,
    }


def work_memory(way: str, hidden: int) -> dict[str, Any]:
    """Train a network that is nearly all of the memory; return the most that was used."""
    # Enough samples that whole blocks are gone through: memory counts when it is first touched.
    samples = Samples(130)
    if way == "train":
        gpunn.ThreeLayerNetwork(N_INPUTS, hidden, N_OUTPUTS, LEARNING_RATE, device="cpu").train(
            samples.inputs, samples.targets
        )
    else:
        gpunn.fit(
            gpunn.Network([N_INPUTS, hidden, N_OUTPUTS], biases=False, device="cpu"),
            samples.inputs,
            samples.labels,
            epochs=1,
            batch_size=10,
            learning_rate=LEARNING_RATE,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak * (1 if sys.platform == "darwin" else 1024)}


def measure_memory(plan: Plan) -> list[MemoryUse]:
    """Measure both ways of training, each alone, where there is room for it."""
    hidden = plan.memory_hidden
    weights = 4 * hidden * (N_INPUTS + N_OUTPUTS)
    network = f"{N_INPUTS}-{hidden}-{N_OUTPUTS}"
    found = []
    for way, what in (("train", "one sample at a time"), ("fit", "fit, batch 10")):
        use = MemoryUse(f"{network}, {what}", weights)
        # More than is promised, as a benchmark that makes the machine swap helps nobody.
        needed, free = int(1.6 * weights), psutil.virtual_memory().available
        if free < needed:
            use.skipped = f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        else:
            progress(None, f"memory of {use.what}")
            use.peak = in_child({"kind": "memory", "way": way, "hidden": hidden})["peak"]
        found.append(use)
    return found


def progress(threads: int | None, what: str) -> None:
    where = "" if threads is None else f"{threads} thread{'s' * (threads > 1)}: "
    print(f"  {where}{what}", file=sys.stderr, flush=True)


# What is printed.


@dataclass
class Report:
    """All that was found, and the count of promises kept."""

    rows: list[Row]
    limits: dict[int, Limits]
    memory: list[MemoryUse]
    n_ok: int = 0
    n_short: int = 0

    def mark(self, value: float, bound: float, *, most: bool = False) -> str:
        """Return a value beside what it should be at least (or at most), and whether it is."""
        good = value <= bound if most else value >= bound
        self.n_ok, self.n_short = self.n_ok + good, self.n_short + (not good)
        sign = "<=" if most else ">="
        return f"{value:.2f} ({sign} {bound:.4g} {'ok' if good else 'short'})"

    def print(self) -> None:
        """Print all tables."""
        self._print_limits()
        for section, title in (
            ("online", "One sample at a time"),
            ("grid", "Mini-batches, plain gradient descent"),
            ("adam", "Adam"),
        ):
            rows = [row for row in self.rows if row.cell.section == section]
            if rows:
                peers = {"online": ["plain", "torch"]}.get(section, ["torch", "sklearn"])
                if any("compile" in row.timings for row in rows):
                    peers.insert(peers.index("torch") + 1, "compile")
                self._print_section(title, rows, peers)
                if section == "grid":
                    self._print_means(rows)
        self._print_notes()
        self._print_memory()
        if self.n_ok + self.n_short:
            print(f"\nrequired: {self.n_ok} ok, {self.n_short} short")

    def _print_limits(self) -> None:
        lines = [["threads", "sgemm GFLOP/s", "start", "end", "copy GB/s", "start", "end"]]
        for n, limits in self.limits.items():
            gemm = [limits.best_sgemm, limits.sgemm_at(0), limits.sgemm_at(-1)]
            copy = [max(limits.copy), limits.copy[0], limits.copy[-1]]
            lines.append([str(n), *(f"{value:.1f}" for value in gemm + copy)])
        if len(lines) > 1:
            print_table("What the machine itself can do", lines)

    def _print_section(self, title: str, rows: list[Row], peers: Sequence[str]) -> None:
        names = [cell for peer in peers for cell in (PEERS[peer], "ratio")]
        streamed = rows[0].cell.section == "online"
        lines = [["network", "threads", "gpunn", *names, "of sgemm", *["of streaming"] * streamed]]
        for row in rows:
            line = [row.cell.label, str(row.threads), time_text(row.timings["gpunn"])]
            for peer in peers:
                line += [time_text(row.timings.get(peer)), self._ratio_text(row, peer)]
            line.append(self._share_text(row))
            if streamed:
                bound = max(self.limits[row.threads].copy) * 1e9
                rate = 1 / row.timings["gpunn"].per_sample()
                line.append(f"{rate * row.cell.bytes_streamed_per_sample / bound:.2f}")
            lines.append(line)
        print_table(f"{title}: microseconds a sample, median (min-max)", lines)

    def _ratio_text(self, row: Row, peer: str) -> str:
        ratio, least = row.ratio(peer), row.cell.least_ratio(peer)
        if ratio is None:
            return "-"
        return f"{ratio:.2f}" if least is None else self.mark(ratio, least)

    def _share_text(self, row: Row) -> str:
        share = row.gflops() / self.limits[row.threads].best_sgemm
        return self.mark(share, LEAST_SHARE) if row.cell.promises_share else f"{share:.2f}"

    def _print_means(self, rows: list[Row]) -> None:
        for threads in sorted({row.threads for row in rows}):
            for peer in PEERS:
                ratios = [row.ratio(peer) for row in rows if row.threads == threads]
                found = [ratio for ratio in ratios if ratio is not None]
                if found:
                    mean = statistics.geometric_mean(found)
                    text = self.mark(mean, LEAST_GRID_MEAN) if peer == "torch" else f"{mean:.2f}"
                    print(f"geometric mean over {PEERS[peer]}, threads {threads}: {text}")

    def _print_notes(self) -> None:
        chosen: dict[str, list[str]] = {}
        for row in self.rows:
            for peer, timing in row.timings.items():
                if timing.note:
                    where = f"{row.cell.label} ({row.threads})"
                    chosen.setdefault(f"{PEERS[peer]}, {timing.note}", []).append(where)
        if chosen:
            print("\nThe faster set-ups, by network (threads):")
        for note, places in chosen.items():
            print(f"  {note}: {'; '.join(places)}")
        for note in sorted({note for row in self.rows for note in row.notes}):
            print(f"  {note}")

    def _print_memory(self) -> None:
        lines = [["training", "weights GB", "peak GB", "ratio"]]
        for use in self.memory:
            line = [use.what, f"{use.weights / 1e9:.2f}"]
            if use.skipped:
                lines.append([*line, "-", f"skipped: {use.skipped}"])
            else:
                ratio = self.mark(use.peak / use.weights, MOST_MEMORY, most=True)
                lines.append([*line, f"{use.peak / 1e9:.2f}", ratio])
        if len(lines) > 1:
            print_table("Memory, whole process over weights", lines)


def time_text(timing: Timing | None) -> str:
    """Return a contender's microseconds a sample with their spread, or "-"."""
    if timing is None:
        return "-"
    low, middle, high = (1e6 * timing.per_sample(f) for f in (min, statistics.median, max))
    return f"{middle:.4g} ({low:.4g}-{high:.4g})"


def print_table(title: str, lines: list[list[str]]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print(f"\n{title}")
    for line in lines:
        texts = [
            text.ljust(w) if i == 0 else text.rjust(w)
            for i, (text, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(texts).rstrip())


def draw(rows: list[Row], path: Path) -> None:
    """Draw each cell's ratios with their spread, on a log axis, beside the line of equal speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    threads = sorted({row.threads for row in rows})
    cells = list(dict.fromkeys(row.cell for row in rows))
    peers = [peer for peer in PEERS if any(peer in row.timings for row in rows)]
    figure, axes = plt.subplots(
        1,
        len(threads),
        figsize=(2.5 + 4.5 * len(threads), 1.8 + 0.36 * len(cells)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, n in zip(axes[0], threads, strict=True):
        for index, peer in enumerate(peers):
            here = [row for row in rows if row.threads == n and peer in row.timings]
            ratios = np.array([row.ratio(peer) for row in here], float)
            spread = np.array([row.ratio_spread(peer) for row in here]).reshape(-1, 2)
            axis.errorbar(
                ratios,
                [cells.index(row.cell) + 0.16 * (index - (len(peers) - 1) / 2) for row in here],
                xerr=[ratios - spread[:, 0], spread[:, 1] - ratios],
                fmt="os^D"[index],
                color=("#4c4c4c", "#d1495b", "#edae49", "#00798c")[list(PEERS).index(peer)],
                markersize=5,
                linewidth=1,
                label=PEERS[peer],
            )
        axis.axvline(1, color="black", linewidth=1)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.set_title(f"{n} thread{'s' * (n > 1)}")
        axis.set_xlabel("times as fast as")
    axes[0, 0].set_yticks(range(len(cells)), [cell.label for cell in cells])
    axes[0, 0].invert_yaxis()
    figure.suptitle("Training speed of gpunn over others (right of 1: gpunn is faster)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(peers), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# The command.


def describe_machine() -> dict[str, Any]:
    """Return versions, CPU and load, as plain values."""
    packages = ("gpunn", "numpy", "scipy", "torch", "scikit-learn")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            **{package: version_of(package) for package in packages},
        },
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_total": psutil.virtual_memory().total,
        "load_at_start": psutil.getloadavg()[0],
    }


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def print_machine(machine: dict[str, Any]) -> None:
    versions = machine["versions"]
    print(f"{machine['date']}  {machine['cpu']}, {machine['cores']} cores")
    print(", ".join(f"{name} {version or '-'}" for name, version in versions.items()))
    for package, name in (("torch", "PyTorch"), ("scikit-learn", "scikit-learn")):
        if versions[package] is None:
            print(f"{name} is not installed, so its columns are empty: {INSTALL}")
    if machine["load_at_start"] > 0.5:
        load = machine["load_at_start"]
        print(f"the machine is busy (load {load:.1f}): what follows is not to be relied on")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure these parts alone")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="default: 1 2")
    parser.add_argument("--reps", type=int, help="repetitions; default: 5")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--quick", action="store_true", help="tiny; the numbers mean nothing")
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file to write, with a picture beside it; default: docs/benchmarks/cpu.json, "
        "or nothing with --only or --quick, which must not replace a whole run's results",
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.threads) < 1 or (options.reps is not None and options.reps < 1):
        parser.error("--threads and --reps must be at least 1")
    if options.out is None and options.only is None and not options.quick:
        options.out = DEFAULT_OUT
    return options


def save(path: Path, values: dict[str, Any], rows: list[Row]) -> None:
    """Write what was found, and a picture of it where there is something to draw."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")
    print(f"\nwrote {path}")
    if not any(len(row.timings) > 1 for row in rows):
        return
    if find_spec("matplotlib") is None:
        print("no picture: it needs matplotlib (pip install '.[plots]')")
        return
    draw(rows, path.with_suffix(".png"))
    print(f"wrote {path.with_suffix('.png')}")


def main() -> int:
    options = parse_arguments()
    if options.worker is not None:
        work(options.worker)
        return 0
    plan, machine = Plan.make(options), describe_machine()
    print_machine(machine)
    sys.stdout.flush()
    children = []
    if set(plan.sections) != {"memory"}:
        children = [
            in_child({"kind": "speed", "plan": asdict(plan), "threads": threads}, threads)
            for threads in sorted(set(options.threads))
        ]
    memory = measure_memory(plan) if "memory" in plan.sections else []
    rows = [Row.from_dict(row) for child in children for row in child["rows"]]
    # By cell, so that a network's thread counts stand below each other.
    order = {cell: place for place, cell in enumerate(plan.cells())}
    rows.sort(key=lambda row: (order[row.cell], row.threads))
    limits = {child["threads"]: Limits(**child["limits"]) for child in children}
    Report(rows, limits, memory).print()
    if options.quick:
        print("\n--quick: these numbers mean nothing")
    if options.out is not None:
        found = {
            **machine,
            "quick": options.quick,
            "plan": asdict(plan),
            "rows": [
                {**asdict(row), "ratios": {peer: row.ratio(peer) for peer in row.timings}}
                for row in rows
            ],
            "limits": [asdict(limit) for limit in limits.values()],
            "memory": [asdict(use) for use in memory],
            "thread_pools": {child["threads"]: child["thread_pools"] for child in children},
        }
        save(options.out, found, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
