"""What an estimator prints while it learns, if ``verbose`` says so.

1 (or True) prints a line for each epoch, in scikit-learn's words; 2 or more shows a bar instead, on
a terminal or in a notebook.
"""

from typing import Any

from gpunn.network import Network
from gpunn.training.callbacks import Callback, EpochRecord, History
from gpunn.training.state import CUT_SHORT


class EpochLines(Callback):
    """A line for each epoch, on standard output.

    Parameters
    ----------
    estimator : estimator
        Whose validation scores are printed, where there are any.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def on_epoch_end(self, network: Network, record: EpochRecord) -> None:
        """Print the loss, and the validation score where there is one."""
        print(f"Iteration {record.epoch}, loss = {record.train_loss:.8f}")
        if record.validation_loss is not None:
            print(f"Validation score: {self.estimator.validation_scores_[-1]:f}")

    def on_notice(self, text: str) -> None:
        """Print the line."""
        print(text)


class EpochBar(Callback):
    """A progress bar over the epochs, on standard error or in a notebook.

    Parameters
    ----------
    estimator : estimator
        As in `EpochLines`.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def on_train_begin(self, network: Network, n_epochs: int, n_samples: int) -> None:
        """Show the bar."""
        self._n_epochs, self._n_samples = n_epochs, n_samples
        self._open()

    def _open(self, initial: int = 0) -> None:
        from gpunn.training.progress_bar import ProgressBar

        self._bar = ProgressBar(self._n_epochs, "epochs", initial=initial, leave=True)

    def on_resume(self, n_samples: int) -> None:
        """Begin the bar where the training continues."""
        self._bar.leave = False
        self._bar.close()
        self._open(n_samples // self._n_samples)

    def on_epoch_end(self, network: Network, record: EpochRecord) -> None:
        """Move the bar on, with the newest numbers beside it."""
        self._bar.latest = [f"loss {record.train_loss:.4g}"]
        if record.validation_loss is not None:
            self._bar.latest += [f"validation score {self.estimator.validation_scores_[-1]:.4f}"]
        self._bar.update()

    def on_notice(self, text: str) -> None:
        """Write the line above the bar."""
        self._bar.write(text)

    def on_train_end(self, history: History) -> None:
        """Leave the bar as it is; where the training ended early of itself, that was all."""
        if history.stopped not in CUT_SHORT:
            self._bar.total = self._bar.n
        self._bar.close()


def verbose_callbacks(estimator: Any) -> list[Callback]:
    """Return what prints as much as the estimator's ``verbose`` wants.

    Where a bar cannot be shown, such as in a log file, there are lines.
    """
    if not estimator.verbose:
        return []
    if estimator.verbose >= 2:
        from gpunn.training.progress_bar import can_be_shown

        if can_be_shown():
            return [EpochBar(estimator)]
    return [EpochLines(estimator)]
