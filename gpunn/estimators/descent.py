"""Epochs of stochastic gradient descent, as an estimator counts, measures and ends them.

The loss of an epoch is the mean over its samples of their errors, each measured just before it was
learnt from, plus the penalty ``alpha / 2 ||W||^2 / n`` of each step, where n is the number of
samples in the step, or the sum of their weights. It is added up on the device and read once an
epoch.

An epoch without an improvement by `tol` counts; more than `n_iter_no_change` of them in a row end
the training, or divide an adaptive step size. What counts is the loss, or with `early_stopping` the
score on samples that are held out, and the weights of the best score are then restored.

What lasts from one call to the next (`loss_curve_`, `best_loss_` ...) is kept in the estimator.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from gpunn.backends.base import Array
from gpunn.estimators.engine import StepRule
from gpunn.estimators.report import Report
from gpunn.layers import Dropout
from gpunn.network import Network
from gpunn.training.callbacks import Callback, EpochRecord, History
from gpunn.training.loaders import Loader


class Task(NamedTuple):
    """What is learnt: samples, their weights, and how the errors add up to the loss.

    Attributes
    ----------
    samples : Loader
        The samples, in batches.
    weights : ndarray, shape (n,), float64, or None
        What each counts.
    alpha : float
        The strength of the penalty.
    share : float
        What the sum of a sample's errors is multiplied by for the loss alone.
    dropout : float
        How likely a hidden unit sits out a step.
    """

    samples: Loader
    weights: NDArray[np.float64] | None
    alpha: float
    share: float
    dropout: float


class Holdout(NamedTuple):
    """Samples that are not learnt from.

    Attributes
    ----------
    samples : Loader
        The samples, in batches.
    weights : ndarray, shape (n,), float64, or None
        What each counts.
    score : callable
        ``score(outputs)``, the larger the better.
    is_accuracy : bool
        Whether the score is the share of right answers.
    """

    samples: Loader
    weights: NDArray[np.float64] | None
    score: Callable[[NDArray[Any]], float]
    is_accuracy: bool


class Descent:
    """One training.

    Parameters
    ----------
    estimator : estimator
        Whose parameters say how, and whose attributes keep what came of it.
    network : Network
        The network, which is changed in place.
    rule : StepRule
        How it learns.
    task : Task
        What it learns.
    holdout : Holdout or None
        What it is measured on.
    callbacks : sequence of Callback
        Who is told how it goes.
    report : Report
        What is said.
    """

    def __init__(
        self,
        estimator: Any,
        network: Network,
        rule: StepRule,
        task: Task,
        holdout: Holdout | None,
        callbacks: Sequence[Callback],
        report: Report,
    ) -> None:
        self.estimator, self.network, self.rule, self.task = estimator, network, rule, task
        self.holdout, self.callbacks, self.report = holdout, callbacks, report
        self._best: dict[str, Array] = {}
        self._history = History(streamed=task.samples.streamed)

    def run(self, random_state: np.random.RandomState, *, incremental: bool) -> None:
        """Go through the epochs; `incremental` is a single one."""
        estimator = self.estimator
        n_epochs = 1 if incremental else estimator.max_iter
        self.rule.attach(self.network)
        if estimator.early_stopping:
            self._keep_weights()
        self.report.begin(n_epochs)
        for callback in self.callbacks:
            callback.on_train_begin(self.network, n_epochs, self.task.samples.n_samples)
            if self._history.streamed is not None:
                callback.on_streaming(self._history.streamed)
        began = time.perf_counter()
        try:
            self._epochs_until_interrupted(n_epochs, random_state, incremental)
            if estimator.early_stopping:
                self._restore_weights()
        finally:
            self._history.seconds = time.perf_counter() - began
            self.report.end()
            for callback in self.callbacks:
                callback.on_train_end(self._history)

    def _epochs_until_interrupted(
        self, n_epochs: int, random_state: np.random.RandomState, incremental: bool
    ) -> None:
        try:
            self._epochs(n_epochs, random_state, incremental)
        except KeyboardInterrupt:
            self._history.stopped = "interrupted"
            warnings.warn("training interrupted by the user", UserWarning, stacklevel=6)

    def _epochs(
        self, n_epochs: int, random_state: np.random.RandomState, incremental: bool
    ) -> None:
        estimator, n_samples = self.estimator, self.task.samples.n_samples
        order = np.arange(n_samples)
        estimator.n_iter_ = 0
        for _ in range(n_epochs):
            began = time.perf_counter()
            if estimator.shuffle:
                random_state.shuffle(order)  # as sklearn.utils.shuffle does, without its checks
            keys = self._draw_keys(random_state)
            estimator.loss_ = self._epoch(order if estimator.shuffle else None, keys)
            estimator.n_iter_ += 1
            estimator.t_ += n_samples
            estimator.loss_curve_.append(estimator.loss_)
            wishes = self._tell(began, *self._measure())
            self._count_improvements()
            self.rule.end_epoch(estimator.t_)
            if self._is_exhausted():
                self._history.stopped = "early stopping"
                return
            if wishes:
                self._history.stopped = "callback"
                return
            if np.isnan(estimator.loss_):
                return  # The weights are NaN as well, and stay so.
        if not incremental:
            warnings.warn(
                f"{estimator.solver}: max_iter={n_epochs} epochs were reached, and the training "
                "has not converged yet",
                ConvergenceWarning,
                stacklevel=7,
            )

    def _draw_keys(self, random_state: np.random.RandomState) -> list[list[int]] | None:
        """Return what dropout is decided by: a number for each step and hidden layer."""
        if not self.task.dropout:
            return None
        n_steps = -(-self.task.samples.n_samples // self.task.samples.n_rows)
        shape = (n_steps, len(self.network.layers) - 1)
        keys: list[list[int]] = random_state.randint(2**32, size=shape, dtype=np.uint32).tolist()
        return keys

    def _epoch(self, order: NDArray[np.int64] | None, keys: list[list[int]] | None) -> float:
        """Learn from all samples once, and return the loss."""
        task, network, optimizer = self.task, self.network, self.rule.optimizer
        backend, n_rows = network.backend, task.samples.n_rows
        totals, row_weights = self._step_weights(order)
        row_losses = backend.zeros((n_rows,), np.float64)
        penalty = backend.zeros((1,), np.float64)
        for step, (rows, inputs, targets) in enumerate(task.samples.batches(order)):
            n = rows.stop - rows.start
            total = n if totals is None else float(totals[step])
            if total == 0:
                continue  # Samples that count nothing teach nothing.
            if task.alpha:
                for layer in network.layers:
                    backend.add_squares(layer.weights, penalty, alpha=0.5 * task.alpha * n / total)
            optimizer.weight_decay = task.alpha / total  # type: ignore[attr-defined]
            optimizer.begin_step(self.rule.learning_rate)
            network.step(
                inputs,
                targets,
                optimizer.update,
                row_losses[:n],
                row_weights=None if row_weights is None else row_weights[rows],
                dropout=None if keys is None else Dropout(task.dropout, keys[step]),
            )
            for callback in self.callbacks:
                callback.on_step_end(n)
        self._history.n_samples_trained += task.samples.n_samples
        errors = float(backend.to_host(row_losses).sum()) * task.share
        return (errors + float(backend.to_host(penalty)[0])) / task.samples.n_samples

    def _step_weights(
        self, order: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float64] | None, Array | None]:
        """Return the sum of the weights in each step, and the weights, on the device.

        These are in the epoch's order, and scaled so that their mean over a step is 1.
        """
        weights, samples = self.task.weights, self.task.samples
        if weights is None:
            return None, None
        if order is not None:
            weights = weights[order]
        starts = np.arange(0, samples.n_samples, samples.n_rows)
        totals = np.add.reduceat(weights, starts)
        counts = np.diff(starts, append=samples.n_samples)
        shares = np.divide(counts, totals, out=np.zeros_like(totals), where=totals != 0)
        scaled = weights * np.repeat(shares, counts)
        return totals, self.network.backend.asarray(scaled, self.network.dtype)

    def _measure(self) -> tuple[float | None, float | None]:
        """Return the score and the loss on what is held out, and keep both."""
        if self.holdout is None:
            return None, None
        outputs, loss = self._evaluate(self.holdout)
        score = self.holdout.score(outputs)
        self.estimator.validation_scores_.append(score)
        self.estimator.validation_loss_curve_.append(loss)
        return score, loss

    def _evaluate(self, holdout: Holdout) -> tuple[NDArray[Any], float]:
        network, samples, weights = self.network, holdout.samples, holdout.weights
        backend = network.backend
        out = backend.empty((samples.n_rows, network.n_outputs), network.dtype)
        row_losses = backend.zeros((samples.n_rows,), np.float64)
        row_weights = None if weights is None else backend.asarray(weights, network.dtype)
        host = np.empty((samples.n_samples, network.n_outputs), network.dtype)
        for rows, inputs, targets in samples.batches():
            n = rows.stop - rows.start
            network.add_losses(
                inputs,
                targets,
                row_losses[:n],
                out[:n],
                None if row_weights is None else row_weights[rows],
            )
            host[rows] = backend.to_host(out[:n])
        total = samples.n_samples if weights is None else float(weights.sum())
        return host, float(backend.to_host(row_losses).sum()) * self.task.share / total

    def _tell(self, began: float, score: float | None, loss: float | None) -> bool:
        """Tell everyone what an epoch brought; say whether a callback wishes to end."""
        estimator = self.estimator
        self.report.epoch(estimator.n_iter_, estimator.loss_, score)
        record = EpochRecord(
            epoch=estimator.n_iter_,
            train_loss=estimator.loss_,
            validation_loss=loss,
            validation_accuracy=score if self.holdout and self.holdout.is_accuracy else None,
            learning_rate=self.rule.learning_rate,
            seconds=time.perf_counter() - began,
        )
        self._history.epochs.append(record)
        # Every callback hears of the epoch, also after one that ends the training.
        wishes = [callback.on_epoch_end(self.network, record) for callback in self.callbacks]
        return any(wishes)

    def _count_improvements(self) -> None:
        estimator = self.estimator
        if self.holdout is not None:
            score = estimator.validation_scores_[-1]
            improved = not score < estimator.best_validation_score_ + estimator.tol
            if score > estimator.best_validation_score_:
                estimator.best_validation_score_ = score
                self._history.best_epoch = estimator.n_iter_
                if estimator.early_stopping:
                    self._keep_weights()
        if not estimator.early_stopping:
            improved = not estimator.loss_ > estimator.best_loss_ - estimator.tol
            estimator.best_loss_ = min(estimator.best_loss_, estimator.loss_)
        estimator._no_improvement_count = 0 if improved else estimator._no_improvement_count + 1

    def _is_exhausted(self) -> bool:
        """Say whether to end, after a step size has been divided as often as it may be."""
        estimator, rule = self.estimator, self.rule
        if estimator._no_improvement_count <= estimator.n_iter_no_change:
            return False
        what = "Validation score" if estimator.early_stopping else "Training loss"
        text = (
            f"{what} did not improve more than tol={estimator.tol:f} for "
            f"{estimator.n_iter_no_change} consecutive epochs."
        )
        if rule.slow_down():
            self.report.say(f"{text} Setting learning rate to {rule.learning_rate:f}")
            estimator._no_improvement_count = 0
            return False
        too_small = "" if rule.schedule != "adaptive" else " Learning rate too small."
        self.report.say(f"{text}{too_small} Stopping.")
        return True

    def _keep_weights(self) -> None:
        backend = self.network.backend
        for name, array in self.network.device_parameters().items():
            if name not in self._best:
                self._best[name] = backend.empty(array.shape, array.dtype)
            backend.copy_into(array, self._best[name])

    def _restore_weights(self) -> None:
        for name, array in self.network.device_parameters().items():
            self.network.backend.copy_into(self._best[name], array)
        self._history.restored_best = True
