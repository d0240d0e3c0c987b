"""The network: what it is, its layers, its one forward and one backward, and its files."""

from gpunn.network.architecture import Architecture
from gpunn.network.layers import Dropout, Layer, Update, add_gradient
from gpunn.network.network import Network

__all__ = ["Architecture", "Dropout", "Layer", "Network", "Update", "add_gradient"]
