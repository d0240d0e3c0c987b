"""One sample at a time on the CPU, fused: the runs of a block's samples in one call each."""

# The contract takes any device's arrays, and this device its own alone.
# mypy: disable-error-code="override"

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.activations import IDENTITY, RELU, SIGMOID, SOFTMAX, TANH
from gpunn.backends.fused import FusedModel
from gpunn.backends.numba_library import Loop
from gpunn.backends.numpy_blas import Blas
from gpunn.backends.numpy_online import WIDE, NumpySequencer
from gpunn.losses import (
    ABSOLUTE_ERROR,
    BINARY_CROSS_ENTROPY,
    BINARY_LOG_LOSS,
    CROSS_ENTROPY,
    LOG_LOSS,
    MEAN_SQUARED_ERROR,
    SQUARED_ERROR,
    SUM_OF_SQUARES,
)

Values = NDArray[Any]

ELEMENTWISE = (SIGMOID, TANH, RELU, IDENTITY)
LOSSES = (SQUARED_ERROR, SUM_OF_SQUARES, MEAN_SQUARED_ERROR, ABSOLUTE_ERROR)
FUSED = (BINARY_CROSS_ENTROPY, BINARY_LOG_LOSS)
SOFTMAX_LOSSES = (CROSS_ENTROPY, LOG_LOSS)


def name_of_run(model: FusedModel) -> str | None:
    """Return the name of the loop for a network; None if there is none."""
    hidden, top = model.hidden.activation, model.top.activation
    rule, loss = "textbook" if model.textbook_rule else "gradient", model.loss
    known = (
        (top in ELEMENTWISE and loss in LOSSES)
        or (top is SIGMOID and loss in FUSED)
        or (top is SOFTMAX and loss in SOFTMAX_LOSSES and not model.textbook_rule)
    )
    if hidden not in ELEMENTWISE or not known or model.hidden.weights.shape[0] >= WIDE:
        return None
    return f"learn_run:{hidden.name}:{top.name}:{loss.name}:{rule}"


class NumbaSequencer(NumpySequencer):
    """The contract of `Sequencer`, with a compiled loop for the runs."""

    def __init__(self, blas: Blas, n_rows: int, model: FusedModel, loop: Loop) -> None:
        super().__init__(blas, n_rows, model)
        self._loop = loop
        self._taught = np.empty(2 * self._outputs.size, self._outputs.dtype)

    def _learn_run(self, start: int, stop: int, targets: Values, scale: float) -> None:
        done = self._loop(
            self.z,
            self.deltas,
            self._products,
            self._tops,
            np.ascontiguousarray(targets),
            self._top.weights,
            self._top.biases,
            self._taught,
            start,
            stop,
            scale,
            self._loss.share(targets.shape[1]),
        )
        if not done:
            super()._learn_run(start, stop, targets, scale)
