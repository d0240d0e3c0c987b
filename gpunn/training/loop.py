"""The loop of every training: epochs, steps, validation, and an end in good order.

`gpunn.fit`, the command line and the estimators are its callers. What they differ in is in the
`Plan`: how a step is done, what is drawn at random, how large steps are, and when to stop. What a
training can go on from is in `gpunn.training.state`.
"""

import time
from typing import NamedTuple

from gpunn.schedules import Schedule
from gpunn.training.callbacks import EpochRecord, History
from gpunn.training.evaluation import measure
from gpunn.training.plan import Plan
from gpunn.training.saver import CheckpointSaver
from gpunn.training.signals import Interrupt, interruptible
from gpunn.training.state import CUT_SHORT, TrainingState


class _Steps(NamedTuple):
    """Steps of one step size, from sample `start` to sample `stop` of an epoch."""

    start: int
    stop: int
    learning_rate: float


class Loop:
    """One training.

    Parameters
    ----------
    plan : Plan
        What is learnt, and how.

    Attributes
    ----------
    state : TrainingState
        How far it has come.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.state = plan, TrainingState(plan)
        schedule, checkpoints = plan.learning_rate, plan.checkpoints
        self._has_one_rate = isinstance(schedule, Schedule) and schedule.is_constant
        self._saver = None if checkpoints is None else CheckpointSaver(self.state, checkpoints)

    def run(self) -> History:
        """Train, and return what happened.

        Raises
        ------
        ConcurrencyError
            If another thread is training the network.
        """
        with self.plan.network.training():
            return self._run()

    def _run(self) -> History:
        plan, state, history = self.plan, self.state, self.state.history
        state.began = time.perf_counter()
        for callback in plan.callbacks:
            callback.on_train_begin(plan.network, plan.n_epochs, plan.loader.n_samples)
            if history.streamed is not None:
                callback.on_streaming(history.streamed)
        try:
            with interruptible() as interrupt:
                if self._saver is not None:
                    self._saver.begin()
                    state.began -= state.progress.seconds
                plan.network.forget_training()
                while history.stopped == "finished" and state.progress.epoch < plan.n_epochs:
                    self._epoch(interrupt)
            history.best_epoch = plan.policy.best_epoch
            if plan.policy.restores_best or history.stopped in CUT_SHORT:
                history.restored_best = state.best.restore()
            plan.network.backend.synchronize()
        finally:
            history.n_samples_trained = state.progress.n_samples_trained
            history.seconds = time.perf_counter() - state.began
            for callback in plan.callbacks:
                callback.on_train_end(history)
        return history

    def _epoch(self, interrupt: Interrupt) -> None:
        """Go through the samples of an epoch that are left, unless a signal comes."""
        plan, state, progress = self.plan, self.state, self.state.progress
        state.epoch_began = time.perf_counter() - progress.epoch_seconds
        trainer, keys_shape = plan.trainer, plan.trainer.keys_shape
        order, keys = plan.draws.draw(plan.loader, shuffle=plan.shuffle, keys=keys_shape)
        trainer.begin_epoch(order, keys, progress.first, self._rate_at)
        for rows, inputs, targets in trainer.batches(plan.loader, order, progress.first):
            steps = self._steps(rows.start, rows.stop)
            for start, stop, progress.rate in steps:
                part = slice(start - rows.start, stop - rows.start)
                losses = state.row_losses[part]
                if len(steps) > 1:
                    X, T = inputs[part], targets[part]
                else:  # most are a single step, which need not be cut out
                    X, T = inputs, targets
                trainer.learn(X, T, progress.rate, row_losses=losses)
            n_rows = rows.stop - rows.start
            progress.first = rows.stop
            progress.n_samples_trained += n_rows
            for callback in plan.callbacks:
                callback.on_step_end(n_rows)
            # Looked at once only, for a signal may come at any moment.
            state.pulse.beat(interrupt.kind)
            state.history.stopped = state.pulse.kind or "finished"
            if self._saver is not None:
                self._saver.after_steps(-(-n_rows // plan.batch_size))
            if state.history.stopped != "finished":
                return
        self._finish_epoch()

    def _steps(self, start: int, stop: int) -> list[_Steps]:
        """Return the steps from sample `start` to `stop`, those of one step size together.

        Only whole steps go together; an epoch's last step, if it is shorter, stays alone.
        """
        plan = self.plan
        if self._has_one_rate:
            rate, whole = self._rate_at(start), stop - (stop - start) % plan.batch_size
            parts = [(start, whole), (whole, stop)]
            return [_Steps(*part, rate) for part in parts if part[0] < part[1]]
        steps: list[_Steps] = []
        for first in range(start, stop, plan.batch_size):
            rate = self._rate_at(first)
            whole = first + plan.batch_size <= stop
            if steps and whole and steps[-1].learning_rate == rate:
                steps[-1] = steps[-1]._replace(stop=first + plan.batch_size)
            else:
                steps.append(_Steps(first, min(first + plan.batch_size, stop), rate))
        return steps

    def _rate_at(self, first: int) -> float:
        """Return the step size of the step that begins with the sample at that place."""
        plan, progress = self.plan, self.state.progress
        rate = plan.learning_rate(progress.epoch + first / plan.loader.n_samples)
        return rate * progress.rate_factor

    def _finish_epoch(self) -> None:
        """Measure what an epoch brought, and decide whether the training goes on."""
        plan, history = self.plan, self.state.history
        record, score = self._measure()
        verdict = plan.policy.consider(record, score)
        if verdict.diverged:
            if self._saver is not None and plan.halve_rate and self._saver.halve_rate():
                return
            history.stopped = "diverged"
        elif verdict.is_best and plan.policy.keeps_best:
            self.state.best.keep()
        history.epochs.append(record)
        self.state.begin_epoch()
        # Every callback hears of the epoch, also after one that ends the training.
        wishes = [callback.on_epoch_end(plan.network, record) for callback in plan.callbacks]
        if verdict.notice is not None:
            plan.notice(verdict.notice)
        if verdict.diverged:
            return
        if plan.network.sharing.ranks.any(any(wishes)):
            history.stopped = "callback"
        elif verdict.stop:
            history.stopped = "early stopping"
        if self._saver is not None:
            self._saver.after_epoch()

    def _measure(self) -> tuple[EpochRecord, float | None]:
        """Return what an epoch brought, and how good the predictions of held-out samples are."""
        plan, progress = self.plan, self.state.progress
        loss = float(plan.network.backend.to_host(self.state.row_losses).sum()) * plan.loss_share
        loss += plan.trainer.end_epoch()
        evaluation = score = accuracy = None
        if plan.holdout is not None:
            evaluation = measure(plan.network, plan.holdout, loss_share=plan.loss_share)
            score = accuracy = evaluation.accuracy
            if plan.holdout.score is not None and evaluation.outputs is not None:
                score = plan.holdout.score(evaluation.outputs)
                accuracy = score if plan.holdout.scores_accuracy else None
        record = EpochRecord(
            epoch=progress.epoch + 1,
            train_loss=loss / plan.loader.n_samples,
            validation_loss=None if evaluation is None else evaluation.loss,
            validation_accuracy=accuracy,
            learning_rate=progress.rate,
            seconds=time.perf_counter() - self.state.epoch_began,
        )
        # What ranks decide by it, all decide alike.
        return plan.network.sharing.ranks.same((record, score))
