"""Exact training on one sample, or a few, at a time, at the speed of matrix products.

One sample at a time reads and writes all of the first weights for each sample. It need not. Let
steps t = 1..m make a block that starts from weights W. With plain gradient descent of step size r
(the learning rate over the samples in a step), the weights that step t sees are
``W - r sum_{s<t} D_s^T X_s``, where D_s are the first layer's deltas in step s. So its weighted
sums are

    Z_t = X_t W^T - r sum_{s<t} (X_t X_s^T) D_s

The first term of all steps is one matrix product, the dot products in the second are one small
matrix ``G = X X^T`` (``G + 1`` with biases). The steps are gone through in order; each adds its
correction, a product with the deltas so far, then goes through the layers above as ever, which are
updated at once. At the end ``W <- W - r D^T X`` is one accumulating product.

Nothing is approximated: it is the same algorithm in another order of summation. The first weights
are read twice and written once a block instead of once a step.

Source: A. Devarakonda and J. Demmel, *Avoiding communication in primal and dual block coordinate
descent methods* (2019), and their s-step SGD (2020), here for a network's first layer.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gpunn.backend import Array
from gpunn.network import Layer, Network, add_gradient

BLOCK_ROWS = 64
"""Samples in a block.

Enough for the products to be limited by arithmetic, not by memory; few enough that the corrections,
which grow with its square, cost less than the products.
"""

LARGEST_STEP = 16
"""Steps of more samples than this make matrix products of a good size by themselves."""


class _Block(NamedTuple):
    """A block of samples on its way through: see `OnlineTrainer.learn`; `rate` is r above."""

    inputs: Array
    targets: Array
    z: Array
    deltas: Array
    rate: float
    row_losses: Array
    outputs: Array | None


class OnlineTrainer:
    """Plain gradient descent in steps of one sample or a few, block by block.

    Parameters
    ----------
    network : Network
        The network, which is changed in place.
    batch_size : int
        Samples in a step.
    """

    def __init__(self, network: Network, batch_size: int = 1) -> None:
        self.network, self.batch_size = network, batch_size
        self.block_rows = max(1, BLOCK_ROWS // batch_size) * batch_size
        backend, rows, dtype = network.backend, self.block_rows, network.dtype
        n_hidden = network.architecture.layer_sizes[1]
        self._z = backend.empty((rows, n_hidden), dtype)
        self._deltas = backend.empty((rows, n_hidden), dtype)
        self._products = backend.empty((rows * rows,), dtype)
        self._ones = backend.asarray(np.ones(rows * rows, dtype))
        self._row_losses = backend.zeros((rows,), np.float64)

    def blocks(self, n_samples: int) -> Iterator[slice]:
        """Yield slices that go through so many samples block by block."""
        for start in range(0, n_samples, self.block_rows):
            yield slice(start, min(start + self.block_rows, n_samples))

    def learn(
        self,
        inputs: Array,
        targets: Array,
        learning_rate: float,
        *,
        row_losses: Array | None = None,
        outputs: Array | None = None,
    ) -> None:
        """Change the network in place by learning from a block of samples in their order.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            Samples of whole steps, at most `block_rows`, on the device.
        targets : Array, shape (n, n_L)
            Their targets.
        learning_rate : float
            The step size of all steps of the block.
        row_losses : Array, shape (n,), float64, optional
            Gets each sample's error added, from before it was learnt from.
        outputs : Array, shape (n, n_L), optional
            Gets each sample's outputs, from before it was learnt from.
        """
        n_rows = inputs.shape[0]
        first = self.network.layers[0]
        z, deltas = self._z[:n_rows], self._deltas[:n_rows]
        rate = learning_rate / self.batch_size
        block = _Block(
            inputs,
            targets,
            z,
            deltas,
            rate,
            self._row_losses[:n_rows] if row_losses is None else row_losses,
            outputs,
        )
        self.network.backend.gemm(inputs, first.weights, z, transpose_b=True)
        if not self._learn_fused(block):
            self._learn_stepwise(block)
        add_gradient(self.network.backend, deltas, inputs, first.weights, first.biases, alpha=-rate)

    def _learn_fused(self, block: _Block) -> bool:
        """Let the device go through the steps in one call, if it can; say whether it did."""
        network = self.network
        if self.batch_size != 1 or len(network.layers) != 2:
            return False
        hidden, top = network.layers
        return network.backend.learn_in_order(
            block.z,
            self._dot_products(block.inputs, block.inputs),
            block.deltas,
            block.targets,
            hidden,
            top,
            network.loss,
            block.rate,
            textbook_rule=network.textbook_rule,
            row_losses=block.row_losses,
            outputs=block.outputs,
        )

    def _learn_stepwise(self, block: _Block) -> None:
        backend = self.network.backend

        def descend(index: int, layer: Layer, delta: Array, inputs: Array) -> None:
            add_gradient(backend, delta, inputs, layer.weights, layer.biases, alpha=-block.rate)

        for start in range(0, block.inputs.shape[0], self.batch_size):
            rows = slice(start, start + self.batch_size)
            z = block.z[rows]
            if start:
                products = self._dot_products(block.inputs[rows], block.inputs[:start])
                backend.gemm(products, block.deltas[:start], z, alpha=-block.rate, beta=1.0)
            self.network.learn_from(
                z,
                block.deltas[rows],
                block.targets[rows],
                descend,
                block.row_losses[rows],
                None if block.outputs is None else block.outputs[rows],
            )

    def _dot_products(self, left: Array, right: Array) -> Array:
        """Return ``left right^T``, plus 1 for the input of the biases where there are any."""
        shape = (left.shape[0], right.shape[0])
        n_products = shape[0] * shape[1]
        products = self._products[:n_products].reshape(shape)
        biases = self.network.layers[0].biases is not None
        if biases:
            self.network.backend.copy_into(self._ones[:n_products].reshape(shape), products)
        self.network.backend.gemm(
            left, right, products, transpose_b=True, beta=1.0 if biases else 0.0
        )
        return products
