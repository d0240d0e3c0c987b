"""What those ask who take any network: whether it is one, and whether it can answer."""

import numpy as np

from gpunn.errors import DataError, ParameterError
from gpunn.network.network import Network


def check_network(network: object) -> None:
    """Raise ParameterError unless something is a network."""
    if not isinstance(network, Network):
        raise ParameterError(
            f"network must be a gpunn.Network, got {network!r:.60}; a file is read with "
            "gpunn.Network.load"
        )


def check_weights(network: Network) -> None:
    """Raise unless all weights and biases are finite; if ranks share them, on all ranks.

    Raises
    ------
    DataError
        If one is not.
    """
    network.sharing.ranks.together(lambda: _check_own_weights(network))


def _check_own_weights(network: Network) -> None:
    for name, values in network.device_parameters().items():
        if not np.isfinite(network.backend.to_host(values)).all():
            raise DataError(
                f"the model's {name} has numbers that are NaN or infinite, because its training "
                "diverged; train it again with a smaller learning rate"
            )
