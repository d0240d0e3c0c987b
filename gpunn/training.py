"""Epochs: order, batches, validation, early stopping, history.

Each epoch draws an order of the samples on the host, and each step takes its batch from
`gpunn.feeding`, goes forward and back, and updates, all on the device; the training error is read
once an epoch.

Ctrl-C (SIGINT) ends the training after the current step, in good order; a second one ends it at
once with the usual KeyboardInterrupt.
"""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend import Array
from gpunn.batches import BatchTrainer
from gpunn.errors import DataError, ParameterError
from gpunn.feeding import Samples, place_samples
from gpunn.initializers import make_generator
from gpunn.memory import bytes_per_sample, check_memory
from gpunn.network import Network
from gpunn.online import LARGEST_STEP, OnlineTrainer, rows_in_block
from gpunn.optimizers import SGD, Optimizer, Schedule, constant, get_optimizer


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch brought.

    Attributes
    ----------
    epoch : int
        Its number, from 1.
    train_loss : float
        The mean error over the epoch's samples, each measured just before it was learnt from.
    validation_loss, validation_accuracy : float or None
        Over the validation data, after the epoch; accuracy only where targets are classes.
    learning_rate : float
        The step size of the epoch's last step.
    seconds : float
        How long the epoch took, validation included.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float


@dataclass
class History:
    """What a training did.

    Attributes
    ----------
    epochs : list of EpochRecord
        One record for each complete epoch.
    stopped : {"finished", "early stopping", "callback", "interrupted"}
        Why it ended.
    best_epoch : int or None
        The epoch that did best in validation; None without validation data.
    restored_best : bool
        Whether the network was left with the weights of `best_epoch`, not with the last ones.
    n_samples_trained : int
        Samples learnt from, over all epochs.
    seconds : float
        The whole training's duration.
    streamed : str or None
        Why samples were brought to the device piece by piece; None if they fitted there.
    """

    epochs: list[EpochRecord] = field(default_factory=list)
    stopped: str = "finished"
    best_epoch: int | None = None
    restored_best: bool = False
    n_samples_trained: int = 0
    seconds: float = 0.0
    streamed: str | None = None

    @property
    def train_loss(self) -> list[float]:
        """The training loss of each epoch."""
        return [record.train_loss for record in self.epochs]

    @property
    def validation_loss(self) -> list[float]:
        """The validation loss of each epoch; empty without validation data."""
        return [r.validation_loss for r in self.epochs if r.validation_loss is not None]

    @property
    def validation_accuracy(self) -> list[float]:
        """The validation accuracy of each epoch; empty where there is none."""
        return [r.validation_accuracy for r in self.epochs if r.validation_accuracy is not None]


class Callback:
    """Something to be told how a training goes; override what is of interest."""

    def on_train_begin(self, network: Network, n_epochs: int, n_samples: int) -> None:
        """Hear that a training begins, of so many epochs of so many samples."""

    def on_streaming(self, reason: str) -> None:
        """Hear, as a training begins, that samples do not fit the device, and why not."""

    def on_step_end(self, n_samples: int) -> None:
        """Hear that so many samples were learnt from, in a step or in a few that go together."""

    def on_epoch_end(self, network: Network, record: EpochRecord) -> bool | None:
        """Hear what an epoch brought; return True to end the training."""

    def on_train_end(self, history: History) -> None:
        """Hear that the training has ended, however it did."""


@dataclass(frozen=True)
class EarlyStopping:
    """End the training when validation no longer improves, and restore the best weights.

    Parameters
    ----------
    patience : int
        End after so many epochs in a row without an improvement.
    min_delta : float
        An improvement is better than the best so far by more than this.
    monitor : {"loss", "accuracy"}
        What is watched: the validation loss is to fall, or the validation accuracy to rise.

    Raises
    ------
    ParameterError
        If patience is below 1, min_delta below 0, or monitor something else.
    """

    patience: int = 10
    min_delta: float = 0.0
    monitor: str = "loss"

    def __post_init__(self) -> None:
        check_count("patience", self.patience)
        if not isinstance(self.min_delta, int | float | np.number) or not self.min_delta >= 0:
            raise ParameterError(f"min_delta must be 0 or more, got {self.min_delta!r}")
        if self.monitor not in ("loss", "accuracy"):
            raise ParameterError(f"monitor must be 'loss' or 'accuracy', got {self.monitor!r}")


@dataclass(frozen=True)
class Evaluation:
    """How a network does on some samples.

    Attributes
    ----------
    loss : float
        The mean error.
    accuracy : float or None
        The share of samples whose largest output is the target's; None for a single output.
    outputs : ndarray, shape (n, n_L)
        The outputs, on the host.
    """

    loss: float
    accuracy: float | None
    outputs: NDArray[Any]


def check_count(name: str, value: int) -> None:
    """Raise unless a value is a whole number of at least 1.

    Raises
    ------
    ParameterError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ParameterError(f"{name} must be a whole number of at least 1, got {value!r}")


def as_targets(network: Network, y: ArrayLike) -> ArrayLike:
    """Return targets for labels, or targets as they are.

    Parameters
    ----------
    network : Network
        Whose outputs the targets are for; its `scaling` says what "yes" and "no" are.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers 0 to n_L - 1, or targets. With a single output, (n,) are its targets.

    Returns
    -------
    array_like, shape (n, n_L)
        The targets.

    Raises
    ------
    DataError
        If a class number is not one of the network's.
    """
    if network.backend.owns(y) and not isinstance(y, np.ndarray):
        return y
    y = np.asarray(y)
    if y.ndim != 1:
        return y
    if network.n_outputs == 1:
        return y[:, np.newaxis]
    return network.scaling.encode_labels(y, network.n_outputs, network.dtype)


def evaluate(network: Network, X: ArrayLike, y: ArrayLike) -> Evaluation:
    """Measure a network's error and accuracy on some samples.

    Parameters
    ----------
    network : Network
        The network.
    X : array_like, shape (n, n_0)
        Inputs, scaled as in training.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers or targets.

    Returns
    -------
    Evaluation
        The mean loss, the accuracy and the outputs.

    Raises
    ------
    ShapeError
        If the samples do not fit the network.
    DataError
        If they hold something that is no number, or a class that is not one of the network's.
    """
    inputs, targets = _checked_samples(network, X, y)
    n_rows = min(inputs.shape[0], network.rows_at_once)
    reserved = n_rows * bytes_per_sample(network)
    return _evaluate(network, place_samples(network, inputs, targets, n_rows, reserved))


def _evaluate(network: Network, samples: Samples) -> Evaluation:
    backend = network.backend
    outputs = backend.empty((samples.n_rows, network.n_outputs), network.dtype)
    row_losses = backend.zeros((samples.n_rows,), np.float64)
    host = np.empty((samples.n_samples, network.n_outputs), network.dtype)
    n_hits = 0
    for rows, inputs, targets in samples.batches():
        n_rows = inputs.shape[0]
        network.add_losses(inputs, targets, row_losses[:n_rows], outputs[:n_rows])
        host[rows] = backend.to_host(outputs[:n_rows])
        if network.n_outputs > 1:
            hits = host[rows].argmax(axis=1) == backend.to_host(targets).argmax(axis=1)
            n_hits += int(np.count_nonzero(hits))
    loss = float(backend.to_host(row_losses).sum()) / samples.n_samples
    return Evaluation(loss, n_hits / samples.n_samples if network.n_outputs > 1 else None, host)


def _checked_samples(network: Network, X: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Return inputs and targets where they are; those on the host are all finite."""
    inputs, targets = network.check_samples(X, as_targets(network, y))
    for name, values in (("inputs", inputs), ("targets", targets)):
        if isinstance(values, np.ndarray):
            _check_finite(name, values, network.dtype)
    return inputs, targets


def _check_finite(name: str, values: NDArray[Any], dtype: np.dtype[Any]) -> None:
    if values.dtype.kind != "f":
        return
    largest = np.finfo(dtype).max
    step = max(1, 2**17 // max(1, values.shape[1]))
    for start in range(0, values.shape[0], step):
        piece = values[start : start + step]
        # Two passes without temporary arrays; NaN makes both comparisons false.
        if piece.size == 0 or (piece.min() >= -largest and piece.max() <= largest):
            continue
        row, column = np.argwhere(~(np.abs(piece) <= largest))[0]
        raise DataError(
            f"{name} must be finite: row {start + row}, column {column} is "
            f"{piece[row, column]}; remove or replace such values"
        )


class _Interrupt:
    """Whether Ctrl-C was pressed."""

    requested = False


@contextmanager
def _interruptible() -> Iterator[_Interrupt]:
    """Turn the first Ctrl-C into a request; the second raises KeyboardInterrupt as ever."""
    interrupt = _Interrupt()
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread gets signals, and only it may choose what happens.
        yield interrupt
        return
    previous = signal.getsignal(signal.SIGINT)

    def request(number: int, frame: object) -> None:
        interrupt.requested = True
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, request)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)


def fit(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    *,
    epochs: int,
    batch_size: int = 32,
    optimizer: str | Optimizer = "sgd",
    learning_rate: float | Schedule,
    validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    early_stopping: EarlyStopping | None = None,
    shuffle: bool = True,
    seed: int | Sequence[int] | np.random.Generator = 0,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Change a network in place by training it.

    Parameters
    ----------
    network : Network
        The network to train.
    X : array_like, shape (n, n_0)
        Inputs, scaled, on the host or already on the network's device. If they do not fit there,
        they are brought there piece by piece in each epoch, with the same result.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers 0 to n_L - 1 or targets.
    epochs : int
        How many times to go through the samples.
    batch_size : int
        Samples in a step; 1 learns from one sample at a time. The last batch of an epoch may be
        smaller; steps always average over the samples they have.
    optimizer : {"sgd", "momentum", "nesterov", "adam"} or Optimizer
        The rule that turns gradients into steps.
    learning_rate : float or Schedule
        The step size, or how it goes over time.
    validation_data : tuple of (X, y), optional
        Samples to measure loss and accuracy on after each epoch. The best weights so far are then
        kept in a copy on the device.
    early_stopping : EarlyStopping, optional
        Whether to end early and restore the best weights; needs `validation_data`.
    shuffle : bool
        Whether each epoch goes through the samples in a new order.
    seed : int, sequence of int, or numpy.random.Generator
        Where the orders come from.
    callbacks : sequence of Callback
        Who is told how it goes.

    Returns
    -------
    History
        What happened. After Ctrl-C, `History.stopped` is "interrupted", and the network has the
        best weights so far if there is validation data, else the last ones.

    Raises
    ------
    ShapeError
        If the samples do not fit the network.
    DataError
        If they are not finite, or a class is not one of the network's.
    ParameterError
        If another argument is not one of those allowed.
    OutOfMemoryError
        If the device has too little memory for it. Nothing has been changed then.
    """
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    if early_stopping is not None and validation_data is None:
        raise ParameterError("early_stopping needs validation_data to watch")
    if not isinstance(optimizer, Optimizer):
        optimizer = get_optimizer(optimizer)
    generator = make_generator(seed)
    schedule = learning_rate if isinstance(learning_rate, Schedule) else constant(learning_rate)
    inputs, targets = _checked_samples(network, X, y)
    held_out = None if validation_data is None else _checked_samples(network, *validation_data)
    batch_size = min(int(batch_size), inputs.shape[0])
    launches = None if batch_size == 1 else BatchTrainer.make(network, optimizer, batch_size)
    # Blocks are exact for plain gradient descent alone: other rules need each step's gradient.
    plain = isinstance(optimizer, SGD) and optimizer.weight_decay == 0
    in_blocks = launches is None and plain and batch_size <= LARGEST_STEP
    n_rows = rows_in_block(batch_size) if in_blocks else batch_size
    n_validated = 0 if held_out is None else min(held_out[0].shape[0], network.rows_at_once)
    reserved = check_memory(
        network,
        optimizer,
        batch_size=batch_size,
        n_rows=max(n_rows, n_validated),
        keeps_best=held_out is not None,
    )
    if launches is not None:
        n_rows = launches.rows_in_call
        reserved += launches.call_bytes
    samples = place_samples(network, inputs, targets, n_rows, reserved)
    validation = None
    if held_out is not None:
        validation = place_samples(network, *held_out, n_validated, reserved)
    trainer = OnlineTrainer(network, batch_size) if in_blocks else launches
    loop = _Loop(network, samples, trainer, batch_size, optimizer, schedule, shuffle, callbacks)
    return loop.run(epochs, generator, validation, early_stopping)


Trainer = BatchTrainer | OnlineTrainer
"""What takes several steps of one step size at once."""


class _Run(NamedTuple):
    """Steps of one step size, from sample `start` to sample `stop` of an epoch."""

    start: int
    stop: int
    rate: float


class _Best:
    """The weights that did best in validation so far, in a copy on the device."""

    def __init__(self, network: Network, rule: EarlyStopping) -> None:
        self.network, self.rule = network, rule
        self.epoch: int | None = None
        self._score = -np.inf
        self._since = 0
        self._weights: dict[str, Array] = {}

    def consider(self, record: EpochRecord) -> None:
        """Keep the weights if this epoch was the best one."""
        score = record.validation_accuracy
        if self.rule.monitor == "loss" and record.validation_loss is not None:
            score = -record.validation_loss
        if score is not None and score > self._score + self.rule.min_delta:
            self.epoch, self._score, self._since = record.epoch, score, 0
            self._keep_weights()
        else:
            self._since += 1

    def _keep_weights(self) -> None:
        backend = self.network.backend
        for name, array in self.network.device_parameters().items():
            if name not in self._weights:
                self._weights[name] = backend.empty(array.shape, array.dtype)
            backend.copy_into(array, self._weights[name])

    def is_exhausted(self) -> bool:
        """Say whether patience has run out."""
        return self._since >= self.rule.patience

    def restore(self) -> bool:
        """Give the network the best weights back, if there are any; say whether there were."""
        for name, array in self.network.device_parameters().items():
            if name in self._weights:
                self.network.backend.copy_into(self._weights[name], array)
        return bool(self._weights)


class _Loop:
    """One training: what stays the same over its epochs."""

    def __init__(
        self,
        network: Network,
        samples: Samples,
        trainer: Trainer | None,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Schedule,
        shuffle: bool,
        callbacks: Sequence[Callback],
    ) -> None:
        self.network, self.samples, self.trainer = network, samples, trainer
        self.n_samples, self.batch_size = samples.n_samples, batch_size
        self.optimizer, self.schedule, self.shuffle = optimizer, schedule, shuffle
        self.callbacks = callbacks
        optimizer.prepare(network)

    def run(
        self,
        n_epochs: int,
        generator: np.random.Generator,
        validation: Samples | None,
        early_stopping: EarlyStopping | None,
    ) -> History:
        streamed = self.samples.streamed
        if streamed is None and validation is not None:
            streamed = validation.streamed
        history = History(streamed=streamed)
        best = _Best(self.network, early_stopping or EarlyStopping())
        began = time.perf_counter()
        for callback in self.callbacks:
            callback.on_train_begin(self.network, n_epochs, self.n_samples)
            if streamed is not None:
                callback.on_streaming(streamed)
        try:
            with _interruptible() as interrupt:
                for epoch in range(n_epochs):
                    record = self._epoch(epoch, generator, validation, history, interrupt)
                    history.stopped = self._after_epoch(record, history, best, early_stopping)
                    if history.stopped != "finished":
                        break
            history.best_epoch = best.epoch
            if early_stopping is not None or history.stopped == "interrupted":
                history.restored_best = best.restore()
            self.network.backend.synchronize()
        finally:
            history.seconds = time.perf_counter() - began
            for callback in self.callbacks:
                callback.on_train_end(history)
        return history

    def _after_epoch(
        self,
        record: EpochRecord | None,
        history: History,
        best: _Best,
        early_stopping: EarlyStopping | None,
    ) -> str:
        """Take note of an epoch, and return why the training is to end, or "finished"."""
        if record is None:
            return "interrupted"
        history.epochs.append(record)
        best.consider(record)
        # Every callback hears of the epoch, also after one that ends the training.
        wishes = [callback.on_epoch_end(self.network, record) for callback in self.callbacks]
        if any(wishes):
            return "callback"
        if early_stopping is not None and best.is_exhausted():
            return "early stopping"
        return "finished"

    def _epoch(
        self,
        epoch: int,
        generator: np.random.Generator,
        validation: Samples | None,
        history: History,
        interrupt: _Interrupt,
    ) -> EpochRecord | None:
        """Go through all samples once; None if Ctrl-C came before the end."""
        began = time.perf_counter()
        backend = self.network.backend
        order = generator.permutation(self.n_samples) if self.shuffle else None
        row_losses = backend.zeros((self.samples.n_rows,), np.float64)
        rate = 0.0
        for part, inputs, targets in self.samples.batches(order):
            start, stop = part.start, part.stop
            for run in self._runs(epoch, start, stop):
                rate = run.rate
                rows = slice(run.start - start, run.stop - start)
                self._learn(inputs[rows], targets[rows], row_losses[rows], rate)
            history.n_samples_trained += stop - start
            for callback in self.callbacks:
                callback.on_step_end(stop - start)
            if interrupt.requested:
                return None
        evaluation = None if validation is None else _evaluate(self.network, validation)
        return EpochRecord(
            epoch=epoch + 1,
            train_loss=float(backend.to_host(row_losses).sum()) / self.n_samples,
            validation_loss=None if evaluation is None else evaluation.loss,
            validation_accuracy=None if evaluation is None else evaluation.accuracy,
            learning_rate=rate,
            seconds=time.perf_counter() - began,
        )

    def _runs(self, epoch: int, start: int, stop: int) -> list[_Run]:
        """Return the steps from sample `start` to `stop`, those of one step size together.

        Only whole steps go together; an epoch's last step, if it is shorter, stays alone.
        """
        runs: list[_Run] = []
        for first in range(start, stop, self.batch_size):
            rate = self.schedule(epoch + first / self.n_samples)
            whole = first + self.batch_size <= stop
            if runs and whole and runs[-1].rate == rate:
                runs[-1] = runs[-1]._replace(stop=first + self.batch_size)
            else:
                runs.append(_Run(first, min(first + self.batch_size, stop), rate))
        return runs

    def _learn(self, batch: Array, targets: Array, row_losses: Array, rate: float) -> None:
        if self.trainer is not None:
            self.trainer.learn(batch, targets, rate, row_losses=row_losses)
            return
        self.optimizer.begin_step(rate)
        self.network.step(batch, targets, self.optimizer.update, row_losses)
