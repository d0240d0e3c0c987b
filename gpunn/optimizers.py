"""How a gradient changes the weights.

An optimizer gets each layer's `delta` and `inputs`, not its gradient: plain gradient descent then
needs no gradient at all, it accumulates ``-lr/n delta^T inputs`` into the weights in one matrix
product, and momentum accumulates it into the velocities. Only Adam (`gpunn.adam`), which squares
the gradient, computes it into a buffer.

Weight decay adds ``weight_decay * W`` to the gradient of the weights; biases do not decay.

Sources: I. Sutskever et al., *On the importance of initialization and momentum in deep learning*
(2013); M. A. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from gpunn.adam import Adam, AdamEpsilonHat
from gpunn.backends.base import Array, Backend, Number
from gpunn.backends.fused import UpdateRule
from gpunn.errors import ParameterError
from gpunn.network import Network
from gpunn.network.layers import Layer, add_gradient
from gpunn.optimizer_base import (
    LayerMemories,
    Memory,
    Optimizer,
    blocks,
    memories_of,
    named,
    new_memory,
)
from gpunn.ranges import check_range
from gpunn.schedules import (
    Schedule,
    constant,
    cosine,
    exponential_decay,
    inverse_scaling,
    step_decay,
)

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamEpsilonHat",
    "Momentum",
    "Optimizer",
    "OptimizerRecord",
    "Schedule",
    "constant",
    "cosine",
    "default_learning_rate",
    "exponential_decay",
    "get_optimizer",
    "inverse_scaling",
    "step_decay",
]


@dataclass
class SGD(Optimizer):
    """Gradient descent without memory: ``w <- w - lr (g + weight_decay w)``.

    Parameters
    ----------
    weight_decay : float
        Pulls weights towards zero; 0 for none.

    Raises
    ------
    ParameterError
        If it is negative.
    """

    default_learning_rate: ClassVar[float] = 0.1

    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_range("weight_decay", self.weight_decay, 0.0)

    def prepare(self, network: Network) -> None:
        self._backend: Backend = network.backend

    def state(self) -> dict[str, Array]:
        return {}

    rule = UpdateRule(0, "w = (decays ? n[1] : T(1)) * w + g;")

    def begin_step(self, learning_rate: float) -> None:
        self._learning_rate: float | None = learning_rate
        self._kept: Number = 1.0 - learning_rate * self.weight_decay

    def step_numbers(self, learning_rate: Any, n_rows: Any, step: Any) -> tuple[Any, ...]:
        return -learning_rate / n_rows, 1.0 - learning_rate * self.weight_decay

    def begin_recorded_step(self, numbers: Sequence[Number]) -> None:
        self._learning_rate = None
        self._kept = numbers[1] if self.weight_decay else 1.0

    def recorded_choices(self) -> tuple[object, ...]:
        return (self.weight_decay != 0,)

    def update(self, index: int, layer: Layer, delta: Array, inputs: Array) -> None:
        alpha = _factor(self._learning_rate, delta)
        add_gradient(
            self._backend,
            delta,
            inputs,
            layer.weights,
            layer.biases,
            alpha=alpha,
            beta=self._kept,
        )


@dataclass
class Momentum(Optimizer):
    """Gradient descent with momentum: ``v <- momentum v - lr g``, ``w <- w + v``.

    With Nesterov's look-ahead, ``w <- w + momentum v - lr g`` with the new v.

    Parameters
    ----------
    momentum : float
        How much of the last step is kept, in [0, 1).
    nesterov : bool
        Whether to look ahead.
    weight_decay : float
        Adds ``weight_decay w`` to the gradient of weights.

    Raises
    ------
    ParameterError
        If a number is outside its range.
    """

    default_learning_rate: ClassVar[float] = 0.01

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_range("momentum", self.momentum, 0.0, 1.0)
        check_range("weight_decay", self.weight_decay, 0.0)

    def extra_bytes(self, network: Network) -> int:
        return network.n_held * network.dtype.itemsize

    def prepare(self, network: Network) -> None:
        self._backend: Backend = network.backend
        self._velocities = new_memory(network)

    def state(self) -> dict[str, Array]:
        return named("velocity", self._velocities)

    @property
    def rule(self) -> UpdateRule:  # type: ignore[override]
        """The whole rule for a gradient that lies ready, as CUDA."""
        ahead = "n[1] * m[0] + s" if self.nesterov else "m[0]"
        return UpdateRule(
            1,
            f"const T s = decays ? n[2] * w + g : g; m[0] = n[1] * m[0] + s; w += {ahead};",
        )

    def begin_step(self, learning_rate: float) -> None:
        self._learning_rate: float | None = learning_rate
        shrinking = learning_rate * self.weight_decay
        self._begin(shrinking != 0, -shrinking, 1.0 - shrinking)

    def step_numbers(self, learning_rate: Any, n_rows: Any, step: Any) -> tuple[Any, ...]:
        shrinking = learning_rate * self.weight_decay
        return -learning_rate / n_rows, self.momentum, -shrinking, 1.0 - shrinking

    def begin_recorded_step(self, numbers: Sequence[Number]) -> None:
        self._learning_rate = None
        self._begin(self.weight_decay != 0, numbers[2], numbers[3])

    def _begin(self, shrinks: bool, shrinking: Number, left: Number) -> None:
        self._shrinks, self._shrinking, self._left = shrinks, shrinking, left

    def recorded_choices(self) -> tuple[object, ...]:
        return self.momentum, self.nesterov, self.weight_decay != 0

    def memories(self, index: int) -> LayerMemories:
        return memories_of(index, self._velocities)

    def update(self, index: int, layer: Layer, delta: Array, inputs: Array) -> None:
        for part, errors, (velocity,) in blocks(
            self._backend, layer, delta, inputs, self._velocities[index]
        ):
            self._update(part, errors, inputs, velocity)

    def _update(self, layer: Layer, delta: Array, inputs: Array, velocity: Memory) -> None:
        kept, left = self.momentum, self._left if self._shrinks else 1.0
        if self._shrinks:
            # A pass of its own, which weights without decay are spared.
            self._backend.axpby(layer.weights, velocity.weights, alpha=self._shrinking, beta=kept)
            kept = 1.0
        biased = layer.biases is not None
        if self.nesterov:
            # The gradient's step is nowhere by itself, but it is v - momentum v_old: the weights
            # get the second term while v_old is still there, and (1 + momentum) v afterwards.
            self._backend.axpby(velocity.weights, layer.weights, alpha=-kept, beta=left)
            if velocity.biases is not None and layer.biases is not None:
                self._backend.axpby(velocity.biases, layer.biases, alpha=-self.momentum, beta=1.0)
        add_gradient(
            self._backend,
            delta,
            inputs,
            velocity.weights,
            velocity.biases if biased else None,
            alpha=_factor(self._learning_rate, delta),
            beta=kept,
            beta_biases=self.momentum,
        )
        reach = 1.0 + self.momentum if self.nesterov else 1.0
        self._backend.axpby(velocity.weights, layer.weights, alpha=reach, beta=1.0)
        if velocity.biases is not None and layer.biases is not None:
            self._backend.axpby(velocity.biases, layer.biases, alpha=reach, beta=1.0)


def _factor(learning_rate: float | None, delta: Array) -> float:
    """Return what the product of a gradient is multiplied by; 1 if the deltas have it already."""
    return 1.0 if learning_rate is None else -learning_rate / delta.shape[0]


class OptimizerRecord(NamedTuple):
    """An optimizer that has a name.

    Attributes
    ----------
    make : callable
        ``make(momentum, weight_decay)`` returns a new one; it may have no use for either.
    default_learning_rate : float
        The step size to begin with where nobody says another.
    """

    make: Callable[[float, float], Optimizer]
    default_learning_rate: float


OPTIMIZERS = {
    "sgd": OptimizerRecord(
        lambda momentum, weight_decay: SGD(weight_decay), SGD.default_learning_rate
    ),
    "momentum": OptimizerRecord(
        lambda momentum, weight_decay: Momentum(momentum, False, weight_decay),
        Momentum.default_learning_rate,
    ),
    "nesterov": OptimizerRecord(
        lambda momentum, weight_decay: Momentum(momentum, True, weight_decay),
        Momentum.default_learning_rate,
    ),
    "adam": OptimizerRecord(
        lambda momentum, weight_decay: Adam(weight_decay=weight_decay), Adam.default_learning_rate
    ),
}
"""Every optimizer that has a name. Another entry is all that `gpunn.fit`, the command line and
parity need to know of an optimizer that is made of what devices can do already."""


def get_optimizer(name: str, *, momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Return a new optimizer by its name.

    Parameters
    ----------
    name : str
        A name in `OPTIMIZERS`.
    momentum : float
        For those that have one.
    weight_decay : float
        For all of them.

    Returns
    -------
    Optimizer
        The optimizer.

    Raises
    ------
    ParameterError
        If there is none of that name, or a number is outside its range.
    """
    return _record(name).make(momentum, weight_decay)


def default_learning_rate(optimizer: str | Optimizer) -> float:
    """Return the step size to begin with where nobody says another.

    Parameters
    ----------
    optimizer : str or Optimizer
        A name in `OPTIMIZERS`, or an optimizer.

    Returns
    -------
    float
        Its step size.

    Raises
    ------
    ParameterError
        If there is none of that name, or it has no such step size.
    """
    if not isinstance(optimizer, Optimizer):
        return _record(optimizer).default_learning_rate
    rate = optimizer.default_learning_rate
    if rate is None:
        raise ParameterError(
            f"expected a learning_rate, because {type(optimizer).__name__} has no default: give "
            "one, or give the class an attribute default_learning_rate"
        )
    return rate


def _record(name: str) -> OptimizerRecord:
    try:
        return OPTIMIZERS[name]
    except (KeyError, TypeError):
        raise ParameterError(
            f"unknown optimizer {name!r}: use one of {', '.join(OPTIMIZERS)}"
        ) from None
