"""Estimators in model files: the network as `gpunn.Network` stores it, and what makes it theirs.

Reading runs no code, unlike a pickle. `gpunn.Network.load` reads the same file. What the optimizer
remembers is not stored, nor is a random generator given as `random_state`.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import GpunnError, ModelFileError, ParameterError, one_line
from gpunn.estimators.engine import Engine
from gpunn.model_file import read_model, write_model
from gpunn.network import Network

CURVES = ("loss_curve_", "validation_scores_", "validation_loss_curve_")
MEASURES = ("loss_", "best_loss_", "best_validation_score_")
COUNTS = ("n_iter_", "t_", "n_layers_", "n_outputs_", "n_features_in_")


def save_estimator(estimator: Any, network: Network, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator, whose network is given, to a file; see `load_estimator`."""
    arrays = network.parameters()
    for name in (*CURVES, *MEASURES):
        value = getattr(estimator, name, None)
        if value is not None:
            arrays[name] = np.atleast_1d(np.asarray(value, np.float64))
    names = getattr(estimator, "feature_names_in_", None)
    description = {
        "kind": type(estimator).__name__,
        "parameters": plain_parameters(estimator),
        "counts": {name: int(getattr(estimator, name)) for name in COUNTS},
        "out_activation": estimator.out_activation_,
        "feature_names": None,  # where earlier versions had them
        "targets": estimator._describe_targets(),
    }
    header = {**network.header(), "estimator": description}
    if names is not None:
        header["feature_names"] = names.tolist()
    write_model(path, arrays, header)


def plain_parameters(estimator: Any) -> dict[str, Any]:
    """Return an estimator's parameters as JSON can hold them."""
    return {name: _plain(value) for name, value in estimator.get_params(deep=False).items()}


def load_estimator(kind: type, path: str | os.PathLike[str], device: str | None) -> Any:
    """Return the estimator that a file holds.

    Parameters
    ----------
    kind : type
        Its class.
    path : path-like
        A file that `save_estimator` wrote.
    device : str or None
        Its new device; None for the one it had.

    Returns
    -------
    estimator
        The estimator, fitted.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or holds something else.
    """
    arrays, header = read_model(path)
    description = header.get("estimator")
    if not isinstance(description, dict) or description.get("kind") != kind.__name__:
        found = repr(description.get("kind")) if isinstance(description, dict) else "a network"
        raise ModelFileError(f"{path}: expected a {kind.__name__}, found {found:.80}")
    try:
        return _restore(kind, arrays, header, description, device)
    except (
        GpunnError, TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError,
    ) as error:  # fmt: skip
        raise ModelFileError(
            f"{path}: its description does not make an estimator: {one_line(error)}"
        ) from error


def _restore(
    kind: type,
    arrays: dict[str, NDArray[Any]],
    header: dict[str, Any],
    description: dict[str, Any],
    device: str | None,
) -> Any:
    parameters = {k: _from_plain(v) for k, v in description["parameters"].items()}
    estimator = kind(**parameters | ({} if device is None else {"device": device}))
    network = Network.from_file_contents(arrays, header, "cpu")
    if network.feature_names is None:
        network.feature_names = description.get("feature_names")
    if network.feature_names is not None:
        estimator.feature_names_in_ = np.array(network.feature_names, dtype=object)
    # The estimator compares names itself, and gives the network arrays, which have none.
    network.feature_names = None
    estimator._engine = Engine()
    estimator.coefs_, estimator.intercepts_ = estimator._engine.adopt(network)
    for name in COUNTS:
        setattr(estimator, name, int(description["counts"][name]))
    sizes = network.architecture.layer_sizes
    if (sizes[0], sizes[-1]) != (estimator.n_features_in_, estimator.n_outputs_):
        raise ModelFileError(
            f"expected {estimator.n_features_in_} inputs and {estimator.n_outputs_} outputs, "
            f"found {sizes[0]} and {sizes[-1]}"
        )
    estimator.out_activation_ = description["out_activation"]
    if estimator.solver != "lbfgs":
        estimator._prepare_record(reset=True, measured=False)
    for name in CURVES:
        if name in arrays:
            setattr(estimator, name, arrays[name].tolist())
    for name in MEASURES:
        if name in arrays:
            setattr(estimator, name, float(arrays[name][0]))
    estimator._restore_targets(description["targets"])
    estimator.architecture_  # noqa: B018 - raises if the activations are not known
    return estimator


def _plain(value: Any) -> Any:
    """Return a parameter as JSON can hold it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Mapping):
        return {"pairs": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    if np.iterable(value):
        return [_plain(item) for item in value]
    raise ParameterError(f"cannot store a parameter of type {type(value).__name__}: {value!r}")


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        if "float" in value:
            return float(value["float"])
        return {key: item for key, item in value["pairs"]}  # noqa: C416
    return tuple(map(_from_plain, value)) if isinstance(value, list) else value
