"""The CPU with fused loops: what NumPy does in several calls, in one pass over memory.

Large products stay with the BLAS, and the formulas of `NumpyBackend` stay the reference: whatever a
loop is not made for, such as an activation of a user's own or an array with gaps, goes to them.
"""

# The contract takes any device's arrays, and this device its own alone.
# mypy: disable-error-code="override"

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.activations import Activation
from gpunn.backends.base import AdamStep, Number
from gpunn.backends.fused import FusedModel, Sequencer
from gpunn.backends.numba_blas import numpys_blas
from gpunn.backends.numba_library import Library, Loop, nothing
from gpunn.backends.numba_names import (
    ACTIVATE,
    GO_BACK,
    SIMPLE_LOSSES,
    loop_of_loss,
    loop_of_run,
)
from gpunn.backends.numba_sequencer import NumbaSequencer
from gpunn.backends.numpy_backend import GOLDEN, NumpyBackend
from gpunn.backends.numpy_online import NumpySequencer
from gpunn.backends.numpy_pieces import LINE, PIECE, WORTH_SHARING, share
from gpunn.backends.sparse_rows import SparseRows
from gpunn.losses import Loss

Values = NDArray[Any]

SHARED = WORTH_SHARING * PIECE
"""Arrays of fewer numbers are not worth waking another thread for."""


class NumbaBackend(NumpyBackend):
    """The contract of `Backend` on the CPU, with loops that Numba has compiled."""

    def __init__(self) -> None:
        self._loop = Library()
        super().__init__(numpys_blas(self._loop))

    def describe(self) -> str:
        return f"cpu (NumPy {np.__version__}, fused loops)"

    def _add_sums(
        self, rows: SparseRows, weights: Values, out: Values, alpha: float, beta: float
    ) -> None:
        if not self._do_units("sparse_sums", rows, (weights, out), alpha, beta):
            super()._add_sums(rows, weights, out, alpha, beta)

    def _add_gradient(
        self, delta: Values, rows: SparseRows, out: Values, alpha: float, beta: float
    ) -> None:
        if not self._do_units("sparse_gradient", rows, (out, delta), alpha, beta):
            super()._add_gradient(delta, rows, out, alpha, beta)

    def _do_units(
        self, name: str, rows: SparseRows, arrays: tuple[Values, Values], *factors: float
    ) -> int:
        """Run a loop over the hidden units; see `_do`."""
        loop, n_units = self._loop(name, rows.dtype.char), len(arrays[0])
        return self._share(
            loop, n_units, n_units * rows.n_numbers, (*rows.arrays, *arrays), factors
        )

    def activate(self, z: Values, bias: Values | None, activation: Activation) -> None:
        name = ACTIVATE.get(activation)
        if name is None or not self._do(name, len(z), (z, bias)):
            super().activate(z, bias, activation)

    def activation_backward(self, delta: Values, a: Values, activation: Activation) -> None:
        name = GO_BACK.get(activation)
        if name is None or not self._do(name, delta.size, (delta, a)):
            super().activation_backward(delta, a, activation)

    def axpby(self, source: Values, out: Values, *, alpha: float, beta: float) -> None:
        if not self._do("axpby", out.size, (source, out), alpha, beta):
            super().axpby(source, out, alpha=alpha, beta=beta)

    def sum_rows(self, a: Values, out: Values, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        if not self._loop("sum_rows", a.dtype.char)(a, out, alpha, beta):
            super().sum_rows(a, out, alpha=alpha, beta=beta)

    def make_sequencer(self, n_rows: int, model: FusedModel) -> Sequencer | None:
        name = loop_of_run(model)
        loop = nothing if name is None else self._loop(name, model.top.weights.dtype.char)
        if loop is not nothing:
            return NumbaSequencer(self._blas, n_rows, model, loop)
        return NumpySequencer(self._blas.scipys, n_rows, model)

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
        # Places count from 0 in the loop; where the first one is, is a part of the key.
        place = (int(key) + first * GOLDEN) % 2**32, int(dropout_rate * 2**32)
        if skipped or not self._do("dropout", a.size, (a,), *place, scale):
            super().dropout(
                a, dropout_rate=dropout_rate, scale=scale, key=key, first=first, skipped=skipped
            )

    def adam_update(
        self,
        parameter: Values,
        gradient: Values,
        first_moment: Values,
        second_moment: Values,
        step: AdamStep,
    ) -> None:
        arrays = parameter, gradient, first_moment, second_moment
        if not self._do("adam_update", parameter.size, arrays, *step):
            super().adam_update(*arrays, step)

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
        arrays = [z, bias, targets, row_losses, row_weights]
        numbers = [scale]
        if loss in SIMPLE_LOSSES:
            numbers = [loss.share(z.shape[1]), scale]
        else:
            arrays.append(self._scratch(z))
        name = loop_of_loss(activation, loss)
        if name is None or not self._loop(name, z.dtype.char)(*arrays, *numbers):
            super().loss_backward(
                z, bias, targets, activation, loss, row_losses, row_weights, scale
            )

    def _do(self, name: str, n: int, arrays: tuple[Any, ...], *numbers: float) -> int:
        """Run a loop over n rows or numbers, on all threads where they are many.

        Returns 0, and has done nothing, if there is none, or it is not made for these arrays.
        """
        first = arrays[0]
        return self._share(self._loop(name, first.dtype.char), n, first.size, arrays, numbers)

    def _share(
        self,
        loop: Loop,
        n: int,
        size: int,
        arrays: tuple[Any, ...],
        numbers: tuple[float, ...],
    ) -> int:
        if size < SHARED:
            return loop(*arrays, 0, n, *numbers)
        if not loop(*arrays, 0, 0, *numbers):  # With nothing to do it only looks at its arrays.
            return 0
        unit = LINE if n == size else 1
        share(n, lambda a, b: loop(*arrays, a, b, *numbers), self._blas, unit)
        return 1
