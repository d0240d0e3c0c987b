"""`MLPRegressor`: scikit-learn's estimator of that name, on any device.

What is new beside scikit-learn's is as in `gpunn.estimators.classifier`.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from gpunn.estimators.base import MultilayerPerceptron, has_partial_fit, keep_parameters


class MLPRegressor(RegressorMixin, MultilayerPerceptron):  # type: ignore[misc]
    """A multilayer perceptron that predicts numbers.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default="squared_error"
        What to minimize: half the squared error, or half the Poisson deviance (for counts), with
        exponential outputs.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init
        As in `MLPClassifier`.
    power_t, max_iter, shuffle, random_state, tol, verbose, warm_start, momentum
        As in `MLPClassifier`.
    nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, epsilon
        As in `MLPClassifier`.
    n_iter_no_change, max_fun, device, dropout
        As in `MLPClassifier`.

    Attributes
    ----------
    coefs_, intercepts_, loss_, loss_curve_, best_loss_
        As in `MLPClassifier`.
    validation_scores_, best_validation_score_
        As in `MLPClassifier`, but the score is R^2.
    validation_loss_curve_, n_iter_, t_, n_layers_, n_outputs_, n_features_in_, feature_names_in_
        As in `MLPClassifier`.
    out_activation_ : {"identity", "exp"}
        The outputs' activation.

    Examples
    --------
    >>> from gpunn import MLPRegressor
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 4.0, 9.0]
    >>> model = MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", random_state=1).fit(X, y)
    >>> model.predict([[2.0]]).round(1)
    array([4.])
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        **MultilayerPerceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str = "cpu",
        dropout: float = 0.0,
    ) -> None:
        keep_parameters(self, locals())

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on some samples, beginning with the current weights.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As `fit` does.
        """
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def _learn_targets(self, y: NDArray[Any], *, incremental: bool) -> None:
        self._check_known(y)

    def _check_known(self, y: NDArray[Any]) -> None:
        if self.loss == "poisson" and np.min(y) < 0:
            raise ValueError(f"y must be 0 or more for loss='poisson', got {np.min(y)}")

    def _encode(self, y: NDArray[Any]) -> NDArray[Any]:
        return y.reshape(-1, 1) if y.ndim == 1 else y

    def _decode(self, outputs: NDArray[Any]) -> NDArray[Any]:
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def _strata(self, targets: NDArray[Any]) -> NDArray[Any] | None:
        return None

    def _output_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _describe_targets(self) -> dict[str, Any]:
        return {}

    def _restore_targets(self, description: dict[str, Any]) -> None:
        pass

    def _score(
        self, y: NDArray[Any], predicted: NDArray[Any], weights: NDArray[Any] | None
    ) -> float:
        return float(r2_score(y, predicted, sample_weight=weights))
