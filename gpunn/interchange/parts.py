"""What there is inside a model of gpunn's, and what the other libraries' packages are called."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import MissingPackageError, ParameterError
from gpunn.network import Network
from gpunn.network.architecture import Architecture

Parameters = dict[str, NDArray[Any]]
"""Host arrays by name, as `Network.parameters` returns them."""


@contextmanager
def needing(package: str, requirement: str) -> Iterator[None]:
    """Turn the error for a package that is not installed into one that says how to install it."""
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(
            f"this needs {package}, which is not installed: pip install '{requirement}'"
        ) from error


def parts(model: Any) -> tuple[Architecture, Parameters]:
    """Return what a network or a fitted estimator is, and copies of its numbers on the host."""
    if isinstance(model, Network):
        return model.architecture, model.parameters()
    if not hasattr(type(model), "architecture_"):
        raise ParameterError(
            "expected a gpunn Network, MLPClassifier or MLPRegressor, got "
            f"{type(model).__module__}.{type(model).__qualname__}; convert a scikit-learn model "
            "with from_sklearn first"
        )
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    architecture, parameters = model.architecture_, {}
    for index, (coefs, biases) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        parameters[f"layers.{index}.weight"] = np.array(coefs.T, architecture.dtype, order="C")
        parameters[f"layers.{index}.bias"] = np.array(biases, architecture.dtype)
    return architecture, parameters


def classes_of(model: Any) -> Any:
    """Return what the outputs stand for in plain values, or None."""
    if isinstance(model, Network):
        return model.class_labels
    return model.classes_.tolist() if hasattr(model, "classes_") else None
