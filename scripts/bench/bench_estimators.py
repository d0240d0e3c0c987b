"""Measure how fast gpunn's estimators train beside scikit-learn's of the same names.

    python scripts/bench/bench_estimators.py                 all; needs an idle machine
    python scripts/bench/bench_estimators.py --only digits   a part
    python scripts/bench/bench_estimators.py --quick         tiny, to see that it works

Both are made with the same parameters and `random_state` and fitted to the same samples for the
same number of epochs, in turns, in one process, so that a machine that becomes slower or faster
does so for both. What is timed is the whole of `fit`. The first turn is not counted: it brings
memory, threads and, on a GPU, kernels. Afterwards the numbers of epochs must be equal and the loss
curves agree, or the times say nothing and the run ends with an error.

A ratio is that of the medians; beside it stand the lowest and the highest ratio within a turn. The
widest network on text has 50 million weights, so it needs several GB of memory. Exit status: 1 if a
row on the CPU is short of what is asked.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import scipy.sparse
import sklearn.neural_network
import threadpoolctl
from machine_facts import cpu_model, version_of
from numpy.typing import NDArray
from turns import PAUSE, turns

import gpunn

LEAST = 1.5
"""How many times faster than scikit-learn's gpunn's are to be on the CPU."""
HIDDEN = ((100,), (1000,), (256, 256))
MOST_DIFFERENCE = {"float64": 1e-6, "float32": 1e-3}
"""How far the losses may be apart, relatively: two orders of summation over a few epochs."""


class Problem(NamedTuple):
    """What is learnt: an estimator's name, samples, what they teach, and for how many epochs."""

    kind: str
    X: Any
    y: NDArray[Any]
    epochs: int

    def shape(self) -> str:
        """Return how many samples and features there are."""
        kind = " sparse" if scipy.sparse.issparse(self.X) else ""
        return f"{self.X.shape[0]:,} x {self.X.shape[1]:,}{kind}"


# The data sets. `quick` asks for as few samples as show that the script works.


def digits(quick: bool) -> Problem:
    data = gpunn.load_dataset("digits")
    return Problem("MLPClassifier", data.inputs / 16, data.labels, 2 if quick else 100)


def mnist(quick: bool) -> Problem:
    data = gpunn.load_dataset("mnist")
    n = 1000 if quick else 60_000
    return Problem("MLPClassifier", data.inputs[:n] / 255, data.labels[:n], 1 if quick else 2)


def regression(quick: bool) -> Problem:
    """Return a smooth function of 500 normal features, with noise."""
    rng, n = np.random.default_rng(0), 1000 if quick else 100_000
    X = rng.standard_normal((n, 500))
    directions = rng.standard_normal((500, 20)) / 500**0.5
    y = np.tanh(X @ directions) @ rng.standard_normal(20) + 0.1 * rng.standard_normal(n)
    return Problem("MLPRegressor", X, y, 1)


def text(quick: bool) -> Problem:
    """Return documents of 50,000 words in 20 classes: about 100 words each, few of them frequent.

    How frequent a word is follows Zipf's law. Half of a document's words are drawn from all, half
    from those of its class, which are every twentieth. A row has length 1.
    """
    n, n_words, n_classes = (400, 5000, 20) if quick else (20_000, 50_000, 20)
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n)
    # With frequencies that fall as 1 / rank, logarithms of ranks are uniform.
    ranks = np.exp(rng.uniform(0, np.log(n_words), (n, 100))).astype(np.int64) - 1
    ranks[:, 50:] = ranks[:, 50:] // n_classes * n_classes + y[:, None]
    rows = np.repeat(np.arange(n), 100)
    counts = scipy.sparse.csr_matrix((np.ones(rows.size), (rows, ranks.ravel())), (n, n_words))
    lengths = np.sqrt(counts.multiply(counts).sum(axis=1)).A1
    X = scipy.sparse.csr_matrix(scipy.sparse.diags(1 / lengths) @ counts)
    return Problem("MLPClassifier", X, y, 1)


PROBLEMS: dict[str, Callable[[bool], Problem]] = {
    "digits": digits,
    "mnist": mnist,
    "regression": regression,
    "text": text,
}


@dataclass
class Row:
    """One network on one data set, with the seconds of each counted turn by contestant."""

    data: str
    shape: str
    hidden: tuple[int, ...]
    epochs: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    def ratio(self) -> float:
        """Return how many times faster gpunn is, by medians."""
        medians = {name: statistics.median(times) for name, times in self.seconds.items()}
        return medians["scikit-learn"] / medians["gpunn"]

    def ratio_spread(self) -> tuple[float, float]:
        """Return the lowest and the highest ratio within a turn."""
        turns = zip(self.seconds["scikit-learn"], self.seconds["gpunn"], strict=True)
        ratios = [theirs / ours for theirs, ours in turns]
        return min(ratios), max(ratios)

    def line(self) -> str:
        """Return the row of the table."""
        times = [
            f"{statistics.median(t):.3f} ({min(t):.3f} to {max(t):.3f})"
            for t in (self.seconds["gpunn"], self.seconds["scikit-learn"])
        ]
        low, high = self.ratio_spread()
        units = ", ".join(map(str, self.hidden))
        return (
            f"| {self.data} | {self.shape} | {units} | {self.epochs} | {times[0]} | {times[1]} | "
            f"{self.ratio():.2f} ({low:.2f} to {high:.2f}) |"
        )


class DifferentWorkError(Exception):
    """The two did not do the same, so their times cannot be compared."""


def fit_timed(estimator: Any, problem: Problem) -> float:
    time.sleep(PAUSE)
    with warnings.catch_warnings():
        # That so few epochs do not converge is the plan.
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        began = time.perf_counter()
        estimator.fit(problem.X, problem.y)
        return time.perf_counter() - began


def check_same_work(contestants: dict[str, Any], problem: Problem, dtype: str) -> None:
    """Raise unless both went through all epochs and had the same loss in each."""
    ours, theirs = contestants["gpunn"], contestants["scikit-learn"]
    if not ours.n_iter_ == theirs.n_iter_ == problem.epochs:
        raise DifferentWorkError(
            f"expected {problem.epochs} epochs, got {ours.n_iter_} and {theirs.n_iter_}"
        )
    if not np.allclose(ours.loss_curve_, theirs.loss_curve_, rtol=MOST_DIFFERENCE[dtype], atol=0):
        raise DifferentWorkError(f"losses {ours.loss_curve_} and {theirs.loss_curve_} differ")


def measure(
    name: str, problem: Problem, hidden: tuple[int, ...], options: argparse.Namespace
) -> Row:
    """Return a row: both contestants in turns, each turn beginning with the other one.

    Raises
    ------
    DifferentWorkError
        If the two did not do the same.
    """
    parameters = {
        "hidden_layer_sizes": hidden,
        "solver": options.solver,
        "max_iter": problem.epochs,
        "tol": 0.0,
        "n_iter_no_change": problem.epochs + 1,
        "random_state": 0,
    }
    contestants = {
        "gpunn": getattr(gpunn, problem.kind)(**parameters, device=options.device),
        "scikit-learn": getattr(sklearn.neural_network, problem.kind)(**parameters),
    }
    row = Row(name, problem.shape(), hidden, problem.epochs, {who: [] for who in contestants})
    for turn in range(options.reps + 1):
        for who in turns(list(contestants), turn):
            seconds = fit_timed(contestants[who], problem)
            if turn > 0:
                row.seconds[who].append(seconds)
        check_same_work(contestants, problem, options.dtype)
    row.losses = {who: estimator.loss_ for who, estimator in contestants.items()}
    return row


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows asked for, one data set in memory at a time."""
    for name in options.only or PROBLEMS:
        problem = PROBLEMS[name](options.quick)
        problem = problem._replace(X=problem.X.astype(options.dtype))
        for hidden in HIDDEN:
            yield measure(name, problem, hidden, options)


def describe_machine() -> dict[str, Any]:
    """Return what the figures hold for."""
    packages = ("numpy", "scipy", "numba", "scikit-learn")
    return {
        "platform": platform.platform(),
        "processor": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "load_at_start": psutil.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {"gpunn": gpunn.__version__} | {p: version_of(p) for p in packages},
        "thread_pools": [
            {key: pool.get(key) for key in ("internal_api", "version", "num_threads")}
            for pool in threadpoolctl.threadpool_info()
        ],
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, help="some of the data sets")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--reps", type=int, help="counted turns (default: 5, quick: 2)")
    parser.add_argument("--solver", choices=("adam", "sgd"), default="adam", help="default: adam")
    parser.add_argument(
        "--dtype", choices=tuple(MOST_DIFFERENCE), default="float64", help="default: float64"
    )
    parser.add_argument("--device", default="cpu", help="gpunn's device (default: cpu)")
    parser.add_argument("--out", type=Path, help="write all figures there as JSON")
    options = parser.parse_args()
    options.reps = options.reps if options.reps is not None else 2 if options.quick else 5
    if options.reps < 1:
        parser.error(f"--reps must be at least 1, got {options.reps}")
    return options


def main() -> int:
    options, machine, measured = parse_arguments(), describe_machine(), []
    print(json.dumps(machine))
    settings = {
        key: getattr(options, key) for key in ("quick", "reps", "solver", "dtype", "device")
    }
    print(f"\n{json.dumps(settings)}; seconds of fit")
    print("\n| data | samples | hidden | epochs | gpunn | scikit-learn | times faster |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    try:
        for row in rows(options):
            measured.append(row)
            print(row.line(), flush=True)
    except (gpunn.GpunnError, DifferentWorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.out is not None:
        found = [{**asdict(row), "ratio": row.ratio()} for row in measured]
        options.out.write_text(json.dumps({**machine, **settings, "rows": found}, indent=1) + "\n")
    if options.quick:
        print("\n--quick: these numbers mean nothing")
        return 0
    short = [row for row in measured if row.ratio() < LEAST and options.device == "cpu"]
    if options.device == "cpu":
        print(f"\n{len(measured) - len(short)} of {len(measured)} rows are {LEAST} times as fast")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
