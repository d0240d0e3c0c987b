"""The CPU with fused loops: what NumPy does in several calls, in one pass over memory.

Products stay with the BLAS, and the formulas of `NumpyBackend` stay the reference: whatever a loop
is not made for, such as an activation of a user's own or an array with gaps, goes to them.
"""

# The contract takes any device's arrays, and this device its own alone.
# mypy: disable-error-code="override"

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.activations import EXP, IDENTITY, RELU, SIGMOID, SOFTMAX, TANH, Activation
from gpunn.backends.base import AdamStep, Number
from gpunn.backends.numba_library import Library
from gpunn.backends.numpy_backend import GOLDEN, NumpyBackend
from gpunn.backends.numpy_pieces import PIECE, WORTH_SHARING, share
from gpunn.losses import (
    ABSOLUTE_ERROR,
    BINARY_CROSS_ENTROPY,
    BINARY_LOG_LOSS,
    CROSS_ENTROPY,
    LOG_LOSS,
    MEAN_SQUARED_ERROR,
    SQUARED_ERROR,
    SUM_OF_SQUARES,
    Loss,
)

Values = NDArray[Any]

SHARED = WORTH_SHARING * PIECE
"""Arrays of fewer numbers are not worth waking another thread for."""

_FLOAT64 = np.dtype(np.float64)

ELEMENTWISE = frozenset((SIGMOID, TANH, RELU, IDENTITY, EXP))
"""The very records that there are loops for: one of a user's own may have the same name."""
SIMPLE_LOSSES = frozenset((SQUARED_ERROR, SUM_OF_SQUARES, MEAN_SQUARED_ERROR, ABSOLUTE_ERROR))
SOFTMAX_LOSSES = frozenset((CROSS_ENTROPY, LOG_LOSS))
SIGMOID_LOSSES = frozenset((BINARY_CROSS_ENTROPY, BINARY_LOG_LOSS))


def _suit(out: Values, *others: Values) -> bool:
    """Say whether a loop may write to one array and read the others, all alike.

    They must be row-major and aligned floats. A loop sees no more of an array than where it is.
    """
    dtype, shape = out.dtype, out.shape
    if dtype.char not in "fd" or not out.flags.carray:  # which says that it is writeable, too
        return False
    for other in others:
        flags = other.flags
        if other.shape != shape or other.dtype != dtype:
            return False
        if not (flags.c_contiguous and flags.aligned):
            return False
    return True


def _is_vector(array: Values | None, size: int, dtype: np.dtype[Any]) -> bool:
    """Say whether a loop may read so many numbers of a dtype, or need not read any."""
    if array is None:
        return True
    flags = array.flags
    return array.shape == (size,) and array.dtype == dtype and flags.c_contiguous and flags.aligned


def _loop_of_loss(activation: Activation, loss: Loss) -> str | None:
    """Return the name of the loop for the outputs' activation and loss, if there is one."""
    if activation is SOFTMAX and loss in SOFTMAX_LOSSES:
        return f"softmax_backward:{loss.name}"
    if activation is SIGMOID and loss in SIGMOID_LOSSES:
        return f"sigmoid_backward:{loss.name}"
    if activation in (SIGMOID, IDENTITY) and loss in SIMPLE_LOSSES:
        return f"loss_backward:{activation.name}:{loss.name}"
    return None


class NumbaBackend(NumpyBackend):
    """The contract of `Backend` on the CPU, with loops that Numba has compiled."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = Library()

    def describe(self) -> str:
        return f"cpu (NumPy {np.__version__}, fused loops)"

    def activate(self, z: Values, bias: Values | None, activation: Activation) -> None:
        loop = None
        n, width = z.shape
        if activation in ELEMENTWISE and _suit(z) and _is_vector(bias, width, z.dtype):
            loop = self._loop(f"activate:{activation.name}", z.dtype.char)
        if loop is None:
            super().activate(z, bias, activation)
            return
        if bias is None and activation is IDENTITY:
            return
        biased = bias is not None
        places = id(z), id(bias if biased else z)
        if z.size < SHARED:
            loop(*places, 0, n, width, biased)
        else:
            share(n, z.size, lambda a, b: loop(*places, a, b, width, biased), self._blas)

    def activation_backward(self, delta: Values, a: Values, activation: Activation) -> None:
        loop = None
        if activation in ELEMENTWISE and _suit(delta, a):
            loop = self._loop(f"activation_backward:{activation.name}", delta.dtype.char)
        if loop is None:
            super().activation_backward(delta, a, activation)
        elif activation is not IDENTITY:
            self._elementwise(loop, (delta, a))

    def axpby(self, source: Values, out: Values, *, alpha: float, beta: float) -> None:
        loop = None
        if _suit(out, source):
            loop = self._loop("axpby", out.dtype.char)
        if loop is None:
            super().axpby(source, out, alpha=alpha, beta=beta)
        else:
            self._elementwise(loop, (source, out), alpha, beta)

    def dropout(
        self,
        a: Values,
        *,
        dropout_rate: float,
        scale: float,
        key: int,
        first: int = 0,
        skipped: int = 0,
    ) -> None:
        loop = self._loop("dropout", a.dtype.char) if _suit(a) and not skipped else None
        if loop is None:
            super().dropout(
                a, dropout_rate=dropout_rate, scale=scale, key=key, first=first, skipped=skipped
            )
        else:
            # Places count from 0 in the loop; where the first one is, is a part of the key.
            key = (key + first * GOLDEN) % 2**32
            self._elementwise(loop, (a,), key, int(dropout_rate * 2**32), scale)

    def adam_update(
        self,
        parameter: Values,
        gradient: Values,
        first_moment: Values,
        second_moment: Values,
        step: AdamStep,
    ) -> None:
        arrays = parameter, gradient, first_moment, second_moment
        loop = None
        if _suit(*arrays) and _suit(first_moment) and _suit(second_moment):
            loop = self._loop("adam_update", parameter.dtype.char)
        if loop is None:
            super().adam_update(*arrays, step)
        else:
            self._elementwise(loop, arrays, *step)

    def loss_backward(
        self,
        z: Values,
        bias: Values | None,
        targets: Values,
        activation: Activation,
        loss: Loss,
        row_losses: NDArray[Any],
        row_weights: Values | None = None,
        scale: Number = 1.0,
    ) -> None:
        name, loop = _loop_of_loss(activation, loss), None
        n, width = z.shape
        if (
            name is not None
            and width > 0
            and _suit(z, targets)
            and _is_vector(bias, width, z.dtype)
            and _is_vector(row_weights, n, z.dtype)
            and _is_vector(row_losses, n, _FLOAT64)
            and row_losses.flags.writeable
        ):
            loop = self._loop(name, z.dtype.char)
        if loop is None:
            super().loss_backward(
                z, bias, targets, activation, loss, row_losses, row_weights, scale
            )
            return
        biased, weighted = bias is not None, row_weights is not None
        arrays = [z, z if bias is None else bias, targets, row_losses]
        arrays.append(z if row_weights is None else row_weights)
        numbers = [float(scale)]
        if loss in SIMPLE_LOSSES:
            numbers = [loss.share(width), *numbers]
        else:
            arrays.append(self._scratch(z))
        loop(*map(id, arrays), 0, n, width, *numbers, biased, weighted)

    def _elementwise(self, loop: Any, arrays: tuple[Values, ...], *numbers: float) -> None:
        """Go through arrays of one shape, on all threads where they are long."""
        places, size = [id(array) for array in arrays], arrays[0].size
        if size < SHARED:
            loop(*places, 0, size, *numbers)
        else:
            share(size, size, lambda a, b: loop(*places, a, b, *numbers), self._blas)
