"""What an epoch's result means for a training: whether it was the best, and whether to go on."""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from gpunn.errors import ModelFileError
from gpunn.training.callbacks import EarlyStopping, EpochRecord


class Verdict(NamedTuple):
    """What a policy says of an epoch.

    Attributes
    ----------
    is_best : bool
        Whether it did better than all before.
    stop : bool
        Whether the training is to end, because it no longer improves.
    diverged : bool
        Whether its numbers are of no use.
    notice : str or None
        A line that a person should read.
    """

    is_best: bool = False
    stop: bool = False
    diverged: bool = False
    notice: str | None = None


class StoppingPolicy(ABC):
    """When a training ends before its last epoch, and which weights it ends with.

    Attributes
    ----------
    keeps_best : bool
        Whether the weights of the best epoch so far are kept in a copy.
    restores_best : bool
        Whether a training ends with them; one that is cut short does so anyway.
    best_epoch : int or None
        The epoch that did best; None as long as there is none.
    """

    keeps_best: bool
    restores_best: bool
    best_epoch: int | None = None

    @abstractmethod
    def consider(self, record: EpochRecord, score: float | None) -> Verdict:
        """Take note of what an epoch brought, and say what follows.

        `score` is how well the samples that are held out were predicted, the larger the better.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what it remembers, in plain values."""

    @abstractmethod
    def check(self, state: Any, n_epochs: int) -> bool:
        """Raise ModelFileError unless `state` can be remembered after so many epochs.

        Return whether there must be best weights beside it.
        """

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Remember a state that `check` has passed."""


def is_finite(record: EpochRecord) -> bool:
    """Whether the losses of an epoch are finite numbers."""
    return all(map(math.isfinite, (record.train_loss, record.validation_loss or 0.0)))


class Patience(StoppingPolicy):
    """The policy of `gpunn.fit`: wait for an improvement in validation, for so many epochs.

    Parameters
    ----------
    rule : EarlyStopping or None
        When to end; None to keep the best weights, but go through all epochs.
    """

    keeps_best = True

    def __init__(self, rule: EarlyStopping | None) -> None:
        self.restores_best, self._rule = rule is not None, rule or EarlyStopping()
        self._score, self._since = -math.inf, 0

    def consider(self, record: EpochRecord, score: float | None) -> Verdict:
        """Count the epochs since the best one."""
        if not is_finite(record):
            return Verdict(diverged=True)
        if self._rule.monitor == "loss":
            score = None if record.validation_loss is None else -record.validation_loss
        is_best = score is not None and score > self._score + self._rule.min_delta
        if is_best and score is not None:
            self.best_epoch, self._score, self._since = record.epoch, score, 0
        else:
            self._since += 1
        return Verdict(is_best, self.restores_best and self._since >= self._rule.patience)

    def state(self) -> dict[str, Any]:
        """Return the best epoch, its score, and how many epochs have passed since."""
        score = None if self.best_epoch is None else self._score
        return {"epoch": self.best_epoch, "score": score, "since": self._since}

    def check(self, state: Any, n_epochs: int) -> bool:
        """Raise ModelFileError unless the numbers can be those of a training of that length."""
        epoch, score, since = state["epoch"], state["score"], state["since"]
        none = epoch is None and score is None
        one = type(epoch) is int and 1 <= epoch <= n_epochs and is_number(score)
        if not (none or one) or type(since) is not int or not 0 <= since <= n_epochs:
            raise ModelFileError(f"its best epoch makes no sense: {state!r:.100}")
        return epoch is not None

    def restore(self, state: dict[str, Any]) -> None:
        """Remember the best epoch."""
        self.best_epoch, self._since = state["epoch"], state["since"]
        self._score = -math.inf if self.best_epoch is None else state["score"]


def is_number(value: Any) -> bool:
    """Whether a value from a file is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)
