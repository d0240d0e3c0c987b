"""A training that bench_gpu.py measures, and what whoever trains it must be able to do."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from made_samples import N_INPUTS, N_OUTPUTS, Samples
from numpy.typing import NDArray

LOSS = "mean_squared_error"
MOMENTUM = 0.9

Weights = dict[str, NDArray[np.float32]]
"""Parameters on the host, named as gpunn names them."""


@dataclass(frozen=True)
class Task:
    """A training of a network with sigmoid units and biases.

    Attributes
    ----------
    hidden : tuple of int
        Units in each hidden layer.
    batch : int
        Samples in a step.
    optimizer : {"sgd", "momentum", "adam"}
        The rule to learn by.
    precision : {"fp32", "tf32", "bf16"}
        What products are computed in.
    dropout : float
        How likely a hidden unit sits out a step.
    """

    hidden: tuple[int, ...]
    batch: int
    optimizer: str = "sgd"
    precision: str = "fp32"
    dropout: float = 0.0

    @property
    def layers(self) -> tuple[int, ...]:
        """Units in each layer, from the inputs to the outputs."""
        return N_INPUTS, *self.hidden, N_OUTPUTS

    @property
    def label(self) -> str:
        """What it is called in tables and pictures."""
        rule = f"{self.optimizer}, dropout {self.dropout}" if self.dropout else self.optimizer
        network = "-".join(map(str, self.layers))
        return f"{network}, batch {self.batch}, {rule}, {self.precision}"

    @property
    def learning_rate(self) -> float:
        """A step size that keeps networks of every width from saturating.

        All units of the last hidden layer add to the same outputs, so the steps of more units must
        be shorter.
        """
        return (0.2 if self.optimizer == "adam" else 100.0) / self.hidden[-1]


class Place(NamedTuple):
    """Where to train ("cuda" or "cpu"), and the mode of torch.compile there."""

    device: str
    compile_mode: str


class Contestant(ABC):
    """Who trains. `run` returns when the device has finished.

    Parameters
    ----------
    task : Task
        What to train.
    samples : Samples
        On what.
    place : Place
        Where.
    weights : dict or None
        What to start from; None for gpunn's own first weights.
    """

    @abstractmethod
    def __init__(
        self, task: Task, samples: Samples, place: Place, weights: Weights | None = None
    ) -> None: ...

    @abstractmethod
    def run(self, n_steps: int) -> None:
        """Train on the first so many batches."""

    @abstractmethod
    def loss(self) -> float:
        """Return the mean loss of the last run, each batch's from before its step."""

    @abstractmethod
    def weights(self) -> Weights:
        """Return copies of the parameters on the host."""

    def close(self) -> None:  # noqa: B027  (most have nothing to give back)
        """Give back what a library would keep for later."""
