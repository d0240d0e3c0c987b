"""The formulas of activations and losses as functions of whole matrices, samples as rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.activations import Activation

Values = NDArray[Any]


def apply(activation: Activation, z: Values) -> Values:
    """Return f(z) as a new array."""
    a: Values = np.array(z)
    with np.errstate(over="ignore"):
        activation.forward(a, np.empty_like(a))
    return a


def slope_of(activation: Activation, a: Values) -> Values:
    """Return f' from a."""
    slope = np.ones_like(a)
    activation.backward(slope, a, np.empty_like(a))
    return slope


def columnwise(formula: Any, x: Values, targets: Values) -> Values:
    """Return a loss's formula for samples as rows."""
    out = np.empty(x.shape[::-1])
    scratch = np.empty((x.shape[1] + 1, x.shape[0]))
    formula(np.ascontiguousarray(x.T), np.ascontiguousarray(targets.T), out, scratch)
    return out.T


def softmax_spread(a: Values, errors: Values) -> Values:
    """Return how far softmax's outputs may be off for arguments that are.

    An output is largest when its own sum is as high, and all others are as low, as they may be.
    """
    # Beyond 50, any output may be anything.
    up, down = np.exp(np.minimum(errors, 50)), np.exp(-np.minimum(errors, 50))
    rest_low = np.maximum((a * down).sum(axis=1, keepdims=True) - a * down, 0)
    rest_high = np.maximum((a * up).sum(axis=1, keepdims=True) - a * up, 0)
    highest = a * up / (a * up + rest_low)
    lowest = a * down / (a * down + rest_high)
    spread: Values = np.maximum(highest - a, a - lowest)
    return np.where(a > 0, spread, 0.0)
