"""What a training tells of itself: epoch by epoch, at its end, and to whoever wants to hear."""

from dataclasses import dataclass, field

import numpy as np

from gpunn.errors import ParameterError
from gpunn.network import Network
from gpunn.ranges import check_count


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
    stopped : str
        Why it ended: "finished", "early stopping", "callback", "interrupted" (by Ctrl-C),
        "terminated" (by SIGTERM) or "diverged" (an error is no longer a finite number).
    best_epoch : int or None
        The epoch that did best in validation; None without validation data.
    restored_best : bool
        Whether the network was left with the weights of `best_epoch`, not with the last ones.
    n_samples_trained : int
        Samples learnt from, over all epochs.
    seconds : float
        The whole training's duration.
    streamed : str or None
        Why samples were brought to the device chunk by chunk; None if they fitted there.
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

    def on_notice(self, text: str) -> None:
        """Hear a line about checkpoints that a person should know of."""

    def on_resume(self, n_samples: int) -> None:
        """Hear that the training goes on from a checkpoint, where it had learnt from so many."""

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
