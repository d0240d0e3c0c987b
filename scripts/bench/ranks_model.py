"""What ranks gain: a cost model, fitted to measured steps and extended to many GPUs.

    python scripts/bench/ranks_model.py docs/benchmarks/ranks.jsonl --out docs/pictures/scaling.png

reads what `ranks_step.py` has printed, fits seconds a step = products / rate + latency x hops +
bytes / bandwidth, and draws weak and strong scaling beside data parallelism. `docs/scaling.md` says
what the numbers mean.
"""

import json
import math
import os
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

N_INPUTS, N_OUTPUTS = 784, 10


@dataclass(frozen=True)
class Machine:
    """Rates of a machine: operations and bytes of memory a second, seconds a hop, bytes a second.

    Up to `inside` ranks are within a machine, and talk over the first of two links.
    """

    rate: float
    memory: float
    latencies: tuple[float, float]
    bandwidths: tuple[float, float]
    inside: int = 8


H100 = Machine(67e12, 3.35e12, (5e-6, 10e-6), (450e9, 50e9))
"""Operations in float32, memory and links as NVIDIA states them; the latencies are assumptions."""


def operations(hidden: int, batch: int) -> float:
    """Return the operations of a step: two products with W_1, three with W_2, two for each."""
    return 2.0 * batch * hidden * (2 * N_INPUTS + 3 * N_OUTPUTS)


def compute(machine: Machine, hidden: int, batch: int) -> float:
    """Return the seconds that a rank computes: W_1 is read twice and written once, at least."""
    moved = 3 * 4 * hidden * (N_INPUTS + N_OUTPUTS)
    return max(operations(hidden, batch) / machine.rate, moved / machine.memory)


def exchange(machine: Machine, n_ranks: int, n_bytes: float) -> float:
    """Return the seconds of a sum over ranks: 2 log2(P) hops, and 2 (P - 1) / P of the bytes."""
    if n_ranks == 1:
        return 0.0
    outside = n_ranks > machine.inside
    inner = math.log2(min(n_ranks, machine.inside))
    outer = math.log2(n_ranks / machine.inside) if outside else 0.0
    hops = 2 * (inner * machine.latencies[0] + outer * machine.latencies[1])
    return hops + 2 * (n_ranks - 1) / n_ranks * n_bytes / machine.bandwidths[outside]


def step(machine: Machine, n_ranks: int, hidden: int, batch: int, kind: str) -> float:
    """Return the seconds of a step whose ranks share units ("hidden") or samples ("data")."""
    if kind == "hidden":
        sums = 4.0 * batch * N_OUTPUTS
        share = -(-hidden // n_ranks)
        return compute(machine, share, batch) + exchange(machine, n_ranks, sums)
    gradients = 4.0 * hidden * (N_INPUTS + N_OUTPUTS + 1)
    moved = compute(machine, hidden, -(-batch // n_ranks))
    return moved + exchange(machine, n_ranks, gradients)


class Fit(NamedTuple):
    """A core's operations and a link's bytes a second, seconds a hop, each step over the model."""

    rate: float
    latency: float
    bandwidth: float
    shares: list[float]


def fit(lines: list[dict[str, float]], n_cores: int) -> Fit:
    """Fit the model to steps; more ranks than cores take turns, and compute no faster for it."""

    def row(line: dict[str, float]) -> list[float]:
        busy = min(line["ranks"], n_cores)
        products = operations(int(line["hidden"]), int(line["batch size"])) / busy
        return [products, 2 * math.log2(line["ranks"]), line["bytes sent in a step"]]

    rows, seconds = np.array([row(a) for a in lines]), np.array([a["fastest"] for a in lines])
    # Each step counts by its relative error; nothing takes less than no time.
    scale = rows.max(axis=0)
    found = nnls(rows / scale / seconds[:, None], np.ones(len(rows)))[0] / scale
    with np.errstate(divide="ignore"):
        rate, bandwidth = 1 / found[0], 1 / found[2]
    return Fit(rate, found[1], bandwidth, (seconds / (rows @ found)).tolist())


def draw(out: Path, batch: int) -> None:
    from gpunn.plots.figures import new_figure, save_figure

    ranks = [2**k for k in range(11)]
    figure = new_figure((10, 4))
    left, right = figure.subplots(1, 2)
    for kind, label in (("hidden", "hidden units shared"), ("data", "samples shared")):
        whole = 2**24
        alone = step(H100, 1, whole, batch, kind)
        gains = [alone / step(H100, n, whole, batch, kind) for n in ranks]
        left.plot(ranks, gains, marker="o", label=label)
        times = [1e3 * step(H100, n, 2**20 * n, batch, kind) for n in ranks]
        right.plot(ranks, times, marker="o", label=label)
    left.plot(ranks, ranks, color="grey", linewidth=1, label="ideal")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel("GPUs")
        axis.legend()
    left.set_title(f"16.8 million hidden units, batch {batch}")
    left.set_ylabel("times as fast as one")
    right.set_title(f"1.05 million hidden units a GPU, batch {batch}")
    right.set_ylabel("milliseconds a step")
    save_figure(figure, out)


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path, help="lines of JSON that ranks_step.py printed")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="of the machine")
    parser.add_argument("--batch-size", type=int, default=256, help="of the extension to GPUs")
    parser.add_argument("--out", type=Path, help="where to draw weak and strong scaling")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.measured.read_text().splitlines()]
    found = fit(lines, options.cores)
    print(
        f"a core does {found.rate / 1e9:.1f} GFLOP/s in float32; a hop takes "
        f"{1e6 * found.latency:.0f} us; a rank sends {found.bandwidth / 1e9:.2f} GB/s"
    )
    for line, share in zip(lines, found.shares, strict=True):
        print(
            f"{line['ranks']} ranks, {line['hidden']:>7,} units, batch {line['batch size']:>3}, "
            f"{line['parallel']:<6}: "
            f"{1e3 * line['fastest']:>8.2f} ms, {share:.2f} of the model"
        )
    print("GPUs, hidden shared: ms, times as fast; samples shared: ms, times as fast")
    for n in (1, 2, 4, 8, 16, 64, 256, 1024):
        row = [step(H100, n, 2**24, options.batch_size, kind) for kind in ("hidden", "data")]
        ones = [step(H100, 1, 2**24, options.batch_size, kind) for kind in ("hidden", "data")]
        cells = [f"{1e3 * t:9.3f} {one / t:7.1f}" for t, one in zip(row, ones, strict=True)]
        print(f"{n:>5} {' '.join(cells)}")
    if options.out:
        draw(options.out, options.batch_size)


if __name__ == "__main__":
    main()
