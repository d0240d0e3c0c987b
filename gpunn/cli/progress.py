"""A training's progress: a bar on a terminal, and lines for its epochs."""

import math

from gpunn.cli.console import Console
from gpunn.network import Network
from gpunn.training.callbacks import Callback, EpochRecord, History

MOST_LINES = 100
"""How many lines there are for epochs; where they are more, only every few have one."""


class Progress(Callback):
    """A progress bar on a terminal, and a line for each epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_train_begin(self, network: Network, n_epochs: int, n_samples: int) -> None:
        from tqdm import tqdm

        self.n_epochs = n_epochs
        self.epochs_a_line = 1 if n_epochs <= MOST_LINES else math.ceil(n_epochs / MOST_LINES)
        self.bar = tqdm(
            total=n_epochs * n_samples,
            unit=" samples",
            unit_scale=True,
            leave=False,
            # None: only where standard error is a terminal.
            disable=True if self.console.quiet else None,
        )

    def on_step_end(self, n_samples: int) -> None:
        self.bar.update(n_samples)

    def on_resume(self, n_samples: int) -> None:
        self.bar.n = n_samples
        self.bar.refresh()

    def on_notice(self, text: str) -> None:
        self.bar.clear()
        self.console.say(text)

    def on_streaming(self, reason: str) -> None:
        self.bar.clear()
        self.console.say(f"samples: streamed from the host in each epoch, because {reason}")

    def on_epoch_end(self, network: Network, record: EpochRecord) -> None:
        if record.epoch % self.epochs_a_line and record.epoch != self.n_epochs:
            return
        text = f"epoch {record.epoch:>3}/{self.n_epochs}  training loss {record.train_loss:.6f}"
        if record.validation_loss is not None:
            text += f"  validation loss {record.validation_loss:.6f}"
        if record.validation_accuracy is not None:
            text += f"  validation accuracy {record.validation_accuracy:.4f}"
        self.bar.clear()
        self.console.say(f"{text}  {record.seconds:.1f} s")

    def on_train_end(self, history: History) -> None:
        self.bar.close()
