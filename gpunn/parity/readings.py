"""What a device comes to, in a training step by step and epoch by epoch."""

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Backend
from gpunn.network import Network
from gpunn.parallel.world import ranks_here
from gpunn.parity.bounded import Arithmetic
from gpunn.parity.cases import Case
from gpunn.parity.checks import Reading
from gpunn.training.callbacks import Callback, EpochRecord
from gpunn.training.fitting import fit
from gpunn.training.signals import SIGNALS

STEPS = (1, 2, 3, 4)
"""After so many steps, devices are compared number by number."""

Values = NDArray[Any]


class Side(NamedTuple):
    """A device, the dtype to compute in there, and how the ranks that there are share the work."""

    backend: Backend
    dtype: str
    parallel: str = "none"

    @property
    def label(self) -> str:
        """Say in a word or two what it is."""
        precision = "" if self.backend.precision == "fp32" else f" {self.backend.precision}"
        ranks = "" if self.parallel == "none" else f" on {ranks_here().size} ranks"
        return f"{self.backend.name} {self.dtype}{precision}{ranks}"

    @property
    def arithmetic(self) -> Arithmetic:
        """How it rounds."""
        return Arithmetic.of(self.dtype, self.backend.precision)


def readings_of_steps(case: Case, side: Side, X: Values, T: Values) -> Iterator[Reading]:
    """Yield the initial weights, what is computed from them, and what the first steps make."""
    network = case.make_network(side.backend, side.dtype, side.parallel)
    yield Reading("initial weights", "start", 0, network.parameters())
    yield from readings_at_start(network, X, T, case.batch_size)
    for n_steps in STEPS:
        n = min(n_steps * case.batch_size, len(X))
        network = case.make_network(side.backend, side.dtype, side.parallel)
        history = _fit(case, network, X[:n], T[:n], epochs=1, shuffle=False)
        yield Reading("loss", "step", n_steps, {"loss": np.array(history.train_loss)})
        yield Reading("weights", "step", n_steps, network.parameters())
        yield Reading("outputs", "step", n_steps, {"outputs": network.predict(X)})


def readings_at_start(network: Network, X: Values, T: Values, n: int) -> Iterator[Reading]:
    """Yield a network's outputs for all samples, and loss and gradients for the first n."""
    yield Reading("outputs", "start", 0, {"outputs": network.predict(X)})
    loss, gradients = network.loss_and_gradients(X[:n], T[:n])
    yield Reading("loss", "start", 0, {"loss": np.array([loss])})
    yield Reading("gradients", "start", 0, gradients)


class _Recorder(Callback):
    """Takes readings after each epoch."""

    def __init__(self, X: Values) -> None:
        self.X = X
        self.readings: list[Reading] = []

    def on_epoch_end(self, network: Network, record: EpochRecord) -> None:
        for name, arrays in (
            ("loss", {"loss": np.array([record.train_loss])}),
            ("weights", network.parameters()),
            ("outputs", {"outputs": network.predict(self.X)}),
        ):
            self.readings.append(Reading(name, "epoch", record.epoch, arrays))


def readings_of_epochs(case: Case, side: Side, X: Values, T: Values) -> list[Reading]:
    """Return what each epoch of the whole training makes."""
    recorder = _Recorder(X)
    network = case.make_network(side.backend, side.dtype, side.parallel)
    _fit(case, network, X, T, epochs=case.epochs, callbacks=[recorder])
    return recorder.readings


def _fit(case: Case, network: Network, X: Values, T: Values, **options: Any) -> Any:
    history = fit(
        network,
        X,
        T,
        batch_size=case.batch_size,
        optimizer=case.optimizer,
        learning_rate=case.learning_rate,
        seed=case.seed,
        **options,
    )
    for number, name in SIGNALS.items():
        if history.stopped == name:  # half a training is nothing to compare
            signal.raise_signal(number)
    return history
