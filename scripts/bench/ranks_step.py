"""How long a step takes on the ranks that mpiexec has started, and what they send in it.

    python scripts/bench/ranks_step.py --hidden 20000 --batch-size 256

prints one line of JSON for one process, and after ``mpiexec -n 2`` for two ranks. Set
OPENBLAS_NUM_THREADS=1 to give each process one core.
"""

import json
import statistics
import time
from argparse import ArgumentParser

import numpy as np

import gpunn
from gpunn.parallel.world import ranks_here


class Clock(gpunn.Callback):
    """Notes when each step has ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, n_samples: int) -> None:
        self.times.append(time.perf_counter())


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", type=int, default=20_000, help="hidden units")
    parser.add_argument("--batch-size", type=int, default=256, help="samples in a step")
    parser.add_argument("--steps", type=int, default=20, help="steps that are measured")
    parser.add_argument("--dtype", default="float32", help="float32 or float64")
    parser.add_argument("--parallel", default="auto", help="hidden, data, none or auto")
    options = parser.parse_args()
    ranks, rng = ranks_here(), np.random.default_rng(0)
    n_samples = (options.steps + 3) * options.batch_size
    X = rng.random((n_samples, 784), np.float32)
    y = rng.integers(10, size=n_samples)
    network = gpunn.Network(
        [784, options.hidden, 10],
        hidden_activation="relu",
        output_activation="softmax",
        loss="cross_entropy",
        initializer="he_normal",
        dtype=options.dtype,
        device="cpu",
        parallel=options.parallel,
    )
    clock = Clock()
    gpunn.fit(
        network, X, y, epochs=1, batch_size=options.batch_size, learning_rate=0.01,
        shuffle=False, callbacks=[clock],
    )  # fmt: skip
    steps = np.diff(clock.times)[2:].tolist()
    if ranks.is_first:
        result = {
            "ranks": ranks.size,
            "hidden": options.hidden,
            "batch size": options.batch_size,
            "dtype": options.dtype,
            "parallel": network.sharing.kind,
            "seconds": statistics.median(steps),
            "fastest": min(steps),
            "quartiles": statistics.quantiles(steps, n=4),
            "bytes sent in a step": getattr(ranks, "n_bytes_sent", 0) / len(clock.times),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
