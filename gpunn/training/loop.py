"""The loop of a training: epochs, steps, validation, and the state to go on from.

All that changes in a training, and that its result depends on, is in `Loop.snapshot`: the weights,
what the optimizer remembers, the best weights so far, the samples' errors in this epoch, and the
plain values of `Progress`. The order of an epoch's samples is not: the state of the random
generator from before it was drawn is, and so it is drawn again.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Array
from gpunn.errors import ModelFileError, OutputError, ParameterError
from gpunn.network import Network
from gpunn.optimizers import Optimizer, Schedule
from gpunn.training.batches import BatchTrainer
from gpunn.training.callbacks import Callback, EarlyStopping, EpochRecord, History
from gpunn.training.checkpoints import Checkpoints, Content, differences
from gpunn.training.evaluation import evaluate_samples
from gpunn.training.loaders import Loader
from gpunn.training.online import OnlineTrainer
from gpunn.training.signals import Interrupt, interruptible

SMALLEST_FACTOR = 2.0**-10
"""A training that diverges even at this part of its step size is given up."""

Trainer = BatchTrainer | OnlineTrainer
"""What takes several steps of one step size at once."""


class _Run(NamedTuple):
    """Steps of one step size, from sample `start` to sample `stop` of an epoch."""

    start: int
    stop: int
    rate: float


@dataclass
class Progress:
    """How far a training has come, in plain values.

    `epoch` epochs are whole, and `first` samples of the next one are learnt from, the last of them
    at step size `rate`. `generator` is the random generator's state from before that epoch.
    """

    generator: dict[str, Any]
    epoch: int = 0
    first: int = 0
    rate: float = 0.0
    rate_factor: float = 1.0
    n_samples_trained: int = 0
    n_optimizer_steps: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    ended: bool = False

    def check(self, n_epochs: int, n_samples: int) -> None:
        """Raise ModelFileError unless a training of that length can be here."""
        counts = (self.epoch, self.first, self.n_samples_trained, self.n_optimizer_steps)
        numbers = (self.rate, self.rate_factor, self.seconds, self.epoch_seconds)
        if (
            not all(type(count) is int and 0 <= count < 2**63 for count in counts)
            or not all(type(x) in (int, float) and 0 <= x < math.inf for x in numbers)
            or not isinstance(self.ended, bool)
            or self.epoch > n_epochs
            or self.first > (n_samples if self.epoch < n_epochs else 0)
            or not SMALLEST_FACTOR <= self.rate_factor <= 1
        ):
            raise ModelFileError(f"its state makes no sense: {self!r:.200}")


class BestWeights:
    """The weights that did best in validation so far, in a copy on the device."""

    def __init__(self, network: Network, rule: EarlyStopping) -> None:
        self.network, self.rule = network, rule
        self.epoch: int | None = None
        self.score = -math.inf
        self.since = 0
        self.weights: dict[str, Array] = {}

    def consider(self, record: EpochRecord) -> None:
        """Keep the weights if this epoch was the best one."""
        score = record.validation_accuracy
        if self.rule.monitor == "loss" and record.validation_loss is not None:
            score = -record.validation_loss
        if score is not None and score > self.score + self.rule.min_delta:
            self.epoch, self.score, self.since = record.epoch, score, 0
            self.allocate()
            for name, array in self.network.device_parameters().items():
                self.network.backend.copy_into(array, self.weights[name])
        else:
            self.since += 1

    def allocate(self) -> None:
        """Make room for the weights, unless there is."""
        for name, array in self.network.device_parameters().items():
            if name not in self.weights:
                self.weights[name] = self.network.backend.empty(array.shape, array.dtype)

    def is_exhausted(self) -> bool:
        """Say whether patience has run out."""
        return self.since >= self.rule.patience

    def restore(self) -> bool:
        """Give the network the best weights back, if there are any; say whether there were."""
        if self.epoch is None:
            return False
        for name, array in self.network.device_parameters().items():
            self.network.backend.copy_into(self.weights[name], array)
        return True


@dataclass
class Plan:
    """What stays the same over a training.

    `made_for` says in plain values what its checkpoints may be used for.
    """

    network: Network
    samples: Loader
    trainer: Trainer | None
    n_epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    shuffle: bool
    generator: np.random.Generator
    validation: Loader | None
    early_stopping: EarlyStopping | None
    callbacks: Sequence[Callback]
    checkpoints: Checkpoints | None
    made_for: dict[str, Any]
    halve_rate: bool


_CUT_SHORT = ("interrupted", "terminated", "diverged")


class Loop:
    """One training."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.network = plan, plan.network
        self.backend = plan.network.backend
        plan.optimizer.prepare(plan.network)
        streamed = plan.samples.streamed
        if streamed is None and plan.validation is not None:
            streamed = plan.validation.streamed
        self.history = History(streamed=streamed)
        self.best = BestWeights(plan.network, plan.early_stopping or EarlyStopping())
        self.progress = Progress(dict(plan.generator.bit_generator.state))
        self.row_losses = self._zeros()
        self._saver = None if plan.checkpoints is None else CheckpointSaver(self, plan.checkpoints)

    def run(self) -> History:
        """Train, and return what happened."""
        history, plan = self.history, self.plan
        self._began = time.perf_counter()
        for callback in plan.callbacks:
            callback.on_train_begin(self.network, plan.n_epochs, plan.samples.n_samples)
            if history.streamed is not None:
                callback.on_streaming(history.streamed)
        try:
            with interruptible() as interrupt:
                if self._saver is not None:
                    self._saver.begin()
                    self._began -= self.progress.seconds
                while history.stopped == "finished" and self.progress.epoch < plan.n_epochs:
                    self._epoch(interrupt)
            history.best_epoch = self.best.epoch
            if plan.early_stopping is not None or history.stopped in _CUT_SHORT:
                history.restored_best = self.best.restore()
            self.backend.synchronize()
        finally:
            history.n_samples_trained = self.progress.n_samples_trained
            history.seconds = time.perf_counter() - self._began
            for callback in plan.callbacks:
                callback.on_train_end(history)
        return history

    def _epoch(self, interrupt: Interrupt) -> None:
        """Go through the samples of an epoch that are left, unless a signal comes."""
        plan, progress = self.plan, self.progress
        self._epoch_began = time.perf_counter() - progress.epoch_seconds
        order = plan.samples.draw_order(plan.generator) if plan.shuffle else None
        for part, inputs, targets in plan.samples.batches(order, progress.first):
            start, stop = part.start, part.stop
            for run in self._runs(start, stop):
                progress.rate = run.rate
                rows = slice(run.start - start, run.stop - start)
                self._learn(inputs[rows], targets[rows], self.row_losses[rows], run.rate)
            progress.first = stop
            progress.n_samples_trained += stop - start
            for callback in plan.callbacks:
                callback.on_step_end(stop - start)
            # Looked at once only, for a signal may come at any moment.
            self.history.stopped = interrupt.kind or "finished"
            if self._saver is not None:
                self._saver.after_steps(-(-(stop - start) // plan.batch_size))
            if self.history.stopped != "finished":
                return
        self._finish_epoch()

    def _runs(self, start: int, stop: int) -> list[_Run]:
        """Return the steps from sample `start` to `stop`, those of one step size together.

        Only whole steps go together; an epoch's last step, if it is shorter, stays alone.
        """
        plan, progress = self.plan, self.progress
        runs: list[_Run] = []
        for first in range(start, stop, plan.batch_size):
            rate = plan.schedule(progress.epoch + first / plan.samples.n_samples)
            rate *= progress.rate_factor
            whole = first + plan.batch_size <= stop
            if runs and whole and runs[-1].rate == rate:
                runs[-1] = runs[-1]._replace(stop=first + plan.batch_size)
            else:
                runs.append(_Run(first, min(first + plan.batch_size, stop), rate))
        return runs

    def _learn(self, batch: Array, targets: Array, row_losses: Array, rate: float) -> None:
        trainer, optimizer = self.plan.trainer, self.plan.optimizer
        if trainer is not None:
            trainer.learn(batch, targets, rate, row_losses=row_losses)
            return
        optimizer.begin_step(rate)
        self.network.step(batch, targets, optimizer.update, row_losses)

    def _finish_epoch(self) -> None:
        """Measure what an epoch brought, and say whether the training is to go on."""
        plan, progress, history = self.plan, self.progress, self.history
        samples, validation = plan.samples, plan.validation
        evaluation = None if validation is None else evaluate_samples(self.network, validation)
        record = EpochRecord(
            epoch=progress.epoch + 1,
            train_loss=float(self.backend.to_host(self.row_losses).sum()) / samples.n_samples,
            validation_loss=None if evaluation is None else evaluation.loss,
            validation_accuracy=None if evaluation is None else evaluation.accuracy,
            learning_rate=progress.rate,
            seconds=time.perf_counter() - self._epoch_began,
        )
        if self._has_diverged(record):
            if self._saver is not None and plan.halve_rate and self._saver.halve_rate():
                return
            history.stopped = "diverged"
        else:
            self.best.consider(record)
        history.epochs.append(record)
        progress.generator = dict(plan.generator.bit_generator.state)
        progress.epoch, progress.first, progress.epoch_seconds = progress.epoch + 1, 0, 0.0
        self.row_losses = self._zeros()
        # Every callback hears of the epoch, also after one that ends the training.
        wishes = [callback.on_epoch_end(self.network, record) for callback in plan.callbacks]
        if history.stopped == "diverged":
            return
        if any(wishes):
            history.stopped = "callback"
        elif plan.early_stopping is not None and self.best.is_exhausted():
            history.stopped = "early stopping"
        if self._saver is not None:
            self._saver.after_epoch()

    @staticmethod
    def _has_diverged(record: EpochRecord) -> bool:
        losses = (record.train_loss, record.validation_loss or 0.0)
        return not all(map(math.isfinite, losses))

    def _zeros(self) -> Array:
        return self.backend.zeros((self.plan.samples.n_rows,), np.float64)

    # The state to go on from.

    def _arrays(self) -> dict[str, Array]:
        """Return the arrays that change in a training, by name."""
        arrays = self.network.device_parameters() | self.plan.optimizer.state()
        if self.best.epoch is not None:
            arrays |= {f"best.{name}": array for name, array in self.best.weights.items()}
        return arrays

    def snapshot(self) -> Content | None:
        """Return all that the rest of the training depends on; None if it is not all finite."""
        progress, now = self.progress, time.perf_counter()
        progress.seconds = now - self._began
        progress.epoch_seconds = now - self._epoch_began if progress.first else 0.0
        progress.n_optimizer_steps = self.plan.optimizer.n_steps
        progress.ended = self.history.stopped == "early stopping"
        arrays = {name: self.backend.to_host(array) for name, array in self._arrays().items()}
        arrays["row_losses"] = self.backend.to_host(self.row_losses)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return None
        state = {
            "progress": _plain(dataclasses.asdict(progress)),
            "history": [dataclasses.asdict(record) for record in self.history.epochs],
            "best": {
                "epoch": self.best.epoch,
                "score": self.best.score if self.best.epoch is not None else None,
                "since": self.best.since,
            },
        }
        checkpoint = {"made_for": self.plan.made_for, "state": state}
        return Content(arrays, {**self.network.header(), "checkpoint": checkpoint})

    def restore(self, content: Content) -> None:
        """Go to where a snapshot was made.

        Raises
        ------
        ModelFileError
            If it makes no sense. Nothing has been changed then.
        ParameterError
            If it is of a training of another kind.
        """
        plan = self.plan
        try:
            checkpoint = content.header["checkpoint"]
            made_for, state = checkpoint["made_for"], checkpoint["state"]
            if other := differences(made_for, plan.made_for):
                raise ParameterError(f"made for another training: {'; '.join(other[:6])}")
            progress = Progress(**state["progress"])
            if len(state["progress"]) != len(dataclasses.fields(progress)):
                raise ModelFileError("its state is not all there")
            progress.check(plan.n_epochs, plan.samples.n_samples)
            records = [EpochRecord(**record) for record in state["history"]]
            _check_records(records, progress.epoch)
            best = state["best"]
            _check_best(best, progress.epoch)
            self._check_arrays(content.arrays, keeps_best=best["epoch"] is not None)
            _set_generator(plan.generator, progress.generator)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            if isinstance(error, ModelFileError | ParameterError):
                raise
            raise ModelFileError(f"its state makes no sense: {error!r:.100}") from error
        self.progress, self.history.epochs = progress, records
        self.history.stopped = "early stopping" if progress.ended else "finished"
        plan.optimizer.n_steps = progress.n_optimizer_steps
        self.best.epoch, self.best.score, self.best.since = best["epoch"], -math.inf, best["since"]
        if best["epoch"] is not None:
            self.best.score = best["score"]
            self.best.allocate()
        for name, array in self._arrays().items():
            self.backend.copy_into(self.backend.asarray(content.arrays[name]), array)
        self._restore_losses(content.arrays["row_losses"])

    def _check_arrays(self, arrays: dict[str, NDArray[Any]], *, keeps_best: bool) -> None:
        """Raise ModelFileError unless these are the arrays of a snapshot of this training."""
        parameters = self.network.device_parameters()
        expected = parameters | self.plan.optimizer.state()
        if keeps_best:
            expected |= {f"best.{name}": array for name, array in parameters.items()}
        for name, array in expected.items():
            found = arrays.get(name)
            if found is None or found.shape != array.shape or found.dtype != array.dtype:
                raise ModelFileError(f"expected {name} as {array.dtype} {array.shape}")
        losses = arrays.get("row_losses")
        if losses is None or losses.ndim != 1 or losses.dtype != np.float64:
            raise ModelFileError("expected row_losses as a list of float64")

    def _restore_losses(self, losses: NDArray[Any]) -> None:
        if losses.shape != self.row_losses.shape:
            # Another device takes other steps together. Only the sum matters.
            whole = np.zeros(self.row_losses.shape)
            whole[0] = losses.sum()
            losses = whole
        self.row_losses = self._zeros()
        self.backend.copy_into(self.backend.asarray(losses), self.row_losses)


class CheckpointSaver:
    """Makes a training's checkpoints when they are due, and goes back to them."""

    def __init__(self, loop: Loop, checkpoints: Checkpoints) -> None:
        self.loop, self.checkpoints = loop, checkpoints
        self.period = checkpoints.period
        self._start_counting()

    def begin(self) -> None:
        """Go on from the newest checkpoint if that is wished, else make the first one."""
        self.checkpoints.remove_unfinished()
        if self.checkpoints.resume and self._go_back():
            return
        if self.checkpoints.resume:
            self._notice(
                f"{self.checkpoints.folder} has no checkpoints: training from the beginning"
            )
        content = self.loop.snapshot()
        if content is None:
            raise ParameterError("the network's weights are not finite: there is nothing to keep")
        self.checkpoints.write(content)

    def after_steps(self, n_steps: int) -> None:
        """Make a checkpoint if it is time, or if a signal has ended the training."""
        self._counts["steps"] += n_steps
        if self._is_due() or self.loop.history.stopped in _CUT_SHORT:
            self._keep()

    def after_epoch(self) -> None:
        """Make a checkpoint if it is time, or if the training has ended."""
        loop = self.loop
        self._counts["epochs"] += 1
        ended = loop.history.stopped != "finished" or loop.progress.epoch == loop.plan.n_epochs
        if (self._is_due() or ended) and not self._keep() and ended:
            # The last steps do not show in any epoch's error, but in the weights.
            loop.history.stopped = "diverged"

    def halve_rate(self) -> bool:
        """Go back and halve the step size, if that can be done; say whether it was."""
        factor = self.loop.progress.rate_factor / 2
        if factor < SMALLEST_FACTOR or not self._go_back():
            return False
        self.loop.progress.rate_factor = factor
        self._notice(f"the training diverged: going on with {factor:g} of its learning rate")
        self._keep()
        return True

    def _start_counting(self) -> None:
        self._counts = {"steps": 0, "epochs": 0}
        self._since = time.perf_counter()

    def _is_due(self) -> bool:
        passed = {"seconds": time.perf_counter() - self._since, **self._counts}
        return passed[self.period.unit] >= self.period.number

    def _keep(self) -> bool:
        """Make a checkpoint unless the state is not finite, and say whether it was.

        A full disk does not end a training.
        """
        content = self.loop.snapshot()
        if content is not None:
            try:
                path = self.checkpoints.write(content)
            except OutputError as error:
                self._notice(f"no checkpoint: {error}; the training goes on")
            else:
                if self.loop.history.stopped in _CUT_SHORT:
                    self._notice(f"checkpoint: {path}")
        self._start_counting()
        return content is not None

    def _go_back(self) -> bool:
        path = self.checkpoints.restore(self.loop.restore, self._notice)
        if path is None:
            return False
        progress = self.loop.progress
        within = f" and {progress.first:,} samples" if progress.first else ""
        self._notice(f"going on from {path}, after {progress.epoch} epochs{within}")
        for callback in self.loop.plan.callbacks:
            callback.on_resume(progress.n_samples_trained)
        return True

    def _notice(self, text: str) -> None:
        for callback in self.loop.plan.callbacks:
            callback.on_notice(text)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _check_records(records: list[EpochRecord], n_epochs: int) -> None:
    numbers = [value for record in records for value in vars(record).values() if value is not None]
    numbered = [record.epoch for record in records] == list(range(1, n_epochs + 1))
    if not numbered or not all(map(_is_number, numbers)):
        raise ModelFileError("its history makes no sense")


def _check_best(best: dict[str, Any], n_epochs: int) -> None:
    epoch, since = best["epoch"], best["since"]
    none = epoch is None and best["score"] is None
    one = type(epoch) is int and 1 <= epoch <= n_epochs and _is_number(best["score"])
    if not (none or one) or type(since) is not int or not 0 <= since <= n_epochs:
        raise ModelFileError(f"its best epoch makes no sense: {best!r:.100}")


def _set_generator(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Set a random generator's state, if it has the form of the one it has: NumPy believes all."""
    fits = _has_form_of(state, _plain(generator.bit_generator.state))
    if not fits or not 0 <= state.get("buffer_pos", 0) <= 4 or not 0 <= _pos(state) <= 624:
        raise ModelFileError("the state of its random generator makes no sense")
    generator.bit_generator.state = _with_arrays(state)


def _pos(state: dict[str, Any]) -> int:
    return int(state["state"].get("pos", 0))


def _has_form_of(value: Any, own: Any) -> bool:
    """Whether plain values have the same types, names and numbers of items as others."""
    if type(value) is not type(own):
        return False
    if isinstance(own, dict):
        return value.keys() == own.keys() and all(_has_form_of(value[k], own[k]) for k in own)
    if isinstance(own, list):
        return len(value) == len(own) and all(map(_has_form_of, value, own))
    return True


def _plain(value: Any) -> Any:
    """Return a generator's state as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any) -> Any:
    """Return a generator's state as NumPy has it."""
    if isinstance(value, dict):
        return {key: _with_arrays(item) for key, item in value.items()}
    return np.array(value, np.uint64) if isinstance(value, list) else value
