"""A training's progress: a bar on a terminal, and lines for its epochs."""

import math
import sys

from gpunn.cli.console import Console
from gpunn.network import Network
from gpunn.training.callbacks import Callback, EpochRecord, History

MOST_LINES = 100
"""How many lines there are for epochs; where they are more, only every few have one."""

PAUSE = 0.3
"""Seconds for what reads our lines from a pipe, such as `tee`, to show them: the bar waits."""


class Progress(Callback):
    """A progress bar on a terminal, and a line for each epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_train_begin(self, network: Network, n_epochs: int, n_samples: int) -> None:
        self.n_epochs, self.n_samples = n_epochs, n_samples
        self.epochs_a_line = 1 if n_epochs <= MOST_LINES else math.ceil(n_epochs / MOST_LINES)
        self._open_bar()

    def _open_bar(self, initial: int = 0) -> None:
        from gpunn.training.progress_bar import ProgressBar, can_be_shown, is_terminal

        self.pause = 0.0 if is_terminal(sys.stdout) else PAUSE
        self.bar = ProgressBar(
            self.n_epochs * self.n_samples,
            "samples",
            initial=initial,
            leave=False,
            disable=self.console.quiet or not can_be_shown(),
        )

    def on_step_end(self, n_samples: int) -> None:
        self.bar.update(n_samples)

    def on_resume(self, n_samples: int) -> None:
        # Another bar, for what was done before says nothing about how fast it goes now.
        self.bar.close()
        self._open_bar(n_samples)

    def on_notice(self, text: str) -> None:
        self._say(text)

    def on_streaming(self, reason: str) -> None:
        self._say(f"samples: streamed from the host in each epoch, because {reason}")

    def on_epoch_end(self, network: Network, record: EpochRecord) -> None:
        self.bar.latest = _in_short(record)
        if record.epoch % self.epochs_a_line and record.epoch != self.n_epochs:
            return
        text = f"epoch {record.epoch:>3}/{self.n_epochs}  training loss {record.train_loss:.6f}"
        if record.validation_loss is not None:
            text += f"  validation loss {record.validation_loss:.6f}"
        if record.validation_accuracy is not None:
            text += f"  validation accuracy {record.validation_accuracy:.4f}"
        self._say(f"{text}  {record.seconds:.1f} s")

    def on_train_end(self, history: History) -> None:
        self.bar.close()

    def _say(self, text: str) -> None:
        """Say a line where the bar is, and let the bar come back below it."""
        self.bar.clear()
        self.console.say(text)
        if not self.bar.disable:
            self.bar.delay = self.bar.format_dict["elapsed"] + self.pause


def _in_short(record: EpochRecord) -> list[str]:
    """Return the numbers of an epoch that stand beside the bar, the most important first."""
    numbers = [f"loss {record.train_loss:.4g}"]
    if record.validation_accuracy is not None:
        numbers.append(f"validation accuracy {record.validation_accuracy:.4f}")
    elif record.validation_loss is not None:
        numbers.append(f"validation loss {record.validation_loss:.4g}")
    return numbers
