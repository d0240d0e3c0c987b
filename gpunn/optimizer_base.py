"""What all optimizers have in common: what is asked of them, and memory in the network's shapes."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from gpunn.backends.base import Array
from gpunn.errors import ParameterError
from gpunn.network import Network
from gpunn.network.layers import Layer


class Memory(NamedTuple):
    """What an optimizer remembers of one layer: arrays in the shapes of its parameters."""

    weights: Array
    biases: Array | None


def new_memory(network: Network) -> list[Memory]:
    """Return zeros for each layer."""

    def zeros(parameter: Array) -> Array:
        return network.backend.zeros(parameter.shape, network.dtype)

    return [
        Memory(zeros(layer.weights), None if layer.biases is None else zeros(layer.biases))
        for layer in network.layers
    ]


def named(kind: str, memories: list[Memory]) -> dict[str, Array]:
    """Return memories by name, such as ``layers.0.weight.velocity``."""
    arrays = {}
    for index, memory in enumerate(memories):
        arrays[f"layers.{index}.weight.{kind}"] = memory.weights
        if memory.biases is not None:
            arrays[f"layers.{index}.bias.{kind}"] = memory.biases
    return arrays


def largest_layer(network: Network) -> int:
    """Return how many weights the largest layer has."""
    return max(int(layer.weights.size) for layer in network.layers)


class Optimizer(ABC):
    """A rule that turns gradients into steps."""

    default_learning_rate: ClassVar[float | None] = None
    """The step size to begin with where nobody says another; None if there is none."""

    @abstractmethod
    def prepare(self, network: Network) -> None:
        """Forget the past and allocate what a training of this network needs."""

    def extra_bytes(self, network: Network) -> int:
        """Return how much memory `prepare` takes on the network's device."""
        return 0

    def state(self) -> dict[str, Array]:
        """Return the very arrays, on the device, in which it remembers the past, by name.

        Raises
        ------
        ParameterError
            If it does not say what they are, so that its trainings cannot be resumed.
        """
        raise ParameterError(
            f"{type(self).__name__} does not say what it remembers: give it a method state()"
        )

    n_steps = 0
    """How many steps it has taken, if it needs to know."""

    @abstractmethod
    def begin_step(self, learning_rate: float) -> None:
        """Begin a step of that size; `update` follows once for each layer.

        A rule's numbers, such as its weight decay, may be changed before a step begins.
        """

    @abstractmethod
    def update(self, index: int, layer: Layer, delta: Array, inputs: Array) -> None:
        """Change the layer's parameters in place by one step.

        Parameters
        ----------
        index : int
            The layer's number, from the first hidden layer up.
        layer : Layer
            Its connections.
        delta : Array, shape (n, n_out)
            dE/dZ of the layer.
        inputs : Array, shape (n, n_in)
            The activations below. The gradient is ``delta^T inputs / n``.
        """
