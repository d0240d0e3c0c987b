"""How a gradient changes the weights, and how the step size changes over time.

An optimizer gets each layer's `delta` and `inputs`, not its gradient: plain gradient descent then
needs no gradient at all, it accumulates ``-lr/n delta^T inputs`` into the weights in one matrix
product, and momentum accumulates it into the velocities. Only Adam, which squares the gradient,
computes it into a buffer, the size of the largest layer, that all layers share.

Weight decay adds ``weight_decay * W`` to the gradient of the weights; biases do not decay.

A schedule is a function of the time in epochs, which may be a fraction.

Sources: I. Sutskever et al., *On the importance of initialization and momentum in deep learning*
(2013); D. P. Kingma and J. Ba, *Adam* (2015); M. A. Nielsen, *Neural Networks and Deep Learning*
(2015), chapter 3; I. Loshchilov and F. Hutter, *SGDR* (2017) for the cosine.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.base import Array, Backend
from gpunn.errors import ParameterError
from gpunn.layers import Layer, add_gradient
from gpunn.network import Network


def _check_range(name: str, value: Any, low: float, high: float = math.inf) -> None:
    # bool is an int to Python, but nobody means it as a number.
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not number or not low <= value < high:
        until = "" if high == math.inf else f" and below {high:g}"
        raise ParameterError(f"{name} must be a number of at least {low:g}{until}, got {value!r}")


def _check_positive(name: str, value: Any) -> None:
    _check_range(name, value, 0.0)
    if value == 0:
        raise ParameterError(f"{name} must be above 0, got {value!r}")


class _Memory(NamedTuple):
    """What an optimizer remembers of one layer: arrays in the shapes of its parameters."""

    weights: Array
    biases: Array | None


def _new_memory(network: Network) -> list[_Memory]:
    """Return zeros for each layer."""

    def zeros(parameter: Array) -> Array:
        return network.backend.zeros(parameter.shape, network.dtype)

    return [
        _Memory(zeros(layer.weights), None if layer.biases is None else zeros(layer.biases))
        for layer in network.layers
    ]


def _named(kind: str, memories: list[_Memory]) -> dict[str, Array]:
    """Return memories by name, such as ``layers.0.weight.velocity``."""
    arrays = {}
    for index, memory in enumerate(memories):
        arrays[f"layers.{index}.weight.{kind}"] = memory.weights
        if memory.biases is not None:
            arrays[f"layers.{index}.bias.{kind}"] = memory.biases
    return arrays


def _largest_layer(network: Network) -> int:
    """Return how many weights the largest layer has."""
    return max(int(layer.weights.size) for layer in network.layers)


class Optimizer(ABC):
    """A rule that turns gradients into steps."""

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

    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_range("weight_decay", self.weight_decay, 0.0)

    def prepare(self, network: Network) -> None:
        self._backend: Backend = network.backend

    def state(self) -> dict[str, Array]:
        return {}

    def begin_step(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate

    def update(self, index: int, layer: Layer, delta: Array, inputs: Array) -> None:
        add_gradient(
            self._backend,
            delta,
            inputs,
            layer.weights,
            layer.biases,
            alpha=-self._learning_rate / delta.shape[0],
            beta=1.0 - self._learning_rate * self.weight_decay,
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

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_range("momentum", self.momentum, 0.0, 1.0)
        _check_range("weight_decay", self.weight_decay, 0.0)

    def extra_bytes(self, network: Network) -> int:
        return network.n_parameters * network.dtype.itemsize

    def prepare(self, network: Network) -> None:
        self._backend: Backend = network.backend
        self._velocities = _new_memory(network)

    def state(self) -> dict[str, Array]:
        return _named("velocity", self._velocities)

    def begin_step(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate

    def update(self, index: int, layer: Layer, delta: Array, inputs: Array) -> None:
        velocity = self._velocities[index]
        shrinking = self._learning_rate * self.weight_decay
        kept = self.momentum
        if shrinking != 0:
            # A pass of its own, which weights without decay are spared.
            self._backend.axpby(layer.weights, velocity.weights, alpha=-shrinking, beta=kept)
            kept = 1.0
        if self.nesterov:
            # The gradient's step is nowhere by itself, but it is v - momentum v_old: the weights
            # get the second term while v_old is still there, and (1 + momentum) v afterwards.
            self._backend.axpby(velocity.weights, layer.weights, alpha=-kept, beta=1.0 - shrinking)
            if velocity.biases is not None and layer.biases is not None:
                self._backend.axpby(velocity.biases, layer.biases, alpha=-self.momentum, beta=1.0)
        add_gradient(
            self._backend,
            delta,
            inputs,
            velocity.weights,
            velocity.biases,
            alpha=-self._learning_rate / delta.shape[0],
            beta=kept,
            beta_biases=self.momentum,
        )
        reach = 1.0 + self.momentum if self.nesterov else 1.0
        self._backend.axpby(velocity.weights, layer.weights, alpha=reach, beta=1.0)
        if velocity.biases is not None and layer.biases is not None:
            self._backend.axpby(velocity.biases, layer.biases, alpha=reach, beta=1.0)


@dataclass
class Adam(Optimizer):
    """Adam: steps scaled by running means of the gradient and of its square.

    ``m <- beta1 m + (1 - beta1) g``, ``v <- beta2 v + (1 - beta2) g^2``,
    ``w <- w - lr m' / (sqrt(v') + epsilon)`` with ``m' = m / (1 - beta1^t)`` and
    ``v' = v / (1 - beta2^t)`` at step t.

    Parameters
    ----------
    beta1, beta2 : float
        How slowly the two means forget, in [0, 1).
    epsilon : float
        Keeps the division finite.
    weight_decay : float
        Adds ``weight_decay w`` to the gradient of weights.

    Raises
    ------
    ParameterError
        If a number is outside its range.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_range("beta1", self.beta1, 0.0, 1.0)
        _check_range("beta2", self.beta2, 0.0, 1.0)
        _check_range("epsilon", self.epsilon, 0.0)
        _check_range("weight_decay", self.weight_decay, 0.0)

    def extra_bytes(self, network: Network) -> int:
        numbers = 2 * network.n_parameters + _largest_layer(network)
        return numbers * network.dtype.itemsize

    def prepare(self, network: Network) -> None:
        self._backend: Backend = network.backend
        self.n_steps = 0
        self._first, self._second = _new_memory(network), _new_memory(network)
        self._gradient = self._backend.empty((_largest_layer(network),), network.dtype)

    def state(self) -> dict[str, Array]:
        return _named("first", self._first) | _named("second", self._second)

    def begin_step(self, learning_rate: float) -> None:
        self.n_steps += 1
        # The device's m and v lack the factors 1 - beta, which saves it two operations. Here they
        # join the bias corrections: m' = share m, v' = root^2 v, and so m' / (sqrt(v') + epsilon)
        # is share / root m / (sqrt(v) + epsilon / root).
        share = (1 - self.beta1) / (1 - self.beta1**self.n_steps)
        root = math.sqrt((1 - self.beta2) / (1 - self.beta2**self.n_steps))
        self._step_size = learning_rate * share / root
        self._epsilon = self.epsilon / root

    def update(self, index: int, layer: Layer, delta: Array, inputs: Array) -> None:
        first, second = self._first[index], self._second[index]
        share = 1 / delta.shape[0]
        gradient = self._gradient[: layer.weights.size].reshape(layer.weights.shape)
        self._backend.gemm(delta, inputs, gradient, transpose_a=True, alpha=share)
        self._change(layer.weights, gradient, first.weights, second.weights, self.weight_decay)
        if layer.biases is not None and first.biases is not None and second.biases is not None:
            gradient = self._gradient[: layer.biases.size]
            self._backend.sum_rows(delta, gradient, alpha=share)
            self._change(layer.biases, gradient, first.biases, second.biases, 0.0)

    def _change(
        self, parameter: Array, gradient: Array, first: Array, second: Array, weight_decay: float
    ) -> None:
        self._backend.adam_update(
            parameter,
            gradient,
            first,
            second,
            step_size=self._step_size,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self._epsilon,
            weight_decay=weight_decay,
        )


class AdamEpsilonHat(Adam):
    """Adam in the shorter form of its authors' section 2, with another place for epsilon.

    ``w <- w - lr_t m / (sqrt(v) + epsilon)`` with
    ``lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t)``: epsilon is added before the means are corrected
    for their start from zero. It is the form that scikit-learn has.
    """

    def begin_step(self, learning_rate: float) -> None:
        self.n_steps += 1
        # As in `Adam`, the device's m and v lack the factors 1 - beta.
        root = math.sqrt(1 - self.beta2)
        rate = math.sqrt(1 - self.beta2**self.n_steps) / (1 - self.beta1**self.n_steps)
        self._step_size = learning_rate * rate * (1 - self.beta1) / root
        self._epsilon = self.epsilon / root


OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam")


def get_optimizer(name: str, *, momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Return a new optimizer by its name.

    Parameters
    ----------
    name : {"sgd", "momentum", "nesterov", "adam"}
        Which.
    momentum : float
        For "momentum" and "nesterov".
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
    if name == "sgd":
        return SGD(weight_decay=weight_decay)
    if name in ("momentum", "nesterov"):
        return Momentum(momentum, nesterov=name == "nesterov", weight_decay=weight_decay)
    if name == "adam":
        return Adam(weight_decay=weight_decay)
    raise ParameterError(f"unknown optimizer {name!r}: use one of {', '.join(OPTIMIZERS)}")


Shape = Callable[[float], float]


@dataclass(frozen=True)
class Schedule:
    """A step size as a function of the time: ``lr(t) = learning_rate * warm(t) * shape(t)``.

    ``t`` is in epochs. The shapes start at 1; make schedules with `constant`, `step_decay`,
    `exponential_decay`, `inverse_scaling` and `cosine`.

    Parameters
    ----------
    learning_rate : float
        The step size at the start, above 0.
    shape : callable
        ``shape(t)``, a factor.
    warmup : float
        Over so many epochs the step size rises linearly from 0 to its place.

    Raises
    ------
    ParameterError
        If a number is outside its range.
    """

    learning_rate: float
    shape: Shape = field(default=lambda t: 1.0, repr=False)
    warmup: float = 0.0

    def __post_init__(self) -> None:
        _check_positive("learning_rate", self.learning_rate)
        _check_range("warmup", self.warmup, 0.0)

    def __call__(self, t: float) -> float:
        """Return the step size at time `t`, in epochs."""
        rate = float(self.learning_rate) * self.shape(t)
        return rate * t / self.warmup if t < self.warmup else rate


def constant(learning_rate: float, *, warmup: float = 0.0) -> Schedule:
    """Return the schedule that stays at `learning_rate`."""
    return Schedule(learning_rate, warmup=warmup)


def step_decay(
    learning_rate: float, *, every: float, factor: float = 0.1, warmup: float = 0.0
) -> Schedule:
    """Return the schedule ``learning_rate * factor^floor(t / every)``; `every` is in epochs."""
    _check_range("factor", factor, 0.0)
    _check_positive("every", every)
    return Schedule(learning_rate, lambda t: float(factor ** math.floor(t / every)), warmup)


def exponential_decay(learning_rate: float, *, factor: float, warmup: float = 0.0) -> Schedule:
    """Return the schedule ``learning_rate * factor^t``: an epoch multiplies it by `factor`."""
    _check_range("factor", factor, 0.0)
    return Schedule(learning_rate, lambda t: float(factor**t), warmup)


def inverse_scaling(learning_rate: float, *, power: float = 0.5, warmup: float = 0.0) -> Schedule:
    """Return the schedule ``learning_rate / (1 + t)^power``."""
    _check_range("power", power, 0.0)
    return Schedule(learning_rate, lambda t: float((1 + t) ** -power), warmup)


def cosine(
    learning_rate: float, *, epochs: float, minimum: float = 0.0, warmup: float = 0.0
) -> Schedule:
    """Return half a cosine from `learning_rate` down to `minimum` at time `epochs`."""
    _check_positive("learning_rate", learning_rate)
    _check_positive("epochs", epochs)
    _check_range("minimum", minimum, 0.0)
    floor = float(minimum) / float(learning_rate)

    def shape(t: float) -> float:
        wave = 0.5 * (1 + math.cos(math.pi * min(t / epochs, 1.0)))
        return floor + (1 - floor) * wave

    return Schedule(learning_rate, shape, warmup)
