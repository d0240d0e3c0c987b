"""Whether a baseline of bench_gpu.py computes what gpunn computes, up to rounding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gpu_baselines import Task, Weights
from made_samples import N_INPUTS


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
