"""From and to other libraries' models, with the same predictions: scikit-learn, PyTorch, ONNX.

Nothing is shared: the numbers are copies. What an optimizer remembers stays behind, so that
training that goes on begins with a fresh one. The other libraries are imported when needed.

Source of the ONNX operators: the ONNX operator specification, opset 13.
"""

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Backend
from gpunn.errors import (
    DataError,
    MissingPackageError,
    OutputError,
    ParameterError,
    ShapeError,
    one_line,
)
from gpunn.model_file import replacing
from gpunn.network import Architecture, Network

if TYPE_CHECKING:
    from gpunn.estimators import MLPClassifier, MLPRegressor

Parameters = dict[str, NDArray[Any]]
"""Host arrays by name, as `Network.parameters` returns them."""

KINDS = ("MLPClassifier", "MLPRegressor")

LEARNT = (
    "classes_", "_label_binarizer", "feature_names_in_", "n_features_in_", "n_outputs_",
    "n_layers_", "out_activation_", "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_",
    "validation_scores_", "best_validation_score_", "_no_improvement_count",
)  # fmt: skip
"""What scikit-learn's estimators and gpunn's both know after a fit, beside the weights."""

ONNX_OPSET = 13
ONNX_OPERATORS = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "softmax": "Softmax",
    "exp": "Exp",
    "identity": "",
}
MOST_ONNX_BYTES = 2**31 - 2**20
"""A file in ONNX's format is a single message, of less than 2 GiB; names need a little."""


# scikit-learn.


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
    with _needing("scikit-learn", "gpunn[sklearn]"):
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


# PyTorch.


def from_torch(
    state_dict: Mapping[str, Any],
    *,
    hidden_activation: str,
    output_activation: str,
    loss: str = "squared_error",
    device: str | Backend = "auto",
) -> Network:
    """Return the network of a PyTorch model of linear layers, one after the other.

    Parameters
    ----------
    state_dict : mapping of str to torch.Tensor or array_like
        What `state_dict` of such a model returns: ``0.weight`` (n_out, n_in), ``0.bias`` (n_out,)
        and so on, or other names that end in ``weight`` and ``bias``, in the order of the layers.
        All layers have biases, or none has.
    hidden_activation, output_activation : {"sigmoid", "tanh", "relu", "identity", "softmax"}
        The activations, which are not in a state dict.
    loss : str
        What training that goes on minimizes; see `Network`.
    device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
        Where to compute.

    Returns
    -------
    Network
        The network, in the tensors' dtype.

    Raises
    ------
    ShapeError
        If the names or the shapes are not those of such a model.
    DataError
        If the numbers are not all float32 or all float64.
    ParameterError
        If it is no state dict, or an activation or the loss is not one of those allowed.
    DeviceError
        If the device cannot be had.
    """
    if not isinstance(state_dict, Mapping):
        raise ParameterError(
            f"expected a state dict, got {type(state_dict).__name__}: give `model.state_dict()`"
        )
    arrays = {name: _host_copy(name, value) for name, value in state_dict.items()}
    layers = _layer_names(arrays)
    weights = [arrays[f"{layer}weight"] for layer in layers]
    biases = [arrays.get(f"{layer}bias") for layer in layers]
    sizes = _layer_sizes(layers, weights, biases)
    dtypes = sorted({array.dtype.name for array in arrays.values()})
    if dtypes not in (["float32"], ["float64"]):
        raise DataError(
            f"expected numbers in float32 or in float64, got {' and '.join(dtypes)}: convert the "
            "model, as with `model.float()`"
        )
    architecture = Architecture(
        sizes, hidden_activation, output_activation, loss, biases[0] is not None, dtypes[0]
    )
    return Network.from_parameters(architecture, zip(weights, biases, strict=True), device)


def to_torch(model: "Network | MLPClassifier | MLPRegressor") -> dict[str, Any]:
    """Return a model's parameters as the state dict of a PyTorch model.

    That model is ``nn.Sequential(nn.Linear(n_0, n_1), activation, nn.Linear(n_1, n_2), ...)``, with
    a module for each activation, `nn.Identity` too, so that linear layers are numbered 0, 2, 4.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
        The network, or the fitted estimator.

    Returns
    -------
    dict of str to torch.Tensor
        ``0.weight`` (n_out, n_in), ``0.bias`` (n_out,), ``2.weight`` and so on, on the CPU.

    Raises
    ------
    ParameterError
        If it is none of the three.
    sklearn.exceptions.NotFittedError
        If the estimator has not been fitted.
    MissingPackageError
        If PyTorch is not installed.
    """
    _, parameters = _parts(model)
    with _needing("PyTorch", "torch"):
        import torch
    state_dict = {}
    for name, array in parameters.items():
        _, index, part = name.split(".")
        state_dict[f"{2 * int(index)}.{part}"] = torch.from_numpy(array)
    return state_dict


def _host_copy(name: str, value: Any) -> NDArray[Any]:
    try:
        # NumPy knows nothing of gradients and of GPUs, nor of all of PyTorch's dtypes.
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        return np.array(value, order="C")
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be a tensor of float32 or float64: {error}") from error


def _layer_names(arrays: Parameters) -> list[str]:
    """Return what the names of each layer's parameters begin with, from the first layer up."""
    layers = [name.removesuffix("weight") for name in arrays if name.endswith("weight")]
    known = {f"{layer}{part}" for layer in layers for part in ("weight", "bias")}
    if not layers or not arrays.keys() <= known:
        raise ShapeError(
            "expected a weight and a bias for each linear layer, such as 0.weight and 0.bias, got "
            f"{', '.join(arrays) or 'nothing'}"
        )
    heads, numbers = zip(*(layer.rstrip(".").rpartition(".")[::2] for layer in layers), strict=True)
    if len(set(heads)) == 1 and all(number.isdecimal() for number in numbers):
        # Files may hold them in the order of the alphabet, 10 before 2.
        return [layer for _, layer in sorted(zip(map(int, numbers), layers, strict=True))]
    return layers


def _layer_sizes(
    layers: list[str], weights: list[NDArray[Any]], biases: list[NDArray[Any] | None]
) -> tuple[int, ...]:
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        if weight.ndim != 2:
            raise ShapeError(
                f"{layer}weight must be that of a linear layer (n_out, n_in), got {weight.shape}"
            )
        if (bias is None) != (biases[0] is None):
            raise ShapeError(
                f"all layers must have biases, or none: {layers[0]}bias and {layer}bias differ"
            )
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ShapeError(f"{layer}bias must have shape {weight.shape[:1]}, got {bias.shape}")
    for (_, below), (layer, above) in pairwise(zip(layers, weights, strict=True)):
        if above.shape[1] != below.shape[0]:
            raise ShapeError(
                f"{layer}weight must take the {below.shape[0]} outputs of the layer before, got "
                f"{above.shape}"
            )
    return (weights[0].shape[1], *(weight.shape[0] for weight in weights))


# ONNX.


def to_onnx(model: "Network | MLPClassifier | MLPRegressor", path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file, whole or not at all.

    The graph takes ``inputs`` (n, n_features), for a network scaled as in training, and gives
    ``outputs`` in the model's dtype: what `Network.predict` returns, an `MLPClassifier`'s
    `predict_proba`, or an `MLPRegressor`'s `predict` as (n, n_outputs). The metadata ``classes``
    are those of the outputs in JSON, where they are known.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
        The network, or the fitted estimator.
    path : path-like
        Where to; a file that is there is replaced once the new one is complete.

    Raises
    ------
    ParameterError
        If the model is none of the three, has an activation that ONNX does not, or more than 2 GiB
        of parameters.
    sklearn.exceptions.NotFittedError
        If the estimator has not been fitted.
    MissingPackageError
        If onnx is not installed.
    OutputError
        If the file could not be written. What was there before is still there.
    """
    architecture, parameters = _parts(model)
    activations = {activation.name for _, _, activation in architecture.layers()}
    if unknown := sorted(activations - ONNX_OPERATORS.keys()):
        raise ParameterError(
            f"ONNX has no activation {unknown[0]!r}: use one of {', '.join(ONNX_OPERATORS)}"
        )
    if (size := sum(array.nbytes for array in parameters.values())) > MOST_ONNX_BYTES:
        raise ParameterError(
            f"an ONNX file holds less than 2 GiB, and the parameters are {size / 2**30:.1f} GiB: "
            "export a smaller model, or one in float32"
        )
    both = hasattr(model, "classes_") and architecture.layer_sizes[-1] == 1
    with _needing("onnx", "gpunn[onnx]"):
        graph = _onnx_model(architecture, parameters, _classes(model), complement=both)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(graph.SerializeToString())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


def _onnx_model(
    architecture: Architecture, parameters: Parameters, classes: Any, *, complement: bool
) -> Any:
    """Return the graph; with `complement`, a single output p becomes the pair 1 - p, p."""
    from onnx import helper, numpy_helper

    constants, nodes, below = dict(parameters), [], "inputs"

    def add(operator: str, inputs: list[str], result: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [result], name=result, **attributes))
        return result

    for index, (_, _, activation) in enumerate(architecture.layers()):
        terms = [name for name in parameters if name.startswith(f"layers.{index}.")]
        below = add("Gemm", [below, *sorted(terms, reverse=True)], f"z.{index}", transB=1)
        if operator := ONNX_OPERATORS[activation.name]:
            below = add(operator, [below], f"a.{index}")
    n_outputs = architecture.layer_sizes[-1]
    if complement:
        constants["one"] = np.ones(1, architecture.dtype)
        below = add("Concat", [add("Sub", ["one", below], "complement"), below], "both", axis=1)
        n_outputs = 2
    add("Identity", [below], "outputs")
    element = helper.np_dtype_to_tensor_dtype(np.dtype(architecture.dtype))
    shapes = {"inputs": architecture.layer_sizes[0], "outputs": n_outputs}
    inputs, outputs = (
        helper.make_tensor_value_info(name, element, ["n", size]) for name, size in shapes.items()
    )
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "gpunn", [inputs], [outputs], initializers)
    opset = [helper.make_opsetid("", ONNX_OPSET)]
    model = helper.make_model(
        graph,
        producer_name="gpunn",
        opset_imports=opset,
        # The oldest format that has these operators, so that older runtimes read it, too.
        ir_version=helper.find_min_ir_version_for(opset),
    )
    if classes is not None:
        helper.set_model_props(model, {"classes": json.dumps(classes, default=str)})
    return model


# What there is inside, and what it takes.


@contextmanager
def _needing(package: str, requirement: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(
            f"this needs {package}, which is not installed: pip install '{requirement}'"
        ) from error


def _parts(model: Any) -> tuple[Architecture, Parameters]:
    """Return what a network or a fitted estimator is, and copies of its numbers on the host."""
    if isinstance(model, Network):
        return model.architecture, model.parameters()
    if not hasattr(type(model), "architecture_"):
        raise ParameterError(
            "expected a gpunn Network, MLPClassifier or MLPRegressor, got "
            f"{type(model).__module__}.{type(model).__qualname__}; what is scikit-learn's goes "
            "through from_sklearn first"
        )
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    architecture, parameters = model.architecture_, {}
    for index, (coefs, biases) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        parameters[f"layers.{index}.weight"] = np.array(coefs.T, architecture.dtype, order="C")
        parameters[f"layers.{index}.bias"] = np.array(biases, architecture.dtype)
    return architecture, parameters


def _classes(model: Any) -> Any:
    """Return what the outputs stand for in plain values, or None."""
    if isinstance(model, Network):
        return model.class_labels
    return model.classes_.tolist() if hasattr(model, "classes_") else None
