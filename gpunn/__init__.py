"""gpunn: a multilayer perceptron on NumPy or, through CuPy, on an NVIDIA GPU.

    >>> import gpunn
    >>> network = gpunn.ThreeLayerNetwork(784, 200, 10, learning_rate=0.1)

`import gpunn` never imports CuPy; choosing a GPU does. `gpunn.MLPClassifier` and
`gpunn.MLPRegressor` need scikit-learn, which is imported when you first use one of them.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpunn.backends.select import get_backend
from gpunn.data import Dataset, Scaling, load_dataset
from gpunn.errors import GpunnError, MissingPackageError
from gpunn.network import Network
from gpunn.optimizers import SGD, Adam, Momentum
from gpunn.textbook import ThreeLayerNetwork
from gpunn.training import (
    Callback,
    Checkpoints,
    EarlyStopping,
    History,
    Stream,
    evaluate,
    fit,
)

if TYPE_CHECKING:
    from gpunn import parity
    from gpunn.estimators import MLPClassifier, MLPRegressor  # noqa: F401
    from gpunn.gradient_check import check_gradients, numerical_gradients
    from gpunn.interchange import from_sklearn, from_torch, to_onnx, to_sklearn, to_torch
    from gpunn.plots.hidden_units import plot_hidden_units
    from gpunn.reports.report import report

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "Callback",
    "Checkpoints",
    "Dataset",
    "EarlyStopping",
    "GpunnError",
    "History",
    "Momentum",
    "Network",
    "Scaling",
    "Stream",
    "ThreeLayerNetwork",
    "__version__",
    "check_gradients",
    "evaluate",
    "fit",
    "from_sklearn",
    "from_torch",
    "get_backend",
    "load_dataset",
    "numerical_gradients",
    "parity",
    "plot_hidden_units",
    "report",
    "to_onnx",
    "to_sklearn",
    "to_torch",
]

# Pickles made before there were folders name these modules as they were then.
for _then, _now in (
    ("history", "training.callbacks"),
    ("checkpoints", "training.checkpoints"),
    ("evaluation", "training.evaluation"),
    ("streams", "training.streams"),
    ("scaling", "data.scaling"),
):
    sys.modules.setdefault(f"gpunn.{_then}", sys.modules[f"gpunn.{_now}"])

_LATER = {
    "check_gradients": "gpunn.gradient_check",
    "numerical_gradients": "gpunn.gradient_check",
    "from_sklearn": "gpunn.interchange",
    "from_torch": "gpunn.interchange",
    "to_onnx": "gpunn.interchange",
    "to_sklearn": "gpunn.interchange",
    "to_torch": "gpunn.interchange",
    "plot_hidden_units": "gpunn.plots.hidden_units",
    "report": "gpunn.reports.report",
    # Not in __all__: `from gpunn import *` is to work without scikit-learn.
    "MLPClassifier": "gpunn.estimators",
    "MLPRegressor": "gpunn.estimators",
}
"""Where names are that not every program needs: they are imported when they are first used."""


def __getattr__(name: str) -> Any:
    if name == "parity":
        return import_module("gpunn.parity")
    if name not in _LATER:
        raise AttributeError(f"module 'gpunn' has no attribute {name!r}")
    try:
        return getattr(import_module(_LATER[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "sklearn":
            raise
        raise MissingPackageError(
            f"gpunn.{name} needs scikit-learn: pip install 'gpunn[sklearn]'"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "parity"})
