"""How far a training has come, and how it is put into a checkpoint and taken out of one.

All that changes in a training, and that its result depends on, is in a snapshot: the weights, what
the optimizer remembers, the best weights so far, the samples' losses in this epoch, what the
stopping policy remembers, and the plain values of `Progress`. The order of an epoch's samples is
not: the state of the random numbers from before it was drawn is, and so it is drawn again.

Nothing in a snapshot is believed: all of it is checked before anything is changed.
"""

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Array
from gpunn.errors import ModelFileError, ParameterError
from gpunn.parallel.pulse import Pulse
from gpunn.training.best import BestWeights
from gpunn.training.callbacks import EpochRecord, History
from gpunn.training.checkpoints import Content, differences
from gpunn.training.plan import Plan
from gpunn.training.stopping import is_number

SMALLEST_FACTOR = 2.0**-10
"""A training that diverges even at this part of its step size is given up."""

CUT_SHORT = ("interrupted", "terminated", "diverged")
"""How a training is called that ended before it would have."""


@dataclass
class Progress:
    """How far a training has come, in plain values, which have these names in checkpoints.

    `epoch` epochs are whole, and `first` samples of the next one are learnt from, the last of them
    at step size `rate`. `generator` is the random numbers' state from before that epoch.
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


class TrainingState:
    """All that changes in a training.

    Parameters
    ----------
    plan : Plan
        What does not change.

    Attributes
    ----------
    progress : Progress
        How far it has come.
    history : History
        What it has brought.
    best : BestWeights
        The weights of the best epoch so far.
    row_losses : Array, shape (n_rows,), float64
        The samples' losses in this epoch, added up for each place in a batch.
    pulse : Pulse
        The clock, and the signal that has come.
    began, epoch_began : float
        When the training and the epoch began, by `time.perf_counter`.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.progress = Progress(plan.draws.before)
        self.history = History(streamed=plan.streamed)
        self.best = BestWeights(plan.network)
        self.row_losses = self._new_row_losses()
        self.pulse = Pulse(plan.network.sharing.ranks)
        self.began = self.epoch_began = time.perf_counter()

    def begin_epoch(self) -> None:
        """Count an epoch as whole, and begin the next one."""
        progress = self.progress
        self.plan.draws.begin_epoch()
        progress.generator = self.plan.draws.before
        progress.epoch, progress.first, progress.epoch_seconds = progress.epoch + 1, 0, 0.0
        backend = self.plan.network.backend
        backend.copy_into(self._new_row_losses(), self.row_losses)

    def _new_row_losses(self) -> Array:
        return self.plan.network.backend.zeros((self.plan.loader.n_rows,), np.float64)

    def _arrays(self) -> dict[str, Array]:
        """Return the arrays on the device that change in a training, by name."""
        plan = self.plan
        arrays = plan.network.device_parameters() | plan.optimizer.state()
        arrays |= {f"best.{name}": array for name, array in self.best.arrays.items()}
        return arrays | plan.trainer.arrays()

    def snapshot(self) -> Content | None:
        """Return all that the rest of the training depends on; None if it is not all finite."""
        plan, progress, now = self.plan, self.progress, time.perf_counter()
        progress.seconds = now - self.began
        progress.epoch_seconds = now - self.epoch_began if progress.first else 0.0
        progress.n_optimizer_steps = plan.optimizer.n_steps
        progress.ended = self.history.stopped == "early stopping"
        to_host = plan.network.backend.to_host
        arrays = {name: to_host(array) for name, array in self._arrays().items()}
        arrays["row_losses"] = to_host(self.row_losses)
        finite = all(np.isfinite(array).all() for array in arrays.values())
        if plan.network.sharing.ranks.any(not finite):
            return None
        arrays |= plan.draws.arrays()
        state = {
            "progress": dataclasses.asdict(progress),
            "history": [dataclasses.asdict(record) for record in self.history.epochs],
            "best": plan.policy.state(),
        }
        checkpoint = {"made_for": plan.fingerprint, "state": state}
        header = {**plan.network.header(), "checkpoint": checkpoint}
        return Content(arrays, header, plan.network.sharing)

    def restore(self, content: Content) -> None:
        """Go to where a snapshot was made.

        Raises
        ------
        ModelFileError
            If it makes no sense. Nothing has been changed then.
        ParameterError
            If it is of a training of another kind.
        """
        plan, arrays = self.plan, content.arrays
        try:
            checkpoint = content.header["checkpoint"]
            fingerprint, state = checkpoint["made_for"], checkpoint["state"]
            if other := differences(fingerprint, plan.fingerprint):
                raise ParameterError(
                    f"made for another training: {'; '.join(other[:6])}; use the same data and "
                    "settings, or another folder"
                )
            progress = Progress(**state["progress"])
            if len(state["progress"]) != len(dataclasses.fields(progress)):
                raise ModelFileError("a part of its state is missing")
            progress.check(plan.n_epochs, plan.loader.n_samples)
            records = [EpochRecord(**record) for record in state["history"]]
            _check_records(records, progress.epoch)
            has_best = plan.policy.check(state["best"], progress.epoch)
            self._check_arrays(arrays, has_best=has_best)
            plan.draws.check(progress.generator, arrays)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            if isinstance(error, ModelFileError | ParameterError):
                raise
            raise ModelFileError(f"its state makes no sense: {error!r:.100}") from error
        plan.draws.restore(progress.generator, arrays)
        plan.policy.restore(state["best"])
        plan.optimizer.n_steps = progress.n_optimizer_steps
        self.progress, self.history.epochs = progress, records
        self.history.stopped = "early stopping" if progress.ended else "finished"
        self._restore_arrays(arrays, has_best=has_best)

    def _restore_arrays(self, arrays: dict[str, NDArray[Any]], *, has_best: bool) -> None:
        backend = self.plan.network.backend
        self.best.arrays.clear()
        if has_best:
            self.best.allocate()
        for name, array in self._arrays().items():
            backend.copy_into(backend.asarray(arrays[name]), array)
        losses = arrays["row_losses"]
        if losses.shape != self.row_losses.shape:
            # Another device takes other steps together. Only the sum matters.
            whole = np.zeros(self.row_losses.shape)
            whole[0] = losses.sum()
            losses = whole
        backend.copy_into(backend.asarray(losses), self.row_losses)

    def _check_arrays(self, arrays: dict[str, NDArray[Any]], *, has_best: bool) -> None:
        """Raise ModelFileError unless these are the arrays of a snapshot of this training."""
        parameters = self.plan.network.device_parameters()
        expected = parameters | self.plan.optimizer.state()
        if has_best:
            expected |= {f"best.{name}": array for name, array in parameters.items()}
        expected |= self.plan.trainer.arrays()
        for name, array in expected.items():
            found = arrays.get(name)
            if found is None or found.shape != array.shape or found.dtype != array.dtype:
                raise ModelFileError(f"expected {name} as {array.dtype} {array.shape}")
        losses = arrays.get("row_losses")
        if losses is None or losses.ndim != 1 or losses.dtype != np.float64:
            raise ModelFileError("expected row_losses as a list of float64")


def _check_records(records: list[EpochRecord], n_epochs: int) -> None:
    numbers = [value for record in records for value in vars(record).values() if value is not None]
    numbered = [record.epoch for record in records] == list(range(1, n_epochs + 1))
    if not numbered or not all(map(is_number, numbers)):
        raise ModelFileError("its history makes no sense")
