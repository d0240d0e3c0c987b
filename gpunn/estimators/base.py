"""What the two estimators share: from parameters and data to a trained network.

Parameters, attributes, the draws of random numbers and the rules of training are scikit-learn's, so
that the same data and `random_state` give the same loss curve. The mathematics is gpunn's own
(`Network`, `Backend`, `Optimizer`).

Source of the first weights: X. Glorot and Y. Bengio, *Understanding the difficulty of training deep
feedforward neural networks* (2010).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions

from gpunn.estimators.data import (
    Data,
    check_samples,
    check_validation_data,
    check_weights,
    split,
)
from gpunn.estimators.engine import Engine, StepRule
from gpunn.estimators.fitted import HIDDEN, FittedPerceptron
from gpunn.estimators.lbfgs import check_lbfgs, minimize
from gpunn.estimators.stochastic import check_checkpoints, train, warn_of_ending
from gpunn.estimators.verbose import verbose_callbacks
from gpunn.optimizers import SGD, AdamEpsilonHat, Momentum
from gpunn.training.callbacks import Callback, check_callbacks
from gpunn.training.checkpoints import Checkpoints

STOCHASTIC = ("sgd", "adam")


def keep_parameters(estimator: Any, parameters: dict[str, Any]) -> None:
    """Give an estimator an attribute for each argument of its constructor, as it is."""
    for name, value in parameters.items():
        if name != "self":
            setattr(estimator, name, value)


def has_partial_fit(estimator: Any) -> bool:
    """Say that there is a partial_fit, or raise what an attribute that is missing raises."""
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            f"partial_fit is for the solvers 'sgd' and 'adam'; solver is {estimator.solver!r}"
        )
    return True


class MultilayerPerceptron(FittedPerceptron, ABC):
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

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation_data: Any = None,
        callbacks: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
    ) -> Self:
        """Train on some samples.

        Parameters
        ----------
        X : {array-like, sparse matrix, CuPy array} of shape (n_samples, n_features)
            The samples. float32 samples are computed in float32, all others in float64. An array on
            the GPU that `device` names stays there.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The classes, or 0 and 1 for each of several labels; or the numbers to predict, at least
            0 for the "poisson" loss.
        sample_weight : array-like of shape (n_samples,), optional
            The weight of each sample.
        validation_data : tuple of (X, y) or (X, y, sample_weight), optional
            Samples on which loss and score are measured after each epoch; with `early_stopping`
            they decide, and no other samples are held out. `class_weight` is not for them: their
            weights are those given here.
        callbacks : sequence of gpunn.Callback
            Objects whose methods are called after each step and epoch. Only for the solvers "sgd"
            and "adam". If they ask the estimator, it predicts with the weights of that moment; on a
            GPU, its `coefs_` and copies of it have those from before the fit.
        checkpoints : gpunn.Checkpoints, optional
            Where to save the state of the training, and whether to continue from there. Only for
            the solvers "sgd" and "adam", with a whole number as `random_state`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, or the weights become NaN or infinite.
        gpunn.errors.DeviceError
            If the device cannot be used.
        """
        return self._fit(  # type: ignore[no-any-return]
            X,
            y,
            sample_weight,
            incremental=False,
            validation_data=validation_data,
            callbacks=callbacks,
            checkpoints=checkpoints,
        )

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        incremental: bool,
        validation_data: Any = None,
        callbacks: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
    ) -> Any:
        self._validate_params()
        check_callbacks(callbacks)
        if checkpoints is not None:
            check_checkpoints(self, checkpoints)
        sizes = self._hidden_sizes()
        if incremental and self.early_stopping:
            raise ValueError(
                "partial_fit does not support early_stopping=True: it trains one epoch on one "
                "part of the samples, so none can be held out"
            )
        if self.solver == "lbfgs":
            check_lbfgs(self, callbacks)
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
        if self.solver == "lbfgs":
            self._fit_lbfgs(data)
        else:
            if self.early_stopping and held_out is None:
                data, held_out = split(
                    data,
                    self.validation_fraction,
                    self._strata(data.targets),
                    random_state,
                    self._own_engine().backend(self.device),
                )
            self._fit_stochastic(data, held_out, random_state, callbacks, checkpoints, incremental)
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

    def _fit_lbfgs(self, data: Data) -> None:
        dtype = self.coefs_[0].dtype
        network = self._network("float64")
        minimize(self, network, data, verbose_callbacks(self))
        coefs, intercepts = self._own_engine().adopt(network)
        self.coefs_ = [array.astype(dtype, copy=False) for array in coefs]
        self.intercepts_ = [array.astype(dtype, copy=False) for array in intercepts]

    def _fit_stochastic(
        self,
        data: Data,
        held_out: Data | None,
        random_state: np.random.RandomState,
        callbacks: Sequence[Callback],
        checkpoints: Checkpoints | None,
        incremental: bool,
    ) -> None:
        network, engine = self._network(), self._own_engine()
        if not engine.holds(network):
            # A callback that asks the estimator is to be answered by what has been learnt so far.
            self.coefs_, self.intercepts_ = engine.adopt(network)
        if engine.rule is None or not incremental:
            engine.rule = self._make_rule()
        try:
            history = train(
                self,
                network,
                engine.rule,
                data,
                held_out,
                random_state,
                n_epochs=1 if incremental else self.max_iter,
                callbacks=[*verbose_callbacks(self), *callbacks],
                checkpoints=checkpoints,
            )
        finally:
            self.coefs_, self.intercepts_ = engine.adopt(network)
        if not incremental:
            warn_of_ending(self, history, stacklevel=4)

    def _make_rule(self) -> StepRule:
        if self.solver == "adam":
            adam = AdamEpsilonHat(self.beta_1, self.beta_2, self.epsilon)
            return StepRule(adam, self.learning_rate_init, "constant", self.power_t)
        optimizer: SGD | Momentum = SGD()
        if self.momentum != 0:
            optimizer = Momentum(nesterov=self.nesterovs_momentum)
            optimizer.momentum = float(self.momentum)  # which may be 1 here
        return StepRule(optimizer, self.learning_rate_init, self.learning_rate, self.power_t)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
