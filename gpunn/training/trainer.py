"""What the loop asks of whoever does the steps of a training."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Array
from gpunn.backends.fused import StepArrays
from gpunn.network import Network
from gpunn.training.loaders import Batch, Loader, Order

RateAt = Callable[[int], float]
"""Returns the step size of the step that begins at a place of an epoch."""


class Trainer(ABC):
    """Takes steps of one step size, one or several at a time."""

    @property
    def keys_shape(self) -> tuple[int, int] | None:
        """How many keys dropout needs in an epoch: steps, hidden layers; None without dropout."""
        return None

    def begin_epoch(  # noqa: B027  (some have nothing to prepare)
        self,
        order: Order | None,
        keys: NDArray[np.uint32] | None,
        first: int,
        rate_at: RateAt,
    ) -> None:
        """Prepare for an epoch in that order, from the sample at place `first` on."""

    def batches(self, loader: Loader, order: Order | None, first: int) -> Iterator[Batch]:
        """Yield the samples that are to be learnt from, from the place `first` on."""
        return loader.batches(order, first)

    @abstractmethod
    def learn(
        self, inputs: Array, targets: Array, learning_rate: float, *, row_losses: Array
    ) -> None:
        """Change the network in place by the steps of these samples.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            Samples of whole steps, or of a single one that is smaller, on the device.
        targets : Array, shape (n, n_L)
            Their targets.
        learning_rate : float
            The step size of all steps.
        row_losses : Array, shape (n,), float64
            Gets each sample's loss added, from before it was learnt from.
        """

    def end_epoch(self) -> float:
        """Return what is to be added to the sum of the epoch's losses."""
        return 0.0

    def arrays(self) -> dict[str, Array]:
        """Return what it adds up in an epoch, by name."""
        return {}


class Recordable(Trainer):
    """A trainer whose work a device may record; see `gpunn.training.recorded`.

    Attributes
    ----------
    network : Network
        The network, which is changed in place.
    n_numbers : int
        How many numbers a recording takes from step to step; 0 if it cannot be recorded.
    weighted : bool
        Whether samples have weights.
    """

    network: Network
    n_numbers: int
    weighted: bool = False

    @property
    @abstractmethod
    def recorded_rows(self) -> int:
        """How many samples a recording goes through at most."""

    @abstractmethod
    def plan_epoch(
        self,
        order: Order | None,
        keys: NDArray[np.uint32] | None,
        first: int,
        rate_at: RateAt,
        n_samples: int,
    ) -> NDArray[np.float64] | None:
        """Prepare as `begin_epoch` does, and return the numbers (n_steps, n_numbers) of each step.

        None if this epoch is not to be recorded; `begin_epoch` follows then.
        """

    @abstractmethod
    def recorded_choices(self) -> tuple[object, ...]:
        """Return what else a recording depends on: if it changes, it is made anew."""

    def row_weights(self) -> NDArray[Any] | None:
        """Return the weights of the epoch's samples by their places, on the host."""
        return None

    def count(self) -> bool:
        """Count the next step; say whether anything is to be learnt in it."""
        return True

    @abstractmethod
    def work(self, arrays: StepArrays, row_losses: Array) -> list[Any]:
        """Do what is recorded, as `gpunn.backends.fused.Work` says."""
