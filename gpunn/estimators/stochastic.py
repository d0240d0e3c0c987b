"""Training by "sgd" and "adam": an estimator's parameters and data as a plan for gpunn's loop.

The loss of an epoch is the mean over its samples of their losses, each measured just before it was
learnt from, plus the penalty ``alpha / 2 ||W||^2 / n`` of each step, where n is the number of
samples in the step, or the sum of their weights.
"""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning

from gpunn.backends.base import Backend
from gpunn.errors import ParameterError
from gpunn.estimators.data import Data
from gpunn.estimators.engine import StepRule
from gpunn.estimators.files import plain_parameters
from gpunn.estimators.policy import ImprovementPolicy, ShuffleDraws
from gpunn.estimators.samples import is_sparse, place, rows_at_once
from gpunn.network import Network
from gpunn.parallel.alike import array_fingerprint
from gpunn.training.callbacks import Callback, History
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.evaluation import Holdout
from gpunn.training.fitting import weights_fingerprint
from gpunn.training.loop import Loop
from gpunn.training.memory import check_memory
from gpunn.training.plan import Plan
from gpunn.training.recorded import recorded
from gpunn.training.steps import StepTrainer
from gpunn.training.weights import SampleWeights

UNIMPORTANT = ("device", "verbose", "warm_start")
"""Parameters that may be others when a training is resumed."""

ENDINGS = {
    "interrupted": "training interrupted by the user",
    "terminated": "training interrupted by SIGTERM",
}


def train(
    estimator: Any,
    network: Network,
    rule: StepRule,
    data: Data,
    held_out: Data | None,
    random_state: np.random.RandomState,
    *,
    n_epochs: int,
    callbacks: Sequence[Callback],
    checkpoints: Checkpoints | None,
) -> History:
    """Change a network in place by training it as an estimator says.

    Parameters
    ----------
    estimator : estimator
        Whose parameters say how, and whose attributes keep what came of it.
    network : Network
        The network.
    rule : StepRule
        The optimizer, which may go on from an earlier training, and its step size.
    data : Data
        What is learnt.
    held_out : Data or None
        What it is measured on.
    random_state : RandomState
        Where orders and dropout are drawn from.
    n_epochs : int
        Epochs at most.
    callbacks : sequence of Callback
        Who hears of it.
    checkpoints : Checkpoints or None
        Where the state is kept.

    Returns
    -------
    History
        What happened.
    """
    n_samples = len(data.targets)
    batch_size = batch_size_of(estimator, n_samples)
    n_measured = 0 if held_out is None else rows_at_once(network, held_out.X)
    reserved = check_memory(
        network,
        rule.optimizer,
        batch_size=batch_size,
        n_rows=max(batch_size, n_measured),
        keeps_best=estimator.early_stopping,
    )
    loader = place(network, data.X, data.targets, batch_size, reserved)
    holdout = None
    if held_out is not None:
        placed = place(network, held_out.X, held_out.targets, n_measured, reserved)
        score = partial(_score, estimator, held_out)
        holdout = Holdout(placed, held_out.weights, score, is_classifier(estimator))
    fingerprint: dict[str, Any] = {}
    if checkpoints is not None:
        fingerprint = _fingerprint(estimator, network, data, held_out)
    rule.attach(network)
    estimator.n_iter_ = 0
    weights = None if data.weights is None else SampleWeights(data.weights, mean_in_step=True)
    steps = StepTrainer(
        network,
        rule.optimizer,
        n_samples,
        batch_size,
        weights=weights,
        dropout_rate=float(estimator.dropout),
        penalty=float(estimator.alpha),
    )
    plan = Plan(
        network,
        loader,
        recorded(steps, loader),
        rule.optimizer,
        n_epochs=n_epochs,
        batch_size=batch_size,
        learning_rate=lambda t: rule.learning_rate,
        draws=ShuffleDraws(random_state, n_samples),
        shuffle=estimator.shuffle,
        policy=ImprovementPolicy(estimator, rule, n_samples),
        holdout=holdout,
        callbacks=callbacks,
        checkpoints=checkpoints,
        fingerprint=fingerprint,
        loss_share=loss_share(estimator),
    )
    loop = Loop(plan)
    if estimator.early_stopping:
        # Where nothing is better than before, a warm start goes back to these.
        loop.state.best.keep()
    return loop.run()


def warn_of_ending(estimator: Any, history: History, stacklevel: int) -> None:
    """Warn if a training was cut short, or has not converged; raise if it is of no use.

    Raises
    ------
    ValueError
        If it diverged, and there are no better weights than the first ones.
    """
    if history.stopped == "diverged" and history.restored_best:
        # Without best weights, the last ones are not finite, which is an error of its own.
        if history.best_epoch is None:
            raise ValueError(
                f"training diverged in epoch {len(history.epochs)}, before any was better than the "
                "first weights: scale the inputs, or use a smaller learning_rate_init"
            )
        warnings.warn(
            f"training diverged in epoch {len(history.epochs)}: the weights are those of epoch "
            f"{history.best_epoch}, the best one; scale the inputs, or use a smaller "
            "learning_rate_init",
            ConvergenceWarning,
            stacklevel=stacklevel + 1,
        )
    elif history.stopped in ENDINGS:
        warnings.warn(ENDINGS[history.stopped], UserWarning, stacklevel=stacklevel + 1)
    elif history.stopped == "finished":
        warnings.warn(
            f"{estimator.solver}: max_iter={estimator.max_iter} epochs were reached, and the "
            "training has not converged yet",
            ConvergenceWarning,
            stacklevel=stacklevel + 1,
        )


def loss_share(estimator: Any) -> float:
    """Return what a sample's loss is multiplied by where it is reported.

    The half of the squared errors is measured as a mean over outputs, but learnt as a sum.
    """
    return 1 / estimator.n_outputs_ if estimator.out_activation_ == "identity" else 1.0


def batch_size_of(estimator: Any, n_samples: int) -> int:
    """Return how many samples are in a step; "auto" is 200, or all if there are fewer."""
    size = estimator.batch_size
    if size == "auto":
        return min(200, n_samples)
    if size > n_samples:
        warnings.warn(
            f"batch_size={size} is more than the number of samples, and is reduced to {n_samples}",
            UserWarning,
            stacklevel=6,
        )
    return min(int(size), n_samples)


def _score(estimator: Any, held_out: Data, outputs: NDArray[Any]) -> float:
    predicted = estimator._decode(outputs)
    if predicted.dtype.kind == "f" and not np.isfinite(predicted).all():
        return math.nan
    return float(estimator._score(held_out.y, predicted, held_out.weights))


def check_checkpoints(estimator: Any, checkpoints: Checkpoints) -> None:
    """Raise unless an estimator's training can be kept and resumed.

    Raises
    ------
    ParameterError
        If its solver goes through no epochs, it would draw other numbers each time, or the folder
        holds an earlier training that is not to be resumed.
    """
    if not isinstance(checkpoints, Checkpoints):
        raise ParameterError(f"checkpoints must be a gpunn.Checkpoints, got {checkpoints!r:.60}")
    if estimator.solver == "lbfgs":
        raise ParameterError(
            "checkpoints are for the solvers 'sgd' and 'adam', which train in epochs; solver is "
            "'lbfgs'"
        )
    if not isinstance(estimator.random_state, int | np.integer):
        raise ParameterError(
            "checkpoints need random_state to be a whole number, so that the training can be "
            f"recognised when it is resumed, got {estimator.random_state!r:.60}"
        )
    checkpoints.check()


def _fingerprint(
    estimator: Any, network: Network, data: Data, held_out: Data | None
) -> dict[str, Any]:
    """Return in plain values what tells an estimator's training from others."""
    # The weights and the count, because a warm start begins where an earlier fit has ended.
    found: dict[str, Any] = {
        "estimator": type(estimator).__name__,
        "first weights SHA-256": weights_fingerprint(network),
        "samples learnt from before": int(estimator.t_),
    }
    parameters = plain_parameters(estimator)
    found |= {name: value for name, value in parameters.items() if name not in UNIMPORTANT}
    if hasattr(estimator, "feature_names_in_"):
        found["feature names"] = estimator.feature_names_in_.tolist()
    for prefix, part in (("", data), ("validation ", held_out)):
        if part is not None:
            found |= _data_fingerprints(network.backend, part, prefix)
    return found


def _data_fingerprints(backend: Backend, data: Data, prefix: str) -> dict[str, Any]:
    parts = {"inputs": data.X, "targets": data.targets, "weights": data.weights}
    if is_sparse(data.X):
        parts["inputs"] = data.X.data
        parts |= {"inputs' columns": data.X.indices, "inputs' rows": data.X.indptr}
    found: dict[str, Any] = {
        f"{prefix}{name}": array_fingerprint(backend, part.reshape((part.shape[0], -1)))
        for name, part in parts.items()
        if part is not None
    }
    return found | {f"{prefix}features": int(data.X.shape[1])}
