"""Whether a baseline of bench_gpu.py computes what gpunn computes, up to rounding."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpu_task import Task, Weights
from made_samples import N_INPUTS

ROUNDINGS = 12
"""How often a step of one hidden layer rounds on the way from weights to their gradient: inputs,
weights, sums and activations of the hidden layer; weights, sums and deltas of the outputs; weights
again, deltas of the hidden layer twice, gradient, and the biases."""
UNIT = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8}
"""The most by which a rounding changes a number, relative to it: half a place of the last bit of
24, 11 and 8."""


def allowed_difference(task: Task, n_steps: int, start: Any, change: Any) -> float:
    """Return how far two ways of training may be apart, relative to the change of an array.

    On each side a step rounds `ROUNDINGS` times for each hidden layer, by a unit roundoff u at
    most. Each number is rounded by itself, so that over an array the squares of errors add up; a
    sigmoid of a sum, and the difference between output and target, may double what came in:
    2 sqrt(2 x 12 L) u. Sums of K numbers have an error of K 2^-24 at most; each step stores each
    weight rounded to float32, which counts more the less the weights have moved. Adam divides by
    1 - 0.999^t, which float32 knows to 2^-24 / 0.001. Another loss or rule is off by a multiple of
    the change.
    """
    rounded = 2 * math.sqrt(2 * ROUNDINGS * len(task.hidden)) * UNIT[task.precision]
    sums = max(N_INPUTS, *task.hidden, task.batch) * 2.0**-24
    stored = n_steps * 2.0**-23 * norm(start) / norm(change)
    adam = 2.0**-24 / 0.001 if task.optimizer == "adam" else 0.0
    return float(rounded + sums + stored + adam)


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


def dropout_agreement(n_samples: int, ours: float, theirs: float) -> dict[str, Any]:
    """Return by how much another's first mean loss with dropout differs from gpunn's.

    Each sample has units of its own that sit out, which changes its loss by a third at most; so
    three deviations of the mean are 1 / sqrt(n). The weights learnt so far add a hundredth. On a
    CPU, the losses of 784-1024-1024-10 differed by 0.002 in 20 steps of 256, of which 0.024 is
    allowed; to leave nothing out changed them by 0.05, and to leave out three quarters instead of a
    half by 0.11.
    """
    difference, allowed = abs(theirs - ours) / abs(ours), 0.01 + n_samples**-0.5
    return {
        "loss_with_dropout": (difference, allowed),
        "same_with_dropout": difference <= allowed,
    }
