"""What the commands share that take a saved network."""

from argparse import Namespace
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console, choose_device
from gpunn.data.matrices import Matrix, blocks, stays_on_disk
from gpunn.errors import DataError
from gpunn.network import Network


def load(options: Namespace, console: Console) -> Network:
    """Return the saved network, on the device that was chosen."""
    network = Network.load(options.model, choose_device(options.device, console))
    network.feature_names = None  # samples from files have none that they could be compared with
    return network


def labels_of(network: Network) -> NDArray[np.int64]:
    """Return the label of each output."""
    return np.asarray(
        range(network.n_outputs) if network.class_labels is None else network.class_labels,
        np.int64,
    )


def check_features(inputs: Matrix, network: Network, where: str) -> None:
    """Raise unless the samples have as many values as the network takes."""
    if inputs.shape[1] != network.n_inputs:
        raise DataError(
            f"{where}: its samples have {inputs.shape[1]} values, but the model takes "
            f"{network.n_inputs}; use the data that it was trained for"
        )


def row_chunks(inputs: Matrix) -> Iterable[slice]:
    """Return slices of inputs that fit the memory: one of all, unless they stay on the disk."""
    return blocks(inputs) if stays_on_disk(inputs) else [slice(None)]
