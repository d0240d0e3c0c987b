"""What the two estimators share: from parameters and data to a trained network, and back.

Parameters, attributes, the draws of random numbers and the rules of training are scikit-learn's, so
that the same data and `random_state` give the same loss curve. The mathematics is gpunn's own
(`Network`, `Backend`, `Optimizer`).

Source of the first weights: X. Glorot and Y. Bengio, *Understanding the difficulty of training deep
feedforward neural networks* (2010).
"""

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted

from gpunn.architecture import Architecture
from gpunn.estimators.data import (
    Data,
    check_inputs,
    check_samples,
    check_validation_data,
    check_weights,
    split,
)
from gpunn.estimators.descent import Descent, Holdout, Task
from gpunn.estimators.engine import Engine, StepRule
from gpunn.estimators.files import load_estimator, save_estimator
from gpunn.estimators.lbfgs import minimize
from gpunn.estimators.report import Report, make_report
from gpunn.estimators.samples import place, predict, rows_at_once
from gpunn.network import Network
from gpunn.optimizers import SGD, AdamEpsilonHat, Momentum
from gpunn.training.callbacks import Callback
from gpunn.training.loaders import Loader
from gpunn.training.memory import check_memory

STOCHASTIC = ("sgd", "adam")

HIDDEN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
"""gpunn's names of the hidden layers' activations."""

OUTPUT = {
    "softmax": ("softmax", "log_loss"),
    "logistic": ("sigmoid", "binary_log_loss"),
    "identity": ("identity", "squared_error"),
    "exp": ("exp", "poisson"),
}
"""gpunn's names of the output activations, and of the error function of each."""

AUTO_BATCH = 200


def keep_parameters(estimator: Any, parameters: dict[str, Any]) -> None:
    """Give an estimator an attribute for each argument of its constructor, as it is."""
    for name, value in parameters.items():
        if name != "self":
            setattr(estimator, name, value)


class MultilayerPerceptron(BaseEstimator, ABC):  # type: ignore[misc]
    """The estimators' common part; use `gpunn.MLPClassifier` or `gpunn.MLPRegressor`."""

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(HIDDEN))],
        "solver": [StrOptions({"lbfgs", *STOCHASTIC})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    # What classification and regression differ in.

    @abstractmethod
    def _learn_targets(self, y: NDArray[Any], *, incremental: bool) -> None:
        """Take note of what the targets are, or check that they are of the kind seen before."""

    @abstractmethod
    def _check_known(self, y: NDArray[Any]) -> None:
        """Raise if there is something among the targets that cannot be learnt."""

    @abstractmethod
    def _encode(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return what the outputs should be, (n, n_L)."""

    @abstractmethod
    def _decode(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Return predictions for outputs."""

    @abstractmethod
    def _strata(self, targets: NDArray[Any]) -> NDArray[Any] | None:
        """Return what is to be as frequent among held-out samples as among all, if anything is."""

    @abstractmethod
    def _output_activation(self) -> str:
        """Return `out_activation_`."""

    @abstractmethod
    def _score(
        self, y: NDArray[Any], predicted: NDArray[Any], weights: NDArray[Any] | None
    ) -> float:
        """Return how good predictions are: accuracy, or R^2."""

    def _full_weights(
        self, y: NDArray[Any], sample_weight: NDArray[Any] | None, *, incremental: bool
    ) -> NDArray[Any] | None:
        """Return what each sample counts, with all that makes samples count differently."""
        return sample_weight

    @abstractmethod
    def _describe_targets(self) -> dict[str, Any]:
        """Return what was noted of the targets, in plain values for a file."""

    @abstractmethod
    def _restore_targets(self, description: dict[str, Any]) -> None:
        """Take note of what `_describe_targets` returned, trusting nothing in it."""

    # Fitting.

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        incremental: bool,
        validation_data: Any = None,
        callbacks: Sequence[Callback] = (),
    ) -> Any:
        self._validate_params()
        sizes = self._hidden_sizes()
        if incremental and self.early_stopping:
            raise ValueError(
                "partial_fit does not support early_stopping=True: it is one epoch on samples that "
                "come in parts, of which none can be held out"
            )
        if self.solver == "lbfgs" and self.dropout:
            raise ValueError(
                "dropout is for the solvers 'sgd' and 'adam': L-BFGS needs a loss without chance; "
                f"got dropout={self.dropout} and solver='lbfgs'"
            )
        first_pass = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, y = check_samples(self, X, y, reset=first_pass)
        self._learn_targets(y, incremental=incremental)
        targets = self._encode(y)
        weights = check_weights(sample_weight, targets)
        data = Data(X, y, targets, self._full_weights(y, weights, incremental=incremental))
        held_out = None
        if validation_data is not None:
            held_out = self._held_out(*check_validation_data(self, validation_data))
        random_state = check_random_state(self.random_state)
        self.n_outputs_ = data.targets.shape[1]
        if first_pass:
            self._initialize([X.shape[1], *sizes, self.n_outputs_], X.dtype, random_state)
        self._prepare_record(reset=first_pass, measured=held_out is not None)
        report = make_report(self.verbose)
        if self.solver == "lbfgs":
            self._fit_lbfgs(data, report)
        else:
            if self.early_stopping and held_out is None:
                data, held_out = split(
                    data,
                    self.validation_fraction,
                    self._strata(data.targets),
                    random_state,
                    self._own_engine().backend(self.device),
                )
            self._fit_stochastic(data, held_out, random_state, callbacks, report, incremental)
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "training ended in weights that are not finite: scale the inputs, or use a smaller "
                "learning_rate_init"
            )
        return self

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if np.iterable(sizes) else [sizes]
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}")
        return [int(size) for size in sizes]

    def _held_out(self, X: Any, y: NDArray[Any], sample_weight: Any) -> Data:
        self._check_known(y)
        return Data(X, y, self._encode(y), check_weights(sample_weight, y))

    def _own_engine(self) -> Engine:
        # Not made with the estimator, whose constructor only keeps its arguments, and perhaps not
        # in a fit either: coefs_ and what goes with them may have been given from elsewhere.
        if not hasattr(self, "_engine"):
            self._engine = Engine()
        return self._engine

    def _initialize(
        self, sizes: list[int], dtype: Any, random_state: np.random.RandomState
    ) -> None:
        """Draw the first weights and biases: uniform, as wide as Glorot and Bengio have it."""
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(sizes)
        self.out_activation_ = self._output_activation()
        self.coefs_, self.intercepts_ = [], []
        self._engine = Engine()
        for n_in, n_out in pairwise(sizes):
            bound = math.sqrt((2.0 if self.activation == "logistic" else 6.0) / (n_in + n_out))
            coefs = random_state.uniform(-bound, bound, (n_in, n_out))
            intercepts = random_state.uniform(-bound, bound, n_out)
            self.coefs_.append(coefs.astype(dtype, copy=False))
            self.intercepts_.append(intercepts.astype(dtype, copy=False))

    def _prepare_record(self, *, reset: bool, measured: bool) -> None:
        """Begin the curves and counts of a stochastic training, or leave them to be continued."""
        if self.solver not in STOCHASTIC:
            return
        if reset or not hasattr(self, "loss_curve_"):
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.best_loss_ = None
            self.validation_scores_: list[float] | None = None
            self.validation_loss_curve_: list[float] | None = None
            self.best_validation_score_ = None
        if (self.early_stopping or measured) and self.validation_scores_ is None:
            self.validation_scores_, self.validation_loss_curve_ = [], []
            self.best_validation_score_ = -np.inf
        if not self.early_stopping and self.best_loss_ is None:
            self.best_loss_ = np.inf

    @property
    def architecture_(self) -> Architecture:
        """What the fitted network is, apart from its numbers."""
        sizes = (*(coefs.shape[0] for coefs in self.coefs_), self.coefs_[-1].shape[1])
        output, loss = OUTPUT[self.out_activation_]
        dtype = self.coefs_[0].dtype.name
        return Architecture(sizes, HIDDEN[self.activation], output, loss, dtype=dtype)

    def _network(self, dtype: str | None = None) -> Network:
        architecture = self.architecture_
        if dtype is not None:
            architecture = replace(architecture, dtype=dtype)
        return self._own_engine().network_to_train(
            architecture, self.coefs_, self.intercepts_, self.device
        )

    def _task(self, samples: Loader, weights: NDArray[Any] | None) -> Task:
        # The half of the squared errors is measured as a mean over outputs, but learnt as a sum.
        share = 1 / self.n_outputs_ if self.out_activation_ == "identity" else 1.0
        return Task(samples, weights, float(self.alpha), share, float(self.dropout))

    def _fit_lbfgs(self, data: Data, report: Report) -> None:
        dtype = self.coefs_[0].dtype
        network = self._network("float64")
        n_rows = rows_at_once(network, data.X)
        reserved = 2 * network.n_parameters * network.dtype.itemsize
        samples = place(network, data.X, data.targets, n_rows, reserved)
        minimize(self, network, self._task(samples, data.weights), report)
        coefs, intercepts = self._own_engine().adopt(network)
        self.coefs_ = [array.astype(dtype, copy=False) for array in coefs]
        self.intercepts_ = [array.astype(dtype, copy=False) for array in intercepts]

    def _fit_stochastic(
        self,
        data: Data,
        held_out: Data | None,
        random_state: np.random.RandomState,
        callbacks: Sequence[Callback],
        report: Report,
        incremental: bool,
    ) -> None:
        network, engine = self._network(), self._own_engine()
        rule = engine.rule
        if rule is None or not incremental:
            rule = engine.rule = self._make_rule()
        batch_size = self._batch_size(len(data.targets))
        n_measured = 0 if held_out is None else rows_at_once(network, held_out.X)
        reserved = check_memory(
            network,
            rule.optimizer,
            batch_size=batch_size,
            n_rows=max(batch_size, n_measured),
            keeps_best=self.early_stopping,
        )
        samples = place(network, data.X, data.targets, batch_size, reserved)
        holdout = None
        if held_out is not None:
            placed = place(network, held_out.X, held_out.targets, n_measured, reserved)
            holdout = Holdout(
                placed, held_out.weights, partial(self._measure, held_out), is_classifier(self)
            )
        task = self._task(samples, data.weights)
        try:
            Descent(self, network, rule, task, holdout, callbacks, report).run(
                random_state, incremental=incremental
            )
        finally:
            self.coefs_, self.intercepts_ = self._own_engine().adopt(network)

    def _measure(self, held_out: Data, outputs: NDArray[Any]) -> float:
        predicted = self._decode(outputs)
        if predicted.dtype.kind == "f" and not np.isfinite(predicted).all():
            return math.nan
        return float(self._score(held_out.y, predicted, held_out.weights))

    def _make_rule(self) -> StepRule:
        if self.solver == "adam":
            adam = AdamEpsilonHat(self.beta_1, self.beta_2, self.epsilon)
            return StepRule(adam, self.learning_rate_init, "constant", self.power_t)
        optimizer: SGD | Momentum = SGD()
        if self.momentum != 0:
            optimizer = Momentum(nesterov=self.nesterovs_momentum)
            optimizer.momentum = float(self.momentum)  # which may be 1 here
        return StepRule(optimizer, self.learning_rate_init, self.learning_rate, self.power_t)

    def _batch_size(self, n_samples: int) -> int:
        if self.batch_size == "auto":
            return min(AUTO_BATCH, n_samples)
        if self.batch_size > n_samples:
            warnings.warn(
                f"batch_size={self.batch_size} is more than the {n_samples} samples, and is "
                "clipped to their number",
                UserWarning,
                stacklevel=5,
            )
        return min(int(self.batch_size), n_samples)

    def _check_solver(self) -> bool:
        """Say that there is a partial_fit, or raise what an attribute that is missing raises."""
        if self.solver not in STOCHASTIC:
            raise AttributeError(
                f"partial_fit is for the solvers 'sgd' and 'adam'; solver is {self.solver!r}"
            )
        return True

    # Predicting.

    def _outputs(self, X: Any) -> NDArray[Any]:
        """Return the outputs (n, n_L) for some samples."""
        check_is_fitted(self)
        X = check_inputs(self, X)
        return predict(self._network_to_ask(), X)

    def _network_to_ask(self) -> Network:
        return self._own_engine().network_to_ask(
            self.architecture_, self.coefs_, self.intercepts_, self.device
        )

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a safetensors file, whole or not at all.

        It holds all but what the optimizer remembers, and can be read without running code.

        Parameters
        ----------
        path : path-like
            Where to.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is nothing to write yet.
        gpunn.errors.OutputError
            If it could not be written. What was there before is still there.
        """
        check_is_fitted(self)
        save_estimator(self, self._network_to_ask(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | None = None) -> Self:
        """Read a fitted estimator from a file.

        Parameters
        ----------
        path : path-like
            A file that `save` wrote, on whatever device.
        device : str, optional
            Where to compute from now on; left out, as before.

        Returns
        -------
        estimator
            The estimator as it was saved.

        Raises
        ------
        gpunn.errors.ModelFileError
            If the file is missing, damaged, or holds something else.
        """
        return load_estimator(cls, path, device)  # type: ignore[no-any-return]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
