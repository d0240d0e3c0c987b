"""What the page to draw on is told of a network, in plain values; and which networks it is for."""

import base64
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from gpunn.activations import IDENTITY, RELU, SIGMOID, SOFTMAX, TANH
from gpunn.data.picture_fields import INK, box_shape
from gpunn.data.picture_records import PictureField
from gpunn.errors import ParameterError
from gpunn.network import Network
from gpunn.network.picture_inputs import picture_field_of

LARGEST = 16
"""MiB of weights and biases. The page is a third larger, 22 MB: it still goes by mail, which often
ends at 25 MB, and a phone still answers while one draws."""

_FORMULAS = {record.name: record for record in (SIGMOID, TANH, RELU, IDENTITY, SOFTMAX)}
"""The activations whose formulas `network.js` has, too."""


def contents_of(network: Network) -> dict[str, Any]:
    """Return what the page is told of a network.

    Parameters
    ----------
    network : Network
        A network that tells pictures apart.

    Returns
    -------
    dict
        Plain values. Arrays are the base64 of little-endian numbers: weights and biases of the
        network's own dtype, scale and shift of float64.

    Raises
    ------
    ParameterError
        If the page is not for this network.
    """
    field = _checked_field(network)
    return {
        "dtype": network.dtype.name,
        "layers": _layers(network),
        "scale": _base64(network.scaling.scale, np.float64),
        "shift": _base64(network.scaling.shift, np.float64),
        "picture": {
            "rows": field.shape[0],
            "columns": field.shape[1],
            "box": None if field.box is None else list(box_shape(field.shape, field.box)),
            "low": field.low,
            "high": field.high,
            "ink": INK,
        },
        "labels": [str(label) for label in network.class_labels or range(network.n_outputs)],
        "parameters": network.n_parameters,
        **_training_facts(network.training_record),
    }


def _checked_field(network: Network) -> PictureField:
    field = picture_field_of(network)
    if field is None:
        raise ParameterError(
            f"the model takes {network.n_inputs:,} numbers that are no pixels, so nothing can be "
            "drawn for it; use one that was trained on pictures"
        )
    if not network.predicts_classes:
        raise ParameterError(
            "the model predicts numbers, and the page shows which class a drawing is; use one that "
            "was trained to tell at least two classes apart"
        )
    for _, _, activation in network.architecture.layers():
        if _FORMULAS.get(activation.name) is not activation:
            raise ParameterError(
                f"the model has the activation {activation.name!r:.40}, which the page cannot "
                f"compute; use one with {', '.join(_FORMULAS)}"
            )
    size = network.n_parameters * network.dtype.itemsize / 2**20
    if size > LARGEST:
        raise ParameterError(
            f"the model has {size:,.1f} MiB of weights, but a page that a phone can open holds at "
            f"most {LARGEST}; train one with fewer hidden units"
        )
    return field


def _layers(network: Network) -> list[dict[str, Any]]:
    """Return each layer's weights, (n_out, n_in) row by row, its biases and its activation."""
    host = network.parameters()
    layers = []
    for index, (n_out, n_in, activation) in enumerate(network.architecture.layers()):
        biases = host.get(f"layers.{index}.bias")
        layers.append(
            {
                "inputs": n_in,
                "units": n_out,
                "activation": activation.name,
                "weights": _base64(host[f"layers.{index}.weight"], network.dtype),
                "biases": None if biases is None else _base64(biases, network.dtype),
            }
        )
    return layers


def _base64(values: ArrayLike, dtype: DTypeLike) -> str:
    little = np.asarray(values, np.dtype(dtype).newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode("ascii")


def _training_facts(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the network was trained on and how good it was, if the record says so."""
    data, accuracy = record.get("data"), record.get("test_accuracy")
    is_share = isinstance(accuracy, float) and math.isfinite(accuracy)
    return {
        "data": data if isinstance(data, str) else None,
        "accuracy": accuracy if is_share else None,
    }
