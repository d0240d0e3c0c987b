"""From and to PyTorch's models of linear layers, as state dicts."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Backend
from gpunn.errors import DataError, ParameterError, ShapeError
from gpunn.interchange.parts import Parameters, needing, parts
from gpunn.network import Network
from gpunn.network.architecture import Architecture

if TYPE_CHECKING:
    from gpunn.estimators import MLPClassifier, MLPRegressor


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
    hidden_activation, output_activation : str
        The activations, which are not in a state dict: names in `gpunn.activations.ACTIVATIONS`.
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
        If the device cannot be used.
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
    _, parameters = parts(model)
    with needing("PyTorch", "torch"):
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
