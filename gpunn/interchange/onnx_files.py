"""To files in ONNX's format.

Source of the operators: the ONNX operator specification, opset 13.
"""

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.activations import ACTIVATIONS
from gpunn.errors import OutputError, ParameterError, one_line
from gpunn.interchange.parts import Parameters, classes_of, needing, parts
from gpunn.model_file import replacing
from gpunn.network import Network
from gpunn.network.architecture import Architecture

if TYPE_CHECKING:
    from gpunn.estimators import MLPClassifier, MLPRegressor

ONNX_OPSET = 13
MOST_ONNX_BYTES = 2**31 - 2**20
"""A file in ONNX's format is a single message, of less than 2 GiB; names need a little."""


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
    architecture, parameters = parts(model)
    for _, _, activation in architecture.layers():
        if activation.onnx is None:
            known = [name for name, record in ACTIVATIONS.items() if record.onnx is not None]
            raise ParameterError(
                f"ONNX has no activation {activation.name!r}: use one of {', '.join(known)}"
            )
    if (size := sum(array.nbytes for array in parameters.values())) > MOST_ONNX_BYTES:
        raise ParameterError(
            f"an ONNX file holds less than 2 GiB, but the parameters take {size / 2**30:.1f} GiB: "
            "export a smaller model, or one in float32"
        )
    both = hasattr(model, "classes_") and architecture.layer_sizes[-1] == 1
    with needing("onnx", "gpunn[onnx]"):
        graph = _onnx_model(architecture, parameters, classes_of(model), complement=both)
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
        if activation.onnx:
            below = add(activation.onnx, [below], f"a.{index}")
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
