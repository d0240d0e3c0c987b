"""Steps that several ranks share by their samples: each learns from a part of every batch.

All ranks have the whole network. Each goes forward and back with its own rows of the batch, and the
gradients are added up over the ranks, layer by layer from the outputs down: the sum of one layer is
on its way while the layer below goes back. Then each rank takes the same step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.base import ALL, Array, Backend
from gpunn.network import Dropout, Network, add_gradient
from gpunn.network.layers import Layer
from gpunn.optimizers import Optimizer
from gpunn.training.steps import StepTrainer
from gpunn.training.weights import SampleWeights


class SummedDelta(NamedTuple):
    """Stands for the deltas of a whole batch where their gradient is known already.

    An optimizer looks at the shape (n, n_out) alone, and gives the rest to its device.
    """

    shape: tuple[int, int]
    weights: Array
    biases: Array | None


class GradientBackend:
    """A device whose products with a `SummedDelta` are the gradients that it carries."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def gemm(self, a: Any, b: Array, out: Array, **options: Any) -> None:
        """Change `out` in place to ``alpha a^T b + beta out``."""
        if isinstance(a, SummedDelta):
            alpha, beta = options.get("alpha", 1.0), options.get("beta", 0.0)
            self._backend.axpby(a.weights, out, alpha=alpha, beta=beta)
        else:
            self._backend.gemm(a, b, out, **options)

    def update_blocks(
        self, weights: Array, delta: SummedDelta, inputs: Array
    ) -> tuple[tuple[slice, SummedDelta], ...]:
        """Return all rows: there is no product left to be cut."""
        return ((ALL, delta),)

    def sum_rows(self, a: Any, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """Change `out` in place to ``alpha (sum of the rows of a) + beta out``."""
        if isinstance(a, SummedDelta):
            self._backend.axpby(a.biases, out, alpha=alpha, beta=beta)  # type: ignore[arg-type]
        else:
            self._backend.sum_rows(a, out, alpha=alpha, beta=beta)


class NetworkOfGradients:
    """A network as an optimizer sees it whose gradients come ready from a `GradientBackend`."""

    def __init__(self, network: Network) -> None:
        self._network, self.backend = network, GradientBackend(network.backend)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


class _Kept(NamedTuple):
    """A layer whose gradient is being added up, and how to wait for it."""

    number: int
    layer: Layer
    delta: SummedDelta
    below: Array
    wait: Callable[[], None]


class DataTrainer(StepTrainer):
    """One step a batch, of which each rank has a share; see `StepTrainer` for the parameters."""

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        n_samples: int,
        batch_size: int,
        *,
        weights: SampleWeights | None = None,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__(
            network, optimizer, n_samples, batch_size, weights=weights, dropout_rate=dropout_rate
        )
        backend, n_rows = network.backend, min(batch_size, n_samples)
        self._gradients = [
            backend.empty((layer.weights.size + layer.weights.shape[0],), network.dtype)
            for layer in network.layers
        ]
        self._losses = backend.empty((n_rows,), np.float64)
        self._nothing = backend.zeros((1,), network.dtype)

    def learn(
        self, inputs: Array, targets: Array, learning_rate: float, *, row_losses: Array
    ) -> None:
        network, ranks = self.network, self.network.sharing.ranks
        step, n_rows = self._step, inputs.shape[0]
        self._step += 1
        rows = slice(n_rows * ranks.rank // ranks.size, n_rows * (ranks.rank + 1) // ranks.size)
        row_weights = self._row_weights
        if row_weights is not None:
            start = step * self._batch_size
            row_weights = row_weights[start + rows.start : start + rows.stop]
        if rows.start == rows.stop:
            # Fewer samples than ranks: this one's counts nothing.
            rows, row_weights = slice(0, 1), self._nothing
        losses = self._losses[:n_rows]
        network.backend.copy_into(network.backend.zeros((n_rows,), np.float64), losses)
        keys = None if self._keys is None else self._keys[step]
        kept: list[_Kept] = []
        self.optimizer.begin_step(learning_rate)
        network.step(
            inputs[rows],
            targets[rows],
            lambda *gradient: kept.append(self._begin_sum(n_rows, *gradient)),
            losses[rows],
            row_weights=row_weights,
            dropout=None if keys is None else Dropout(self._dropout_rate, keys, rows.start),
        )
        ranks.add_up(network.backend, losses)
        network.backend.axpby(losses, row_losses, alpha=1.0, beta=1.0)
        for number, layer, delta, below, wait in kept:
            wait()
            self.optimizer.update(number, layer, delta, below)  # type: ignore[arg-type]

    def _begin_sum(
        self, n_rows: int, index: int, layer: Layer, delta: Array, below: Array
    ) -> _Kept:
        """Let a layer's gradient of this rank's samples go on its way to those of the others."""
        backend, gradient = self.network.backend, self._gradients[index]
        n_weights, shape = layer.weights.size, layer.weights.shape
        weights = gradient[:n_weights].reshape(shape)
        biases = None if layer.biases is None else gradient[n_weights:]
        used = gradient if biases is not None else gradient[:n_weights]
        add_gradient(backend, delta, below, weights, biases, alpha=1.0, beta=0.0, beta_biases=0.0)
        wait = self.network.sharing.ranks.begin_sum(backend, used, index)
        return _Kept(index, layer, SummedDelta((n_rows, shape[0]), weights, biases), below, wait)
