"""scikit-learn's rules over gpunn's loop: when to stop, what is drawn, and what is kept.

An epoch without an improvement by `tol` counts; more than `n_iter_no_change` of them in a row end
the training, or divide an adaptive step size. What counts is the loss, or with `early_stopping` the
score on samples that are held out, and the weights of the best score are then restored.

What lasts from one call to the next (`loss_curve_`, `best_loss_` ...) is kept in the estimator, and
in checkpoints.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import ModelFileError
from gpunn.estimators.engine import StepRule
from gpunn.estimators.files import CURVES, MEASURES
from gpunn.training.callbacks import EpochRecord
from gpunn.training.draws import Arrays, Draws, check_state, plain, with_arrays
from gpunn.training.loaders import Loader, Order
from gpunn.training.stopping import StoppingPolicy, Verdict

COUNTS = ("n_iter_", "t_", "_no_improvement_count")


class ImprovementPolicy(StoppingPolicy):
    """When an estimator's training ends, and what it keeps of each epoch.

    Parameters
    ----------
    estimator : estimator
        Whose parameters say when, and whose attributes keep what came of it.
    rule : StepRule
        The optimizer and its step size.
    n_samples : int
        Samples in an epoch.
    """

    def __init__(self, estimator: Any, rule: StepRule, n_samples: int) -> None:
        self._estimator, self._rule, self._n_samples = estimator, rule, n_samples
        self.keeps_best = self.restores_best = bool(estimator.early_stopping)

    def consider(self, record: EpochRecord, score: float | None) -> Verdict:
        """Keep what an epoch brought, and count the epochs without an improvement."""
        estimator = self._estimator
        estimator.n_iter_, estimator.loss_ = record.epoch, record.train_loss
        estimator.t_ += self._n_samples
        estimator.loss_curve_.append(record.train_loss)
        is_best = False
        if score is not None:
            estimator.validation_scores_.append(score)
            estimator.validation_loss_curve_.append(record.validation_loss)
            is_best = bool(score > estimator.best_validation_score_)
        self._count(record, score)
        if is_best:
            estimator.best_validation_score_, self.best_epoch = score, record.epoch
        self._rule.end_epoch(estimator.t_)
        if math.isnan(record.train_loss):
            return Verdict(diverged=True)  # The weights are NaN as well, and stay so.
        if estimator._no_improvement_count <= estimator.n_iter_no_change:
            return Verdict(is_best)
        return self._exhausted(is_best)

    def _count(self, record: EpochRecord, score: float | None) -> None:
        estimator, improved = self._estimator, False
        if estimator.early_stopping and score is not None:
            improved = not score < estimator.best_validation_score_ + estimator.tol
        elif not estimator.early_stopping:
            improved = not record.train_loss > estimator.best_loss_ - estimator.tol
            estimator.best_loss_ = min(estimator.best_loss_, record.train_loss)
        estimator._no_improvement_count = 0 if improved else estimator._no_improvement_count + 1

    def _exhausted(self, is_best: bool) -> Verdict:
        """Say to end, or divide the step size as often as that may be done."""
        estimator, rule = self._estimator, self._rule
        what = "Validation score" if estimator.early_stopping else "Training loss"
        text = (
            f"{what} did not improve more than tol={estimator.tol:f} for "
            f"{estimator.n_iter_no_change} consecutive epochs."
        )
        if rule.slow_down():
            estimator._no_improvement_count = 0
            text += f" Setting learning rate to {rule.learning_rate:f}"
            return Verdict(is_best, notice=text)
        too_small = "" if rule.schedule != "adaptive" else " Learning rate too small."
        return Verdict(is_best, stop=True, notice=f"{text}{too_small} Stopping.")

    # In checkpoints.

    def state(self) -> dict[str, Any]:
        """Return what the estimator keeps of its training, in plain values."""
        estimator = self._estimator
        return {
            "epoch": self.best_epoch,
            "learning_rate": self._rule.learning_rate,
            "counts": {name: int(getattr(estimator, name)) for name in COUNTS},
            "measures": {name: _text(getattr(estimator, name, None)) for name in MEASURES},
            "curves": {name: _texts(getattr(estimator, name)) for name in CURVES},
        }

    def check(self, state: Any, n_epochs: int) -> bool:
        """Raise ModelFileError unless these are counts, measures and curves."""
        own, epoch, rate = self.state(), state["epoch"], state["learning_rate"]
        counts, measures, curves = state["counts"], state["measures"], state["curves"]
        good = state.keys() == own.keys() and all(
            state[part].keys() == own[part].keys() for part in ("counts", "measures", "curves")
        )
        good = good and (epoch is None or (type(epoch) is int and 1 <= epoch <= n_epochs))
        good = good and type(rate) is float and 0 < rate < math.inf
        good = good and all(type(n) is int and 0 <= n < 2**63 for n in counts.values())
        if not good or counts["n_iter_"] != n_epochs:
            raise ModelFileError(f"its record of past epochs makes no sense: {state!r:.100}")
        for text in measures.values():
            _number(text)
        for texts in curves.values():
            _numbers(texts)
        return self.keeps_best

    def restore(self, state: dict[str, Any]) -> None:
        """Give the estimator back what it kept."""
        self.best_epoch, self._rule.learning_rate = state["epoch"], state["learning_rate"]
        values = {name: _number(text) for name, text in state["measures"].items()}
        values |= {name: _numbers(texts) for name, texts in state["curves"].items()}
        for name, value in (state["counts"] | values).items():
            setattr(self._estimator, name, value)


def _text(number: float | None) -> str | None:
    """Return a number as JSON can hold it, which knows no NaN and no infinity, to the bit."""
    return None if number is None else float(number).hex()


def _number(text: Any) -> float | None:
    return None if text is None else float.fromhex(text)


def _texts(numbers: list[float] | None) -> list[str | None] | None:
    return None if numbers is None else [_text(number) for number in numbers]


def _numbers(texts: Any) -> list[float | None] | None:
    return None if texts is None else [_number(text) for text in texts]


class ShuffleDraws(Draws):
    """Orders as scikit-learn draws them: each epoch shuffles the order of the one before.

    Parameters
    ----------
    random_state : numpy.random.RandomState
        Where the random numbers come from.
    n_samples : int
        Samples in an epoch.
    """

    def __init__(self, random_state: np.random.RandomState, n_samples: int) -> None:
        self._random_state = random_state
        self._order = np.arange(n_samples)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Remember the state, and the order, from before an epoch."""
        self.before = plain(self._random_state.get_state(legacy=False))
        self._order_before = self._order.copy()

    def draw(
        self, loader: Loader, *, shuffle: bool, keys: tuple[int, int] | None
    ) -> tuple[Order | None, NDArray[np.uint32] | None]:
        """Draw what an epoch needs."""
        drawn = None
        if shuffle:
            self._random_state.shuffle(self._order)  # as sklearn.utils.shuffle, without its checks
        if keys is not None:
            drawn = self._random_state.randint(2**32, size=keys, dtype=np.uint32)
        return self._order if shuffle else None, drawn

    def arrays(self) -> Arrays:
        """Return the order of the epoch before."""
        return {"order": self._order_before}

    def check(self, before: Any, arrays: Arrays) -> None:
        """Raise ModelFileError unless they are a state of such a generator, and an order."""
        check_state(before, plain(self._random_state.get_state(legacy=False)))
        np.random.RandomState().set_state(with_arrays(before))  # raises for numbers too large
        order = arrays.get("order")
        n_samples = len(self._order)
        if order is None or not np.array_equal(np.sort(order), np.arange(n_samples)):
            raise ModelFileError(f"expected order as one of {n_samples} samples")

    def restore(self, before: dict[str, Any], arrays: Arrays) -> None:
        """Go back to before an epoch."""
        self._random_state.set_state(with_arrays(before))
        self._order = arrays["order"].astype(np.int64)
        self.begin_epoch()
