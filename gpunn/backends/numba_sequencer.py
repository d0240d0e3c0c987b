"""One sample at a time on the CPU, fused: the runs of a block's samples in one call each."""

# The contract takes any device's arrays, and this device its own alone.
# mypy: disable-error-code="override"

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.fused import FusedModel
from gpunn.backends.numba_library import Loop
from gpunn.backends.numpy_blas import Blas
from gpunn.backends.numpy_online import NumpySequencer

Values = NDArray[Any]


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
