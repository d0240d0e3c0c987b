"""The way forward: from inputs to outputs, through a network's layers.

One row per sample. ``Z_l = A_{l-1} W_l^T + b_l`` and ``A_l = f_l(Z_l)``. The way back is in
`gpunn.network.network`.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backends.base import Array
from gpunn.data.matrices import row_blocks
from gpunn.network.files import StoredNetwork
from gpunn.network.layers import Step
from gpunn.parallel.alike import check_same_arrays

_WORK_NUMBERS = 2**22
"""Predictions go through the network in pieces of about this many numbers, 16 MiB in float32."""


class ForwardNetwork(StoredNetwork):
    """A network that predicts; see `gpunn.Network`, which can also learn."""

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the outputs for some inputs.

        Parameters
        ----------
        X : array_like, shape (n, n_0) or (n_0,)
            Inputs, scaled as in training, on the host or already on the device; one row for each
            sample, or a single sample. A data frame's column names must be `feature_names`.

        Returns
        -------
        ndarray, shape (n, n_L) or (n_L,)
            The outputs ``A_L``, on the host.

        Raises
        ------
        ShapeError
            If the inputs do not have n_0 columns.
        DataError
            If they are not numbers, or their columns have other names or another order.
        ParameterError
            If ranks that share the hidden units are given different inputs.

        Warns
        -----
        UserWarning
            If only the inputs have names, or only the network.
        """
        self.check_names(X)
        return self.predict_rows(X)

    def predict_rows(self, X: ArrayLike) -> NDArray[Any]:
        """Return what `predict` does, for a caller who has compared the names of columns already.

        Parameters
        ----------
        X : array_like, shape (n, n_0) or (n_0,)
            Inputs.

        Returns
        -------
        ndarray, shape (n, n_L) or (n_L,)
            The outputs, on the host.
        """
        inputs, single = self.check_rows(X, self.n_inputs, "inputs")
        check_same_arrays(self.sharing, self.backend, "what is predicted", inputs=inputs)
        n_rows = inputs.shape[0]
        outputs = self.backend.empty((min(n_rows, self.rows_at_once), self.n_outputs), self.dtype)
        host = np.empty((n_rows, self.n_outputs), self.dtype)
        for rows in row_blocks(n_rows, self.rows_at_once):
            # Piece by piece, because inputs on the host may be more than the device has room for.
            block = self.as_matrix(inputs[rows])
            out = outputs[: block.shape[0]]
            self.write_outputs(block, out)
            host[rows] = self.backend.to_host(out)
        return np.asarray(host[0]) if single else host

    @property
    def rows_at_once(self) -> int:
        """How many samples go forward at a time, so that their activations fit in memory."""
        return max(1, _WORK_NUMBERS // sum(self.sharing.largest_sizes))

    def _forward(self, inputs: Array) -> Array:
        """Return Z_L without its biases, in a work array."""
        return self._sum_outputs(self._forward_to_last(self._multiply(inputs, 0)))

    def _sum_outputs(self, z: Array, step: Step | None = None) -> Array:
        """Return Z_L without its biases for Z of the last hidden layer, which becomes A in place.

        Ranks that share the hidden units meet here, and nowhere else in a step: what each has
        summed over its own units is added up.
        """
        z = self._forward_one(z, len(self.layers) - 1, step)
        self._add_up(z)
        return z

    def _add_up(self, array: Array) -> None:
        """Change sums over this rank's hidden units in place to those over all."""
        if self.sharing.is_split:
            self.sharing.ranks.add_up(self.backend, array)

    def _forward_to_last(self, z: Array, step: Step | None = None) -> Array:
        """Return Z of the last hidden layer for Z_1, both without biases; A_1 takes its place."""
        for index in range(1, len(self.layers) - 1):
            z = self._forward_one(z, index, step)
        return z

    def _forward_one(self, z: Array, index: int, step: Step | None = None) -> Array:
        """Return Z of a layer for Z of the one below, which becomes A in place."""
        if index == 0:
            return z  # Of a single layer, the sums of the inputs are those of the outputs.
        below, dropout = self.layers[index - 1], None if step is None else step.dropout
        passes = self._passes.hidden(self.backend, below, index - 1, z.shape[0], step)
        if passes is not None:
            passes.go_forward(z, None if dropout is None else dropout.keys[index - 1])
        else:
            self.backend.activate(z, below.biases, below.activation)
            if dropout is not None:
                dropout.go_forward(self.backend, z, index - 1)
        return self._multiply(z, index)

    def _multiply(self, a: Array, index: int) -> Array:
        """Return a layer's weighted sums of what comes from below, without biases."""
        z: Array = self._activations(a.shape[0])[index]
        weights = self._factors.round(index, self.layers[index].weights)
        self.backend.gemm(
            self._rounded_inputs(a) if index == 0 else a, weights, z, transpose_b=True
        )
        return z

    def _write_outputs(self, z: Array, outputs: Array) -> None:
        """Change `outputs` in place to A_L for Z_L without its biases, which is left as it is."""
        top = self.layers[-1]
        self.backend.copy_into(z, outputs)
        self.backend.activate(outputs, top.biases, top.activation)

    def add_losses(
        self,
        inputs: Array,
        targets: Array,
        row_losses: Array,
        outputs: Array,
        row_weights: Array | None = None,
    ) -> None:
        """Change `row_losses` and `outputs` in place to samples' errors (added) and outputs."""
        top = self.layers[-1]
        z = self._forward(inputs)
        self._write_outputs(z, outputs)
        self.backend.loss_backward(
            z, top.biases, targets, top.activation, self.loss, row_losses, row_weights
        )

    def write_outputs(self, inputs: Array, outputs: Array) -> None:
        """Change `outputs` in place to the outputs for some inputs, both on the device."""
        self._write_outputs(self._forward(inputs), outputs)
