"""Mini-batch after mini-batch in one call, where a device has a way to do so.

A step of plain gradient descent on a small network is less work than telling a GPU to do it. Such a
device may go through many steps by itself (`Backend.make_batch_learner`), with the same result but
for rounding.
"""

from typing import Self

from gpunn.backends.base import Array
from gpunn.backends.fused import BatchLearner
from gpunn.network import Network
from gpunn.optimizers import SGD, Optimizer
from gpunn.training.trainer import Trainer

CALL_BYTES = 2**26
"""Bytes of the samples of a call: hundreds of steps on a small network, milliseconds on a GPU."""


class BatchTrainer(Trainer):
    """Plain gradient descent in many steps a call; make it with `make`.

    Attributes
    ----------
    rows_in_call : int
        Samples in a call at most.
    call_bytes : int
        What they take.
    """

    def __init__(
        self, network: Network, learner: BatchLearner, batch_size: int, weight_decay: float
    ) -> None:
        self._learner, self._batch_size, self._weight_decay = learner, batch_size, weight_decay
        bytes_of_batch = batch_size * (network.n_inputs + network.n_outputs)
        bytes_of_batch *= network.dtype.itemsize
        n_batches = max(1, CALL_BYTES // bytes_of_batch)
        self.rows_in_call, self.call_bytes = n_batches * batch_size, n_batches * bytes_of_batch

    @classmethod
    def make(cls, network: Network, optimizer: Optimizer, batch_size: int) -> Self | None:
        """Return a trainer; None if the optimizer or the device has no such way.

        Parameters
        ----------
        network : Network
            The network, which is changed in place.
        optimizer : Optimizer
            The rule to learn by.
        batch_size : int
            Samples in a step.

        Returns
        -------
        BatchTrainer or None
            The trainer.
        """
        model = network.fused_model()
        if type(optimizer) is not SGD or model is None:
            return None
        learner = network.backend.make_batch_learner(batch_size, model)
        if learner is None:
            return None
        return cls(network, learner, batch_size, optimizer.weight_decay)

    def learn(
        self, inputs: Array, targets: Array, learning_rate: float, *, row_losses: Array
    ) -> None:
        """Change the network in place by learning from batches in their order."""
        batch_size = min(self._batch_size, inputs.shape[0])
        self._learner.learn(
            inputs,
            targets,
            batch_size,
            scale=learning_rate / batch_size,
            kept=1.0 - learning_rate * self._weight_decay,
            row_losses=row_losses,
        )
