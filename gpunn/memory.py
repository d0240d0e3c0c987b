"""Whether a training fits, before its first step.

Samples and weights are on the device already. What is still to come is counted here: what the
optimizer remembers, the copy of the best weights, and the arrays that a batch goes through. Nobody
should learn an hour into a run, from a driver's error, that a network is too wide.
"""

from gpunn.backend import in_gib
from gpunn.errors import OutOfMemoryError
from gpunn.network import Network
from gpunn.optimizers import Optimizer

TOO_LITTLE_TO_ASK = 2**26
"""Bytes that every device has: asking it takes as long as training a small network."""


def check_memory(
    network: Network,
    optimizer: Optimizer,
    *,
    batch_size: int,
    n_rows: int,
    keeps_best: bool,
) -> None:
    """Make sure that the device has room for a training.

    Parameters
    ----------
    network : Network
        The network, on its device.
    optimizer : Optimizer
        The rule it is to learn by.
    batch_size : int
        Samples in a step.
    n_rows : int
        Samples that are gathered at a time, at least as many.
    keeps_best : bool
        Whether the best weights are kept in a copy.

    Raises
    ------
    OutOfMemoryError
        If it has not. The message says how much is needed, how much is free, and what would fit.
    """
    fixed = optimizer.extra_bytes(network)
    if keeps_best:
        fixed += network.n_parameters * network.dtype.itemsize
    each = bytes_per_sample(network)
    needed = fixed + n_rows * each
    if needed < TOO_LITTLE_TO_ASK:
        return
    free = network.backend.memory_info().free
    if needed > free:
        fitting = max(0, free - fixed) // each
        raise OutOfMemoryError(
            f"training needs {in_gib(needed)} of {in_gib(free)} free on {network.backend.name}: "
            f"try {_remedy(fitting, batch_size)}"
        )


def bytes_per_sample(network: Network) -> int:
    """Return what a sample of a batch takes: itself, and each layer's activations and deltas."""
    n_inputs, *others = network.architecture.layer_sizes
    return (n_inputs + network.n_outputs + 2 * sum(others)) * network.dtype.itemsize


def _remedy(fitting: int, batch_size: int) -> str:
    if 0 < fitting < batch_size:
        # A power of two, with some room left for what other programs may take meanwhile.
        return f"a batch size of {2 ** (fitting.bit_length() - 1)}"
    return "plain SGD, which remembers nothing, or fewer hidden units"
