"""Whether a training fits, before its first step, and whether its samples fit beside it.

Weights are on the device already. What must still find room is counted here: what the optimizer
remembers, the copy of the best weights, and the arrays that a batch goes through. Nobody should
learn an hour into a run, from a driver's error, that a network is too wide. Samples may have what
is left; no training fails for them, since they can be streamed, too.
"""

from gpunn.backends.base import Backend
from gpunn.errors import OutOfMemoryError
from gpunn.host_memory import TOO_LITTLE_TO_ASK, free_memory, in_gib
from gpunn.network import Network
from gpunn.optimizers import Optimizer

SHARE = 0.9
"""How much of what seems to be left samples may take: pools and other programs need some, too."""


def check_memory(
    network: Network,
    optimizer: Optimizer,
    *,
    batch_size: int,
    n_rows: int,
    keeps_best: bool,
) -> int:
    """Make sure that the device has room for a training, and return how many bytes it takes.

    Parameters
    ----------
    network : Network
        The network, on its device.
    optimizer : Optimizer
        The rule it is to learn by.
    batch_size : int
        Samples in a step.
    n_rows : int
        Samples that go through the network at a time, at least as many.
    keeps_best : bool
        Whether the best weights are kept in a copy.

    Returns
    -------
    int
        What it takes beside the weights and the samples that wait for their turn.

    Raises
    ------
    OutOfMemoryError
        If it has not. The message says how much is needed, how much is free, and what would fit.
    """
    fixed = optimizer.extra_bytes(network)
    sizes = network.sharing.local_sizes
    fixed += network.backend.step_bytes(sizes, batch_size, network.dtype)
    if keeps_best:
        fixed += network.n_held * network.dtype.itemsize
    each = bytes_per_sample(network)
    needed = fixed + n_rows * each
    if needed < TOO_LITTLE_TO_ASK:
        return needed
    free = network.backend.memory_info().free
    if needed > free:
        fitting = max(0, free - fixed) // each
        raise OutOfMemoryError(
            f"training needs {in_gib(needed)}, but {network.backend.name} has {in_gib(free)} "
            f"free: try {_remedy(fitting, batch_size)}"
        )
    return needed


def why_too_large(backend: Backend, n_bytes: int, reserved: int) -> str | None:
    """Say why samples had better not live on a device; None if they may.

    Parameters
    ----------
    backend : Backend
        The device.
    n_bytes : int
        What they would take there.
    reserved : int
        Bytes that are needed for other things.

    Returns
    -------
    str or None
        The reason, for a person to read.
    """
    if n_bytes + reserved < TOO_LITTLE_TO_ASK:
        return None
    room = max(0.0, SHARE * (backend.memory_info().free - reserved))
    if n_bytes <= room:
        return None
    return f"they take {in_gib(n_bytes)}, but {backend.name} has room for {in_gib(room)} of them"


def why_no_room(n_bytes: int) -> str | None:
    """Say why something does not fit the host's memory; None if it does, in a person's words."""
    if n_bytes < TOO_LITTLE_TO_ASK:
        return None
    free = free_memory()
    if n_bytes <= SHARE * free:
        return None
    return f"they take {in_gib(n_bytes)}, but {in_gib(free)} of memory are free for them"


def bytes_per_sample(network: Network) -> int:
    """Return what a sample of a batch takes: itself, and each layer's activations and deltas."""
    n_inputs, *hidden, n_outputs = network.sharing.local_sizes
    of_outputs = (network.n_outputs + 2 * n_outputs) * network.dtype.itemsize
    return (n_inputs + 2 * sum(hidden)) * network.work_dtype.itemsize + of_outputs


def _remedy(fitting: int, batch_size: int) -> str:
    if 0 < fitting < batch_size:
        # A power of two, with some room left for what other programs may take meanwhile.
        return f"a batch size of {2 ** (fitting.bit_length() - 1)}"
    return "plain SGD, which remembers nothing, or fewer hidden units"
