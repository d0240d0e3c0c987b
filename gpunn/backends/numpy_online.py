"""One sample at a time on the CPU, fused: the ordered part of `gpunn.training.online` in few calls.

For a hidden layer of a few hundred units a sample is so little arithmetic that calls cost more than
numbers. So this loop calls BLAS and the formulas directly, on views of rows that are made once,
with nothing in between.

For wide hidden layers the corrections matter too: a sample's is a product of a vector with all the
deltas before it in the block. So the block is cut into short runs. The deltas of the runs before
are corrected for with one matrix product for the whole run, and only those of its own run one by
one.
"""

# The contract takes any device's arrays, and this device its own alone.
# mypy: disable-error-code="override"

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.activations import SIGMOID, Activation
from gpunn.backends.fused import FusedModel, Sequencer
from gpunn.backends.numpy_blas import Blas

Values = NDArray[Any]

RUN = 16
"""Samples in a run."""

WIDE = 16_384
"""From so many hidden units on, BLAS's own threads are a help in a single sample's products."""

SHORT = 256
"""Up to so many units SciPy's sigmoid, in one call, beats NumPy's faster exp in four."""


class _Row(NamedTuple):
    """Views of what belongs to one sample of a block."""

    a: Values  # (n_1,): z, then the hidden activations
    delta: Values  # (n_1,)
    before: Values  # (n_1, k): the deltas before it in its run, column-major
    products: Values  # (k,): its inputs' dot products with theirs
    top: Values  # (n_2,): z of the outputs, then the outputs


def _row_formula(activation: Activation, width: int) -> Callable[[Values, Values], None]:
    """Return what turns a row of so many z into a, in place, in the least time."""
    if activation is not SIGMOID or width > SHORT:
        return activation.forward
    from scipy.special import expit

    def sigmoid(z: Values, scratch: Values) -> None:
        expit(z, z)

    return sigmoid


class NumpySequencer(Sequencer):
    """The contract of `Sequencer` on the CPU."""

    def __init__(self, blas: Blas, n_rows: int, model: FusedModel) -> None:
        hidden, top, self._loss, self._textbook_rule = model
        self._blas = blas
        self._hidden: Any = hidden  # whose arrays are NumPy's
        self._top: Any = top
        n_outputs, n_hidden = top.weights.shape
        dtype = top.weights.dtype
        self.z: Values = np.empty((n_rows, n_hidden), dtype)
        self.deltas: Values = np.empty((n_rows, n_hidden), dtype)
        self._tops = np.empty((n_rows, n_outputs), dtype)
        self._products = np.empty((n_rows, n_rows), dtype)
        self._scratch = np.empty(n_hidden, dtype)
        self._outputs = np.empty(n_outputs, dtype)
        self._delta_top = np.empty(n_outputs, dtype)
        self._step_top = np.empty(n_outputs, dtype)
        self._scratch_top = np.empty(n_outputs + 1, dtype)
        self._earlier = np.empty(RUN * n_rows, dtype)
        # Samples as columns, for a whole block's errors at once: z or outputs, targets, and shares.
        self._columns = np.empty((3, n_outputs, n_rows), dtype)
        self._scratch_columns = np.empty((n_outputs + 1, n_rows), dtype)
        self._sums = np.empty(n_rows)
        self._activate = _row_formula(hidden.activation, n_hidden)
        self._activate_top = _row_formula(top.activation, n_outputs)
        self._rows = [self._row(t) for t in range(n_rows)]

    def _row(self, t: int) -> _Row:
        first = t - t % RUN
        # Rows of the run so far, transposed: a column-major matrix to BLAS, and no copy.
        return _Row(
            self.z[t],
            self.deltas[t],
            self.deltas[first:t].T,
            self._products[t, first:t],
            self._tops[t],
        )

    def prepare(self, inputs: Values) -> None:
        self._multiply_inputs(inputs)

    def learn(
        self,
        inputs: Values,
        targets: Values,
        scale: float | Values,
        row_losses: Values,
        outputs: Values | None,
    ) -> None:
        n_rows, scale = len(inputs), float(np.asarray(scale).item())
        if self._hidden.biases is not None:
            np.add(self.z[:n_rows], self._hidden.biases, out=self.z[:n_rows])
        with np.errstate(over="ignore", invalid="ignore"):
            if self.z.shape[1] < WIDE:
                with self._blas.one_thread():
                    self._learn_runs(targets, scale, outputs)
            else:
                self._learn_runs(targets, scale, outputs)
            self._add_errors(targets, row_losses)

    def _add_errors(self, targets: Values, row_losses: Values) -> None:
        n_rows = len(targets)
        tops, columns, out = self._columns[..., :n_rows]
        np.copyto(tops, self._tops[:n_rows].T)
        np.copyto(columns, targets.T)
        scratch, sums = self._scratch_columns[:, :n_rows], self._sums[:n_rows]
        self._loss.add_losses(tops, columns, row_losses, out, scratch, sums)

    def _multiply_inputs(self, inputs: Values) -> None:
        """Fill the dot products of all inputs, plus 1 for the input of the biases."""
        n_rows = len(inputs)
        whole = n_rows == len(self._products)
        products = self._products if whole else np.empty((n_rows, n_rows), inputs.dtype)
        beta = 0.0
        if self._hidden.biases is not None:
            products.fill(1)
            beta = 1.0
        self._blas.gemm(inputs, inputs, products, False, True, 1.0, beta)
        if not whole:
            self._products[:n_rows, :n_rows] = products

    def _learn_runs(self, targets: Values, scale: float, outputs: Values | None) -> None:
        for start in range(0, len(targets), RUN):
            stop = min(start + RUN, len(targets))
            if start:
                # Z <- Z - scale G D for the whole run; G's part must be contiguous for that.
                products = self._earlier[: (stop - start) * start].reshape(stop - start, start)
                np.copyto(products, self._products[start:stop, :start])
                self._blas.gemm(
                    products, self.deltas[:start], self.z[start:stop], False, False, -scale, 1.0
                )
            self._learn_run(start, stop, targets, scale)
            if outputs is not None:
                outputs[start:stop] = self._tops[start:stop]
                if self._loss.fused:
                    for row in outputs[start:stop]:
                        self._top.activation.forward(row, self._scratch_top[:-1])

    def _learn_run(self, start: int, stop: int, targets: Values, scale: float) -> None:
        # SciPy's wrappers take long over keywords, for products as small as these; hence the bare
        # numbers. They are
        #     gemv(alpha, A, x, beta, y, offset x, stride x, offset y, stride y, transpose, write y)
        #     ger(alpha, x, y, stride x, stride y, A, write x, write y, write A)
        # where "write" means that the result may be written to the array itself, not to a copy; ger
        # changes neither x nor y. Matrices must be column-major, or they are copied all the same.
        code = targets.dtype.char
        blas, loss = self._blas.scipys, self._loss
        gemv, ger = blas.gemv[code], blas.ger[code]
        activate, go_back = self._activate, self._hidden.activation.backward
        activate_top, go_back_top = self._activate_top, self._top.activation.backward
        # Row-major (n_2, n_1) weights are column-major (n_1, n_2) ones, so that `weights` is W_2^T.
        weights, biases = self._top.weights.T, self._top.biases
        scratch, textbook_rule = self._scratch, self._textbook_rule
        delta_top, step_top = self._delta_top, self._step_top
        scratch_top, longer_scratch = self._scratch_top[:-1], self._scratch_top
        fused, derivative = loss.fused, loss.derivative
        share = loss.share(targets.shape[1])
        rows = zip(self._rows[start:stop], targets[start:stop], strict=True)
        for (a, delta, before, products, o), target in rows:
            if len(products):  # z <- z - scale D^T (X x)
                gemv(-scale, before, products, 1.0, a, 0, 1, 0, 1, 0, 1)
            activate(a, scratch)
            gemv(1.0, weights, a, 0.0, o, 0, 1, 0, 1, 1, 1)  # o = W_2 a, W_2 being transposed
            if biases is not None:
                np.add(o, biases, o)
            if fused:
                np.copyto(self._outputs, o)  # the loss is computed from z, which stays in its row
                o = self._outputs
            activate_top(o, scratch_top)
            if textbook_rule:
                np.subtract(o, target, delta_top)
                gemv(1.0, weights, delta_top, 0.0, delta, 0, 1, 0, 1, 0, 1)  # W_2^T (o - t)
                go_back_top(delta_top, o, scratch_top)
            else:
                derivative(o, target, delta_top, longer_scratch)
                if share != 1.0:
                    np.multiply(delta_top, share, out=delta_top)
                if not fused:
                    go_back_top(delta_top, o, scratch_top)
                gemv(1.0, weights, delta_top, 0.0, delta, 0, 1, 0, 1, 0, 1)  # W_2^T D_2
            ger(-scale, a, delta_top, 1, 1, weights, 1, 1, 1)  # W_2 <- W_2 - scale D_2 a^T
            if biases is not None:
                np.multiply(delta_top, scale, step_top)
                np.subtract(biases, step_top, biases)
            go_back(delta, a, scratch)
