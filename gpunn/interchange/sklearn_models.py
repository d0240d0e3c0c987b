"""From and to scikit-learn's estimators."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.errors import ParameterError
from gpunn.interchange.parts import needing

if TYPE_CHECKING:
    from gpunn.estimators import MLPClassifier, MLPRegressor

KINDS = ("MLPClassifier", "MLPRegressor")

LEARNT = (
    "classes_", "_label_binarizer", "feature_names_in_", "n_features_in_", "n_outputs_",
    "n_layers_", "out_activation_", "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_",
    "validation_scores_", "best_validation_score_", "_no_improvement_count",
)  # fmt: skip
"""What scikit-learn's estimators and gpunn's both know after a fit, beside the weights."""


def from_sklearn(estimator: Any, *, device: str = "cpu") -> "MLPClassifier | MLPRegressor":
    """Return gpunn's estimator for a fitted one of scikit-learn's.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        The fitted estimator; it stays as it is.
    device : {"cpu", "cuda", "cuda:N", "auto"}
        Where to compute from now on.

    Returns
    -------
    gpunn.MLPClassifier or gpunn.MLPRegressor
        Its parameters, weights and curves.

    Raises
    ------
    ParameterError
        If it is neither of the two.
    sklearn.exceptions.NotFittedError
        If it has not been fitted.
    MissingPackageError
        If scikit-learn is not installed.
    """
    neural_network, estimators = _both_families()
    fitted = _converted(estimator, neural_network, estimators)
    return fitted.set_params(device=device)  # type: ignore[no-any-return]


def to_sklearn(estimator: "MLPClassifier | MLPRegressor") -> Any:
    """Return scikit-learn's estimator for a fitted one of gpunn's.

    Parameters
    ----------
    estimator : gpunn.MLPClassifier or gpunn.MLPRegressor
        The fitted estimator; it stays as it is.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        Its parameters, weights and curves, without what scikit-learn does not have: `device`,
        `dropout`, `class_weight` and `validation_loss_curve_`.

    Raises
    ------
    ParameterError
        If it is neither of the two.
    sklearn.exceptions.NotFittedError
        If it has not been fitted.
    MissingPackageError
        If scikit-learn is not installed.
    """
    neural_network, estimators = _both_families()
    fitted = _converted(estimator, estimators, neural_network)
    if fitted.early_stopping:
        # Where a warm start finds nothing better, it goes back to these.
        fitted._best_coefs = [array.copy() for array in fitted.coefs_]
        fitted._best_intercepts = [array.copy() for array in fitted.intercepts_]
    return fitted


def _both_families() -> tuple[Any, Any]:
    """Return the modules of scikit-learn's estimators and of gpunn's."""
    with needing("scikit-learn", "gpunn[sklearn]"):
        from sklearn import neural_network

        from gpunn import estimators

    return neural_network, estimators


def _converted(estimator: Any, origin: Any, destination: Any) -> Any:
    """Return an estimator of the same name from another module, fitted as the given one."""
    from sklearn.utils.validation import check_is_fitted

    kind = next((name for name in KINDS if isinstance(estimator, getattr(origin, name))), None)
    if kind is None:
        raise ParameterError(
            f"expected an MLPClassifier or MLPRegressor of {origin.__name__}, got "
            f"{type(estimator).__module__}.{type(estimator).__qualname__}"
        )
    check_is_fitted(estimator)
    result = getattr(destination, kind)()
    shared = estimator.get_params(deep=False).keys() & result.get_params(deep=False).keys()
    result.set_params(**{name: copy.deepcopy(getattr(estimator, name)) for name in shared})
    for name in LEARNT:
        if hasattr(estimator, name):
            setattr(result, name, copy.deepcopy(getattr(estimator, name)))
    for name in ("coefs_", "intercepts_"):
        setattr(result, name, [np.array(a, order="C") for a in getattr(estimator, name)])
    return result
