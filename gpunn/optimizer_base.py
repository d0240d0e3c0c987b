"""What all optimizers have in common: what is asked of them, and memory in the network's shapes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from gpunn.backends.base import ALL, Array, Backend, Number
from gpunn.backends.fused import UpdateRule
from gpunn.errors import ParameterError
from gpunn.network import Network
from gpunn.network.layers import Layer


class Memory(NamedTuple):
    """What an optimizer remembers of one layer: arrays in the shapes of its parameters."""

    weights: Array
    biases: Array | None


class LayerMemories(NamedTuple):
    """Arrays in the shapes of a layer's weights, and of its biases."""

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]


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


def memories_of(index: int, *kinds: list[Memory]) -> LayerMemories:
    """Return what is remembered of a layer, of each kind."""
    return LayerMemories(
        tuple(memory[index].weights for memory in kinds),
        tuple(b for memory in kinds if (b := memory[index].biases) is not None),
    )


def largest_layer(network: Network) -> int:
    """Return how many weights the largest layer has."""
    return max(int(layer.weights.size) for layer in network.layers)


def blocks(
    backend: Backend, layer: Layer, delta: Array, inputs: Array, *memories: Memory
) -> Iterator[tuple[Layer, Array, Sequence[Memory]]]:
    """Yield a layer part by part, as the device changes it: with its delta and memories."""
    for rows, part in backend.update_blocks(layer.weights, delta, inputs):
        if rows is ALL:
            yield layer, delta, memories
            continue
        weights, biases = _rows(layer.weights, layer.biases, rows)
        own = layer._replace(weights=weights, biases=biases)
        yield own, part, [Memory(*_rows(*memory, rows)) for memory in memories]


def _rows(weights: Array, biases: Array | None, rows: slice) -> tuple[Array, Array | None]:
    return weights[rows], None if biases is None else biases[rows]


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

        A rule's numbers, such as its weight decay, may be changed before a step begins. Where steps
        are recorded, a change counts from the next epoch on.
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

    # For devices that record a step; see `gpunn.training.recorded`.

    rule: UpdateRule | None = None
    """The whole rule for a gradient that lies ready, as CUDA; None to leave all to `update`."""

    def step_numbers(self, learning_rate: Any, n_rows: Any, step: Any) -> tuple[Any, ...]:
        """Return the numbers that each step of an epoch takes.

        The first one is what the delta of the outputs is multiplied by in a recorded step. All that
        follows is linear in it, so that `update` finds the factors of its products in the deltas.

        Parameters
        ----------
        learning_rate : ndarray, shape (n_steps,)
            The step sizes.
        n_rows : ndarray, shape (n_steps,)
            Samples in each step.
        step : ndarray, shape (n_steps,)
            The number of each step since the training began, from 1.

        Returns
        -------
        tuple of float or ndarray, shape (n_steps,)
            Each number, for all steps or for each.

        Raises
        ------
        ParameterError
            If the rule cannot be recorded.
        """
        raise ParameterError(f"{type(self).__name__} has no step_numbers(): it is not recorded")

    def begin_recorded_step(self, numbers: Sequence[Number]) -> None:
        """Begin a step with the numbers of `step_numbers`, which are on the device."""
        raise ParameterError(f"{type(self).__name__} has no step_numbers(): it is not recorded")

    def recorded_choices(self) -> tuple[object, ...]:
        """Return what else of the rule a recorded step depends on: if it changes, record anew."""
        return ()

    def memories(self, index: int) -> LayerMemories:
        """Return what `rule` remembers of a layer, in its order."""
        return LayerMemories((), ())


def rule_of(optimizer: Optimizer) -> UpdateRule | None:
    """Return an optimizer's whole rule; None if a class over the one that has it updates anew."""
    for kind in type(optimizer).__mro__:
        if "rule" in vars(kind):
            return optimizer.rule
        if "update" in vars(kind):
            return None
    return None


def is_recordable(optimizer: Optimizer) -> bool:
    """Say whether a device may record an optimizer's steps.

    Its class must say so itself: what a class derived from it does in Python, step by step, would
    be recorded once and then no longer done.
    """
    return "step_numbers" in vars(type(optimizer))
