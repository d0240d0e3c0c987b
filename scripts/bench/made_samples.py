"""Samples that are made up, in MNIST's shape; speed does not depend on what they show."""

import numpy as np

N_INPUTS, N_OUTPUTS = 784, 10


class Samples:
    """Inputs in [0, 1), a class for each, and targets of 0.99 for it and 0.01 for the others."""

    def __init__(self, n_samples: int) -> None:
        generator = np.random.default_rng(0)
        self.inputs = generator.random((n_samples, N_INPUTS), dtype=np.float32)
        self.labels = generator.integers(0, N_OUTPUTS, n_samples)
        self.targets = np.full((n_samples, N_OUTPUTS), 0.01, np.float32)
        self.targets[np.arange(n_samples), self.labels] = 0.99
