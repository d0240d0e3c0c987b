"""gpunn: a multilayer perceptron on NumPy or, through CuPy, on an NVIDIA GPU.

    >>> import gpunn
    >>> network = gpunn.ThreeLayerNetwork(784, 200, 10, learning_rate=0.1)

`import gpunn` never imports CuPy; asking for a GPU does. `gpunn.MLPClassifier` and
`gpunn.MLPRegressor` need scikit-learn, which is imported when one of them is asked for.
"""

from typing import TYPE_CHECKING, Any

from gpunn import parity
from gpunn.backends.select import get_backend
from gpunn.data.datasets import Dataset, load_dataset
from gpunn.data.scaling import Scaling
from gpunn.errors import GpunnError, MissingPackageError
from gpunn.gradient_check import check_gradients, numerical_gradients
from gpunn.interchange import from_sklearn, from_torch, to_onnx, to_sklearn, to_torch
from gpunn.network import Network
from gpunn.optimizers import SGD, Adam, Momentum
from gpunn.textbook import ThreeLayerNetwork
from gpunn.training.callbacks import Callback, EarlyStopping, History
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.evaluation import evaluate
from gpunn.training.fitting import fit
from gpunn.training.streams import Stream

if TYPE_CHECKING:
    from gpunn.estimators.perceptrons import MLPClassifier, MLPRegressor  # noqa: F401

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
    "to_onnx",
    "to_sklearn",
    "to_torch",
]

# Not in __all__: `from gpunn import *` is to work without scikit-learn.
_ESTIMATORS = ("MLPClassifier", "MLPRegressor")


def __getattr__(name: str) -> Any:
    if name not in _ESTIMATORS:
        raise AttributeError(f"module 'gpunn' has no attribute {name!r}")
    try:
        from gpunn import estimators
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "sklearn":
            raise
        raise MissingPackageError(
            f"gpunn.{name} needs scikit-learn: pip install 'gpunn[sklearn]'"
        ) from error
    return getattr(estimators, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ESTIMATORS})
