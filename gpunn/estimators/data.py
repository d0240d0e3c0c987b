"""What an estimator is given, checked: samples, targets, weights, and what is held out.

Samples on the host are checked by scikit-learn itself. An array on a GPU is not to leave it, so of
that only the shape and the dtype are looked at; numbers in it that are not finite show in the loss.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from gpunn.backends.base import Backend, is_on_gpu
from gpunn.backends.select import get_backend
from gpunn.errors import DeviceError
from gpunn.estimators.samples import is_sparse, take

DTYPES = (np.float64, np.float32)


class Data(NamedTuple):
    """Samples X, their y as it came, what the outputs should be, and what each sample counts."""

    X: Any
    y: NDArray[Any]
    targets: NDArray[Any]
    weights: NDArray[Any] | None

    def take(self, rows: NDArray[np.int64], backend: Backend) -> "Data":
        """Return some of the samples."""
        weights = None if self.weights is None else self.weights[rows]
        return Data(take(backend, self.X, rows), self.y[rows], self.targets[rows], weights)


def check_inputs(estimator: Any, X: Any) -> Any:
    """Return samples to predict, in float32 or float64.

    Raises
    ------
    ValueError
        If they are not as in training.
    """
    if is_on_gpu(X):
        _check_on_device(estimator, X, reset=False)
        return X
    return validate_data(estimator, X, accept_sparse="csr", dtype=DTYPES, reset=False)


def check_samples(estimator: Any, X: Any, y: Any, *, reset: bool) -> tuple[Any, NDArray[Any]]:
    """Return samples as they are to be learnt from, in float32 or float64, and their y.

    Parameters
    ----------
    estimator : estimator
        Gets `n_features_in_` and `feature_names_in_`.
    X, y
        As given to `fit`.
    reset : bool
        Whether the number and the names of the inputs may be others than before.

    Returns
    -------
    X : ndarray, CSR matrix or CuPy array, shape (n, n_features)
        The samples.
    y : ndarray, shape (n,) or (n, n_outputs)
        What they are to teach, on the host.

    Raises
    ------
    ValueError
        If they are not as they must be.
    DeviceError
        If `y` is on another device than the estimator's.
    """
    options = {"multi_output": True, "y_numeric": not is_classifier(estimator)}
    if is_on_gpu(y):
        y = _bring(y, get_backend(estimator.device))
    if is_on_gpu(X):
        _check_on_device(estimator, X, reset=reset)
        y = validate_data(estimator, X="no_validation", y=y, reset=False, **options)
        if len(y) != X.shape[0]:
            raise ValueError(
                f"X and y must have the same number of samples, got {X.shape[0]} and {len(y)} "
                "samples"
            )
    else:
        X, y = validate_data(
            estimator, X, y, accept_sparse="csr", dtype=DTYPES, reset=reset, **options
        )
    if y.ndim == 2 and y.shape[1] == 1 and not is_sparse(y):
        y = column_or_1d(y, warn=True)
    return X, y


def check_weights(sample_weight: Any, targets: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return one weight a sample, or None if there are none.

    Raises
    ------
    ValueError
        If they are not as many as the samples.
    """
    if sample_weight is None:
        return None
    weights: NDArray[np.float64] = _check_sample_weight(sample_weight, targets, dtype=np.float64)
    return weights


def check_validation_data(estimator: Any, validation_data: Any) -> tuple[Any, NDArray[Any], Any]:
    """Return the samples that a user gave to measure on: X, y and weights.

    Raises
    ------
    ValueError
        If they are not as in training, or nobody would measure on them.
    """
    if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
        raise ValueError(
            "validation_data must be (X, y) or (X, y, sample_weight), got "
            f"{type(validation_data).__name__}"
        )
    if estimator.solver == "lbfgs":
        raise ValueError(
            "validation_data is for the solvers 'sgd' and 'adam', which train in epochs; solver "
            "is 'lbfgs'"
        )
    X, y, *weights = validation_data
    X, y = check_samples(estimator, X, y, reset=False)
    return X, y, weights[0] if weights else None


def split(
    data: Data,
    fraction: float,
    strata: NDArray[Any] | None,
    random_state: np.random.RandomState,
    backend: Backend,
) -> tuple[Data, Data]:
    """Return the samples to learn from, and a fraction to measure on.

    Raises
    ------
    ValueError
        If there are too few to measure on.
    """
    rest, held_out = train_test_split(
        np.arange(len(data.targets)),
        random_state=random_state,
        test_size=fraction,
        stratify=strata,
    )
    if len(held_out) < 2:
        raise ValueError(
            f"the validation set is too small, with {len(held_out)} of {len(data.targets)} "
            "samples: use a larger validation_fraction, or more samples"
        )
    return data.take(rest, backend), data.take(held_out, backend)


def _bring(y: Any, backend: Backend) -> NDArray[Any]:
    if not backend.owns(y):
        raise DeviceError(
            f"y is on a GPU, but the device is {backend.name}: name that GPU as the device, or "
            "give a host copy (`.get()`)"
        )
    return backend.to_host(y)


def _check_on_device(estimator: Any, X: Any, *, reset: bool) -> None:
    if X.ndim != 2 or X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(
            "X must have shape (n_samples, n_features), with at least one of each, "
            f"got {tuple(X.shape)}"
        )
    if X.dtype not in DTYPES:
        raise ValueError(f"X on a GPU must be float32 or float64, got {X.dtype}: convert it")
    if reset:
        estimator.n_features_in_ = X.shape[1]
        vars(estimator).pop("feature_names_in_", None)
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
