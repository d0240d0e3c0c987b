"""Training step by step: what every network and optimizer can do, with weights and dropout.

Networks of some kinds go many steps at a time in fused ways (`gpunn.training.online` and
`gpunn.training.batches`), with the same result but for rounding.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Array
from gpunn.backends.fused import StepArrays
from gpunn.errors import ParameterError
from gpunn.network import Dropout, Network
from gpunn.network.layers import FusedUpdate
from gpunn.optimizer_base import is_recordable, rule_of
from gpunn.optimizers import Optimizer
from gpunn.training.loaders import Order
from gpunn.training.trainer import RateAt, Recordable
from gpunn.training.weights import SampleWeights


def check_dropout(network: Network, dropout_rate: Any) -> None:
    """Raise unless hidden units of a network may sit out steps with that probability.

    Raises
    ------
    ParameterError
        If it is no number in [0, 1), or the network has no hidden units that can sit out.
    """
    number = isinstance(dropout_rate, int | float | np.number) and not isinstance(
        dropout_rate, bool
    )
    if not number or not 0 <= dropout_rate < 1:
        raise ParameterError(
            f"dropout must be a number of at least 0 and below 1, got {dropout_rate!r}"
        )
    if dropout_rate:
        network.architecture.check_dropout()


class StepTrainer(Recordable):
    """One step a batch, by an optimizer.

    Parameters
    ----------
    network : Network
        The network, which is changed in place.
    optimizer : Optimizer
        The rule to learn by, prepared for the network.
    n_samples, batch_size : int
        Samples in an epoch, and in a step.
    weights : SampleWeights or None
        What each sample counts.
    dropout_rate : float
        How likely a hidden unit sits out a step.
    penalty : float or None
        The strength alpha of scikit-learn's penalty, ``alpha / 2 ||W||^2`` over the sum of the
        weights in a step. It is learnt from as weight decay, and counts in the loss. None to leave
        the optimizer's own weight decay as it is.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        n_samples: int,
        batch_size: int,
        *,
        weights: SampleWeights | None = None,
        dropout_rate: float = 0.0,
        penalty: float | None = None,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self._n_samples, self._batch_size = n_samples, batch_size
        self._weights, self._dropout_rate, self._alpha = weights, dropout_rate, penalty
        self._keys: list[list[int]] | None = None
        self._totals: NDArray[np.float64] | None = None
        self._row_weights: Array | None = None
        self._penalty = network.backend.zeros((1,), np.float64)
        self._step = 0
        self.weighted = weights is not None
        self._count_numbers()

    @property
    def keys_shape(self) -> tuple[int, int] | None:
        if not self._dropout_rate:
            return None
        return -(-self._n_samples // self._batch_size), len(self.network.layers) - 1

    def begin_epoch(
        self,
        order: Order | None,
        keys: NDArray[np.uint32] | None,
        first: int,
        rate_at: RateAt,
    ) -> None:
        self._place(order, keys, first)
        if self._weights is not None:
            self._row_weights = self.network.backend.asarray(self._of_samples, self.network.dtype)

    def _place(self, order: Order | None, keys: NDArray[np.uint32] | None, first: int) -> None:
        """Take what an epoch has drawn, on the host."""
        self._step = first // self._batch_size
        self._keys = None if keys is None else keys.tolist()
        if self._weights is not None:
            self._totals, self._of_samples = self._weights.in_epoch(order, self._batch_size)

    def learn(
        self, inputs: Array, targets: Array, learning_rate: float, *, row_losses: Array
    ) -> None:
        step, n_rows = self._step, inputs.shape[0]
        self._step += 1
        total = n_rows if self._totals is None else float(self._totals[step])
        if total == 0:
            return  # Samples that count nothing teach nothing.
        if self._alpha is not None:
            self._add_penalty(self._alpha, n_rows, total)
        keys = None if self._keys is None else self._keys[step]
        row_weights = self._row_weights
        if row_weights is not None:
            start = step * self._batch_size
            row_weights = row_weights[start : start + n_rows]
        self.optimizer.begin_step(learning_rate)
        self.network.step(
            inputs,
            targets,
            self.optimizer.update,
            row_losses,
            row_weights=row_weights,
            dropout=None if keys is None else Dropout(self._dropout_rate, keys),
        )

    def _add_penalty(self, alpha: float, n_rows: int, total: float) -> None:
        if alpha:
            for layer in self.network.layers:
                self.network.backend.add_squares(
                    layer.weights, self._penalty, alpha=0.5 * alpha * n_rows / total
                )
        self.optimizer.weight_decay = alpha / total  # type: ignore[attr-defined]

    def end_epoch(self) -> float:
        if not self._alpha:
            return 0.0
        backend = self.network.backend
        total = float(backend.to_host(self._penalty)[0])
        backend.copy_into(backend.zeros((1,), np.float64), self._penalty)
        return total

    def arrays(self) -> dict[str, Array]:
        return {"penalty": self._penalty} if self._alpha else {}

    # What `gpunn.training.recorded` asks for.

    @property
    def recorded_rows(self) -> int:
        return self._batch_size

    def _count_numbers(self) -> None:
        """Find out how many numbers a step takes: the optimizer's, the penalty's, dropout's."""
        self.n_numbers = self._n_own = 0
        if is_recordable(self.optimizer):
            one = np.ones(1)
            self._n_own = len(self.optimizer.step_numbers(one, one, one))
            n_keys = len(self.network.layers) - 1 if self._dropout_rate else 0
            self.n_numbers = self._n_own + bool(self._alpha) + n_keys

    def row_weights(self) -> NDArray[Any] | None:
        return None if self._weights is None else self._of_samples

    def recorded_choices(self) -> tuple[object, ...]:
        return self.optimizer.recorded_choices()

    def plan_epoch(
        self,
        order: Order | None,
        keys: NDArray[np.uint32] | None,
        first: int,
        rate_at: RateAt,
        n_samples: int,
    ) -> NDArray[np.float64] | None:
        self._place(order, keys, first)
        starts = np.arange(0, self._n_samples, self._batch_size)
        counts = np.diff(starts, append=self._n_samples).astype(np.float64)
        totals = counts if self._totals is None else self._totals
        learnt = totals != 0
        taken = np.cumsum(learnt)
        steps = self.optimizer.n_steps + taken - (taken[self._step - 1] if self._step else 0)
        steps = np.maximum(steps, 1)  # those before the first that counts are left out
        columns: list[Any] = []
        if self._alpha is not None:
            decay = np.divide(self._alpha, totals, out=np.zeros_like(totals), where=learnt)
            columns = [0.5 * decay * counts] if self._alpha else []
            self.optimizer.weight_decay = decay  # type: ignore[attr-defined]
        rates = np.array([rate_at(start) for start in starts.tolist()])
        numbers = self.optimizer.step_numbers(rates, counts, steps)
        if self._alpha is not None:
            self.optimizer.weight_decay = self._alpha  # type: ignore[attr-defined]
        columns = [*numbers, *columns, *(() if keys is None else keys.T)]
        return np.stack([np.broadcast_to(column, starts.shape) for column in columns], axis=1)

    def count(self) -> bool:
        step = self._step
        self._step += 1
        if self._totals is not None and self._totals[step] == 0:
            return False
        self.optimizer.n_steps += 1
        return True

    def work(self, arrays: StepArrays, row_losses: Array) -> list[Any]:
        network, optimizer, n_own = self.network, self.optimizer, self._n_own
        inputs, targets, row_weights, numbers, whole_numbers = arrays
        rule = rule_of(optimizer)

        def number(index: int) -> Array:
            return numbers[index : index + 1]  # type: ignore[no-any-return]

        if self._alpha:
            for layer in network.layers:
                network.backend.add_squares(layer.weights, self._penalty, alpha=number(n_own))
        dropout = None
        if self._dropout_rate:
            dropout = Dropout(self._dropout_rate, whole_numbers[n_own + bool(self._alpha) :])
        optimizer.begin_recorded_step([number(index) for index in range(n_own)])
        network.step(
            inputs,
            targets,
            optimizer.update,
            row_losses,
            row_weights=row_weights,
            dropout=dropout,
            scale=number(0),
            fused=None if rule is None else FusedUpdate(rule, numbers, optimizer.memories),
        )
        return network.step_memory(inputs.shape[0])
