"""One sample at a time on the CPU: the part of `gpunn.online` that goes in order, in few calls.

For a hidden layer of a few hundred units a sample is so little arithmetic that calls cost more than
numbers. So this loop calls BLAS and the formulas directly, on rows, with nothing in between.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend import Connections
from gpunn.losses import Loss

Values = NDArray[Any]
Blas = Callable[..., Any]


def learn_in_order(
    gemv: Blas,
    ger: Blas,
    z: Values,
    products: Values,
    deltas: Values,
    targets: Values,
    hidden: Connections,
    top: Connections,
    loss: Loss,
    rate: float,
    *,
    textbook_rule: bool,
    row_losses: Values,
    outputs: Values | None,
) -> None:
    """Do what `gpunn.backend.Backend.learn_in_order` says, with BLAS's gemv and ger."""
    activate, go_back = hidden.activation.forward, hidden.activation.backward
    activate_top, go_back_top = top.activation.forward, top.activation.backward
    weights, biases = top.weights.T, top.biases  # W_2^T, column-major as BLAS has it
    share = 1 / targets.shape[1] if loss.mean_over_outputs else 1.0
    scratch, scratch_top = np.empty_like(z[0]), np.empty_like(targets[:1])
    tops = np.empty_like(targets)  # z of the outputs if the loss is fused, else a
    if hidden.biases is not None:
        np.add(z, hidden.biases, out=z)
    for t, (a, delta) in enumerate(zip(z, deltas, strict=True)):
        if t:  # z_t <- z_t - rate D^T (X x_t)
            gemv(-rate, deltas[:t].T, products[t, :t], 1.0, a, 0, 1, 0, 1, 0, 1)
        activate(a)
        o, target = tops[t : t + 1], targets[t : t + 1]
        gemv(1.0, weights, a, 0.0, o[0], 0, 1, 0, 1, 1, 1)  # o = W_2 a
        if biases is not None:
            np.add(o, biases, o)
        if loss.fused:
            o = o.copy()
        activate_top(o)
        if outputs is not None:
            outputs[t] = o[0]
        if textbook_rule:
            delta_top = o - target
            gemv(1.0, weights, delta_top[0], 0.0, delta, 0, 1, 0, 1, 0, 1)  # W_2^T (o - t)
            go_back_top(delta_top, o, scratch_top)
        else:
            delta_top = loss.derivative(o, target)
            if not loss.fused:
                if share != 1.0:
                    np.multiply(delta_top, share, out=delta_top)
                go_back_top(delta_top, o, scratch_top)
            gemv(1.0, weights, delta_top[0], 0.0, delta, 0, 1, 0, 1, 0, 1)  # W_2^T D_2
        ger(-rate, a, delta_top[0], 1, 1, weights, 1, 1, 1)  # W_2 <- W_2 - rate D_2 a^T
        if biases is not None:
            np.subtract(biases, rate * delta_top[0], out=biases)
        go_back(delta, a, scratch)
    row_losses += share * loss.value(tops, targets).sum(axis=1, dtype=np.float64)
