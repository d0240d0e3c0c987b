"""gpunn: a multilayer perceptron on NumPy or, through CuPy, on an NVIDIA GPU.

    >>> import gpunn
    >>> network = gpunn.ThreeLayerNetwork(784, 200, 10, learning_rate=0.1)

`import gpunn` never imports CuPy; asking for a GPU does.
"""

from gpunn import parity
from gpunn.data import Dataset, load_dataset
from gpunn.devices import get_backend
from gpunn.errors import GpunnError
from gpunn.gradient_check import check_gradients, numerical_gradients
from gpunn.network import Network
from gpunn.optimizers import SGD, Adam, Momentum
from gpunn.scaling import Scaling
from gpunn.three_layer import ThreeLayerNetwork
from gpunn.training import Callback, EarlyStopping, History, evaluate, fit

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "Callback",
    "Dataset",
    "EarlyStopping",
    "GpunnError",
    "History",
    "Momentum",
    "Network",
    "Scaling",
    "ThreeLayerNetwork",
    "__version__",
    "check_gradients",
    "evaluate",
    "fit",
    "get_backend",
    "load_dataset",
    "numerical_gradients",
    "parity",
]
