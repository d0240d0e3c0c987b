"""The weights that did best in validation so far."""

from gpunn.backends.base import Array
from gpunn.network import Network


class BestWeights:
    """A copy of a network's weights on its device, for the best epoch so far."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.arrays: dict[str, Array] = {}

    def allocate(self) -> None:
        """Make room for the weights, unless there is."""
        for name, array in self.network.device_parameters().items():
            if name not in self.arrays:
                self.arrays[name] = self.network.backend.empty(array.shape, array.dtype)

    def keep(self) -> None:
        """Copy the network's weights as they are now."""
        self.allocate()
        for name, array in self.network.device_parameters().items():
            self.network.backend.copy_into(array, self.arrays[name])

    def restore(self) -> bool:
        """Give the network the best weights back, if there are any; say whether there were."""
        own = self.network.device_parameters()
        for name, array in self.arrays.items():
            self.network.backend.copy_into(array, own[name])
        return bool(self.arrays)
