"""Networks to draw for, and what they predict."""

from typing import Any

import numpy as np

from gpunn import Network, Scaling


def made(sizes: list[int], **options: Any) -> Network:
    """Return a network with weights of a size that makes its outputs differ, untrained."""
    record = options.pop("record", {})
    network = Network(sizes, device="cpu", **options)
    rng = np.random.default_rng(7)
    network.load_parameters(
        {
            name: rng.normal(0, 2 / np.sqrt(array.shape[-1]), array.shape)
            for name, array in network.parameters().items()
        }
    )
    network.scaling = Scaling.to_range(0, 255, 0.01, 1.0)
    network.training_record = record
    return network


def predicted(network: Network, pictures: Any, low: float = 0, high: float = 255) -> Any:
    """Return a network's outputs for pictures of grey levels, as `gpunn predict` has them."""
    grey = np.reshape(pictures, (-1, network.n_inputs)).astype(np.uint8)
    values = grey if (low, high) == (0, 255) else low + grey * ((high - low) / 255)
    return network.predict(network.scaling.apply(values, network.dtype))
