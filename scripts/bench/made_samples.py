"""Samples that are made up, in MNIST's shape; speed does not depend on what they show."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

N_INPUTS, N_OUTPUTS = 784, 10


def targets_of(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Return 0.99 for each sample's class, and 0.01 for the others."""
    targets = np.full((len(labels), N_OUTPUTS), 0.01, np.float32)
    targets[np.arange(len(labels)), labels] = 0.99
    return targets


class Samples:
    """Inputs in [0, 1), a class for each, and targets of 0.99 for it and 0.01 for the others."""

    def __init__(self, n_samples: int) -> None:
        generator = np.random.default_rng(0)
        self.inputs = generator.random((n_samples, N_INPUTS), dtype=np.float32)
        self.labels = generator.integers(0, N_OUTPUTS, n_samples)
        self.targets = targets_of(self.labels)
