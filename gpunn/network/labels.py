"""What the outputs of a network are called."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.network.network import Network


def labels_of(network: Network) -> NDArray[Any]:
    """Return the label of each output: a number or a word."""
    labels = network.class_labels
    if labels is None:
        return np.arange(network.n_outputs)
    has_words = any(isinstance(label, str) for label in labels)
    return np.array(labels, object if has_words else np.int64)


def class_words_of(network: Network) -> list[str] | None:
    """Return the words of the classes, if they are words."""
    labels = network.class_labels
    if labels is None or not all(isinstance(label, str) for label in labels):
        return None
    return [str(label) for label in labels]


def target_names_of(network: Network) -> list[str]:
    """Return what the numbers that a network predicts are called."""
    names = network.training_record.get("targets")
    if isinstance(names, list) and len(names) == network.n_outputs:
        return list(map(str, names))
    return [f"number {k}" for k in range(1, network.n_outputs + 1)]
