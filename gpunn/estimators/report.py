"""What an estimator says while it learns, if it is asked to (``verbose``).

1 (or True) prints a line an epoch, in scikit-learn's words; 2 or more shows a bar instead.
"""

from typing import Any


class Report:
    """Says nothing; the others say more."""

    def begin(self, n_epochs: int) -> None:
        """Hear that at most so many epochs follow."""

    def epoch(self, number: int, loss: float, score: float | None) -> None:
        """Hear what an epoch, counted from 1, brought."""

    def say(self, text: str) -> None:
        """Hear something else that is worth a line."""

    def end(self) -> None:
        """Hear that the training has ended."""


class Lines(Report):
    """A line an epoch, on standard output."""

    def epoch(self, number: int, loss: float, score: float | None) -> None:
        """Print the loss, and the validation score where there is one."""
        print(f"Iteration {number}, loss = {loss:.8f}")
        if score is not None:
            print(f"Validation score: {score:f}")

    def say(self, text: str) -> None:
        """Print the line."""
        print(text)


class Bar(Report):
    """A progress bar over the epochs, on standard error."""

    def begin(self, n_epochs: int) -> None:
        """Show the bar."""
        from tqdm import tqdm

        self._bar: Any = tqdm(total=n_epochs, unit="epoch")

    def epoch(self, number: int, loss: float, score: float | None) -> None:
        """Move the bar on, with the newest numbers beside it."""
        numbers = {"loss": f"{loss:.6g}"} | ({} if score is None else {"score": f"{score:.4f}"})
        self._bar.set_postfix(numbers, refresh=False)
        self._bar.update()

    def say(self, text: str) -> None:
        """Write the line above the bar."""
        self._bar.write(text)

    def end(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def make_report(verbose: bool | int) -> Report:
    """Return what says as much as `verbose` asks for."""
    return Report() if not verbose else Lines() if verbose < 2 else Bar()
