"""What an estimator prints while it learns, if ``verbose`` says so.

1 (or True) prints a line for each epoch, in scikit-learn's words; 2 or more shows a bar instead.
"""

from typing import Any

from gpunn.network import Network
from gpunn.training.callbacks import Callback, EpochRecord, History


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
    """A progress bar over the epochs, on standard error.

    Parameters
    ----------
    estimator : estimator
        As in `EpochLines`.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def on_train_begin(self, network: Network, n_epochs: int, n_samples: int) -> None:
        """Show the bar."""
        from tqdm import tqdm

        self._bar: Any = tqdm(total=n_epochs, unit="epoch")

    def on_epoch_end(self, network: Network, record: EpochRecord) -> None:
        """Move the bar on, with the newest numbers beside it."""
        numbers = {"loss": f"{record.train_loss:.6g}"}
        if record.validation_loss is not None:
            numbers["score"] = f"{self.estimator.validation_scores_[-1]:.4f}"
        self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(record.epoch - self._bar.n)  # a resumed fit begins later

    def on_notice(self, text: str) -> None:
        """Write the line above the bar."""
        self._bar.write(text)

    def on_train_end(self, history: History) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def verbose_callbacks(estimator: Any) -> list[Callback]:
    """Return what prints as much as the estimator's ``verbose`` wants."""
    if not estimator.verbose:
        return []
    return [EpochLines(estimator) if estimator.verbose < 2 else EpochBar(estimator)]
