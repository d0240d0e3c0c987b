"""Exact training on one sample, or a few, at a time, at the speed of matrix products.

One sample at a time reads and writes all of the first weights for each sample. It need not. Let
steps t = 1..m make a block that starts from weights W. With plain gradient descent of scale r
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Array
from gpunn.backends.fused import Sequencer, StepArrays
from gpunn.backends.gram import Gram
from gpunn.data.matrices import row_blocks
from gpunn.network import Network
from gpunn.network.layers import Layer, Step, add_gradient
from gpunn.training.loaders import Order
from gpunn.training.trainer import RateAt, Recordable

BLOCK_ROWS = 64
"""Samples in a block of steps of several samples; of single ones, the device says how many.

Enough for the products to be limited by arithmetic, not by memory; few enough that the products of
the inputs with each other stay cheap, and that two arrays of a block's rows add little to the
memory of a very wide network's weights.
"""

LARGEST_STEP = 16
"""Steps of more samples than this make matrix products of a good size by themselves."""


def rows_in_block(network: Network, batch_size: int) -> int:
    """Return how many samples a block of steps of that many samples has: whole steps."""
    model = network.fused_model()
    if batch_size == 1 and model is not None:
        return network.backend.rows_in_block(model)
    return max(1, BLOCK_ROWS // batch_size) * batch_size


class OnlineTrainer(Recordable):
    """Plain gradient descent in steps of one sample or a few, block by block.

    Parameters
    ----------
    network : Network
        The network, which is changed in place.
    batch_size : int
        Samples in a step.
    has_one_rate : bool
        Whether the step size is known to be the same in a whole epoch.
    """

    def __init__(
        self, network: Network, batch_size: int = 1, *, has_one_rate: bool = False
    ) -> None:
        self._has_one_rate = has_one_rate
        self.network, self.batch_size = network, batch_size
        n_hidden = network.sharing.local_sizes[1]
        self.block_rows = rows_in_block(network, batch_size)
        self._sequencer = self._make_sequencer()
        if self._sequencer is not None:
            self._z, self._deltas = self._sequencer.z, self._sequencer.deltas
        else:
            self._allocate(self.block_rows, n_hidden)
        self._row_losses = network.backend.zeros((self.block_rows,), np.float64)

    def _make_sequencer(self) -> Sequencer | None:
        model = self.network.fused_model()
        if self.batch_size != 1 or model is None:
            return None
        return self.network.backend.make_sequencer(self.block_rows, model)

    def _allocate(self, n_rows: int, n_hidden: int) -> None:
        backend, dtype = self.network.backend, self.network.dtype
        self._z = backend.empty((n_rows, n_hidden), dtype)
        self._deltas = backend.empty((n_rows, n_hidden), dtype)
        self._products = Gram(
            backend, self.batch_size * n_rows, dtype, biases=self.network.architecture.biases
        )

    def blocks(self, n_samples: int) -> Iterator[slice]:
        """Return slices that go through so many samples block by block."""
        return row_blocks(n_samples, self.block_rows)

    def learn(
        self,
        inputs: Array,
        targets: Array,
        learning_rate: float,
        *,
        row_losses: Array | None = None,
        outputs: Array | None = None,
        there: Array | None = None,
    ) -> None:
        """Change the network in place by learning from a block of samples in their order.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            Samples of whole steps, or of a single one that is smaller, at most `block_rows`, on the
            device.
        targets : Array, shape (n, n_L)
            Their targets.
        learning_rate : float
            The step size of all steps of the block.
        row_losses : Array, shape (n,), float64, optional
            Gets each sample's error added, from before it was learnt from.
        outputs : Array, shape (n, n_L), optional
            Gets each sample's outputs, from before it was learnt from.
        there : Array, shape (1,), optional
            The step size of single samples on the device, so that it need not be brought there.
        """
        backend, first, n_rows = self.network.backend, self.network.layers[0], inputs.shape[0]
        scale = learning_rate / min(self.batch_size, n_rows)
        z, deltas = self._z[:n_rows], self._deltas[:n_rows]
        losses = self._row_losses[:n_rows] if row_losses is None else row_losses

        def multiply() -> None:
            backend.gemm(inputs, first.weights, z, transpose_b=True)

        sequencer = self._sequencer
        if sequencer is not None:
            backend.do_both(multiply, lambda: sequencer.prepare(inputs))
            sequencer.learn(inputs, targets, scale if there is None else there, losses, outputs)
        else:
            multiply()
            self._learn_stepwise(inputs, targets, scale, losses, outputs)
        add_gradient(backend, deltas, inputs, first.weights, first.biases, alpha=-scale)

    def _learn_stepwise(
        self,
        inputs: Array,
        targets: Array,
        scale: float,
        row_losses: Array,
        outputs: Array | None,
    ) -> None:
        backend = self.network.backend

        def descend(index: int, layer: Layer, delta: Array, below: Array) -> None:
            add_gradient(backend, delta, below, layer.weights, layer.biases, alpha=-scale)

        for rows in row_blocks(inputs.shape[0], self.batch_size):
            z = self._z[rows]
            if rows.start:
                products = self._products.of(inputs[rows], inputs[: rows.start])
                backend.gemm(products, self._deltas[: rows.start], z, alpha=-scale, beta=1.0)
            step = Step(
                targets[rows],
                descend,
                row_losses[rows],
                None if outputs is None else outputs[rows],
                textbook=self.network.architecture.hidden_errors == "textbook",
            )
            self.network.learn_from(z, self._deltas[rows], step)

    # What `gpunn.training.recorded` asks for: here, a recording is of a block.

    @property
    def n_numbers(self) -> int:  # type: ignore[override]
        """One, the step size; 0 for blocks of larger steps, of which the last may be shorter."""
        return int(self.batch_size == 1)

    @property
    def recorded_rows(self) -> int:
        return self.block_rows

    def plan_epoch(
        self,
        order: Order | None,
        keys: NDArray[np.uint32] | None,
        first: int,
        rate_at: RateAt,
        n_samples: int,
    ) -> NDArray[np.float64] | None:
        starts = range(first, n_samples, self.batch_size)
        rates = {rate_at(start) for start in (starts[:1] if self._has_one_rate else starts)}
        if len(rates) > 1:
            return None  # A recording of a block has one step size.
        self._rate = next(iter(rates), 0.0)
        return np.full((-(-n_samples // self.block_rows), 1), self._rate)

    def recorded_choices(self) -> tuple[object, ...]:
        return (self._rate,)

    def work(self, arrays: StepArrays, row_losses: Array) -> list[Any]:
        inputs, targets, _, numbers, _ = arrays
        self.learn(inputs, targets, self._rate, row_losses=row_losses, there=numbers)
        return self.network.step_memory(self.batch_size)
