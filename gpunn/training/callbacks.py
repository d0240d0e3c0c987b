"""What a training reports: after each epoch, at its end, and to callbacks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn.errors import MissingPackageError, ParameterError
from gpunn.network import Network
from gpunn.network.summary import html_table
from gpunn.ranges import check_count


@dataclass(frozen=True)
class EpochRecord:
    """The results of one epoch.

    Attributes
    ----------
    epoch : int
        Its number, from 1.
    train_loss : float
        The mean loss over the samples of the epoch, each measured just before it was used for a
        step.
    validation_loss, validation_accuracy : float or None
        Loss and accuracy on the validation data after the epoch; None without validation data. The
        accuracy is also None if there are no classes.
    learning_rate : float
        The step size of the epoch's last step.
    seconds : float
        How long the epoch took, with validation.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float


@dataclass
class History:
    """The results of a training.

    Attributes
    ----------
    epochs : list of EpochRecord
        One record for each complete epoch.
    stopped : str
        Why it ended: "finished", "early stopping", "callback", "interrupted" (by Ctrl-C),
        "terminated" (by SIGTERM) or "diverged" (the loss became NaN or infinite).
    best_epoch : int or None
        The epoch with the best validation result; None without validation data.
    restored_best : bool
        Whether the network has the weights of `best_epoch` now, not the last ones.
    n_samples_trained : int
        Number of samples used for steps, over all epochs.
    seconds : float
        How long the whole training took.
    streamed : str or None
        Why samples were copied to the device chunk by chunk; None if they all fitted there.
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
        """The validation accuracy of each epoch; empty if there is none."""
        return [r.validation_accuracy for r in self.epochs if r.validation_accuracy is not None]

    def plot(self, axes: Any = None) -> list[Any]:
        """Draw the loss and, if there is one, the validation accuracy over the epochs.

        See `gpunn.plots.training.plot_history` for the argument and what is returned.
        """
        from gpunn.plots.training import plot_history

        return plot_history(self, axes)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a table and, with matplotlib, the curves."""
        return self._table() + self._curves()

    def _table(self) -> str:
        places = {"first": 1, "best": self.best_epoch, "last": len(self.epochs)}
        rows = []
        for name, epoch in places.items():
            if epoch and epoch <= len(self.epochs):
                record = self.epochs[epoch - 1]
                losses = (record.train_loss, record.validation_loss, record.validation_accuracy)
                texts = ["" if value is None else f"{value:.6g}" for value in losses]
                rows.append((name, str(epoch), *texts))
        heading = f"{len(self.epochs):,} epochs in {self.seconds:.1f} s: {self.stopped}"
        columns = ("", "epoch", "training loss", "validation loss", "validation accuracy")
        return html_table(heading, columns, rows)

    def _curves(self) -> str:
        try:
            from gpunn.plots.training import history_svgs

            if not self.epochs:
                return ""
            curves = "".join(f"<div>{curve}</div>" for curve in history_svgs(self))
            return f'<div style="display:flex;flex-wrap:wrap">{curves}</div>'
        except MissingPackageError:
            return ""


class Callback:
    """Base class for callbacks, which follow a training; override the methods that you need."""

    def on_train_begin(self, network: Network, n_epochs: int, n_samples: int) -> None:
        """Called when a training begins; each of its epochs has `n_samples` samples."""

    def on_streaming(self, reason: str) -> None:
        """Called at the beginning if the samples do not fit on the device; `reason` says why."""

    def on_notice(self, text: str) -> None:
        """Called with a line about checkpoints that the user should see."""

    def on_resume(self, n_samples: int) -> None:
        """Called when the training continues from a checkpoint, after `n_samples` samples."""

    def on_step_end(self, n_samples: int) -> None:
        """Called after one step, or after several that run together, on `n_samples` samples."""

    def on_epoch_end(self, network: Network, record: EpochRecord) -> bool | None:
        """Called when an epoch has ended; return True to end the training."""

    def on_train_end(self, history: History) -> None:
        """Called when the training has ended, for whatever reason."""


def check_callbacks(callbacks: Any) -> None:
    """Raise ParameterError unless these are callbacks."""
    if not isinstance(callbacks, Sequence) or not all(isinstance(c, Callback) for c in callbacks):
        raise ParameterError(f"callbacks must be a list of gpunn.Callback, got {callbacks!r:.60}")


@dataclass(frozen=True)
class EarlyStopping:
    """End the training when validation no longer improves, and restore the best weights.

    Parameters
    ----------
    patience : int
        End the training after this many epochs in a row without an improvement.
    min_delta : float
        By how much more than the best result so far a result must improve, to count as an
        improvement.
    monitor : {"loss", "accuracy"}
        What to watch: the validation loss, which should fall, or the validation accuracy, which
        should rise.

    Raises
    ------
    ParameterError
        If `patience` is below 1, `min_delta` is below 0, or `monitor` is neither of the two.
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
