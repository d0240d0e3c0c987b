"""gpunn: a multilayer perceptron on NumPy or, through CuPy, on an NVIDIA GPU.

    >>> import gpunn
    >>> network = gpunn.ThreeLayerNetwork(784, 200, 10, learning_rate=0.1)

`import gpunn` never imports CuPy; asking for a GPU does.
"""

from gpunn import parity
from gpunn.checkpoints import Checkpoints
from gpunn.data import Dataset, load_dataset
from gpunn.devices import get_backend
from gpunn.errors import GpunnError
from gpunn.evaluation import evaluate
from gpunn.gradient_check import check_gradients, numerical_gradients
from gpunn.history import Callback, EarlyStopping, History
from gpunn.network import Network
from gpunn.optimizers import SGD, Adam, Momentum
from gpunn.scaling import Scaling
from gpunn.three_layer import ThreeLayerNetwork
from gpunn.training import fit

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
