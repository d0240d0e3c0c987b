"""Adam, which scales each step by running means of the gradient and of its square.

It squares the gradient, and so computes it into a buffer, the size of the largest layer, that all
layers share.

Source: D. P. Kingma and J. Ba, *Adam* (2015).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpunn.backends.base import AdamStep, Array, Backend, Number
from gpunn.backends.fused import UpdateRule
from gpunn.network import Network
from gpunn.network.layers import Layer
from gpunn.optimizer_base import (
    LayerMemories,
    Memory,
    Optimizer,
    blocks,
    largest_layer,
    memories_of,
    named,
    new_memory,
)
from gpunn.ranges import check_range


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

    default_learning_rate: ClassVar[float] = 0.001

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_range("beta1", self.beta1, 0.0, 1.0)
        check_range("beta2", self.beta2, 0.0, 1.0)
        check_range("epsilon", self.epsilon, 0.0)
        check_range("weight_decay", self.weight_decay, 0.0)

    def extra_bytes(self, network: Network) -> int:
        numbers = 2 * network.n_held + largest_layer(network)
        return numbers * network.dtype.itemsize

    def prepare(self, network: Network) -> None:
        self._backend: Backend = network.backend
        self.n_steps = 0
        self._first, self._second = new_memory(network), new_memory(network)
        self._gradient = self._backend.empty((largest_layer(network),), network.dtype)

    def state(self) -> dict[str, Array]:
        return named("first", self._first) | named("second", self._second)

    def begin_step(self, learning_rate: float) -> None:
        self.n_steps += 1
        self._scaled, self._step = False, self._numbers(learning_rate, self.n_steps)

    def _numbers(self, learning_rate: Any, step: Any) -> AdamStep:
        size, epsilon = self._size_and_epsilon(learning_rate, step)
        return AdamStep(size, self.beta1, self.beta2, epsilon, self.weight_decay)

    def _size_and_epsilon(self, learning_rate: Any, step: Any) -> tuple[Any, Any]:
        """Return what the quotient of the sums is multiplied by, and what keeps it finite.

        The device's m and v lack the factors 1 - beta, which saves it two operations. Here they
        join the bias corrections: m' = share m, v' = root^2 v, and so m' / (sqrt(v') + epsilon) is
        share / root m / (sqrt(v) + epsilon / root).
        """
        share = (1 - self.beta1) / (1 - self.beta1**step)
        root = _sqrt((1 - self.beta2) / (1 - self.beta2**step))
        return learning_rate * share / root, self.epsilon / root

    rule = UpdateRule(
        2,
        "const T s = decays ? n[5] * w + g : g; m[0] = n[2] * m[0] + s; "
        "m[1] = n[3] * m[1] + s * s; w -= n[1] * (m[0] / (sqrt(m[1]) + n[4]));",
    )

    def step_numbers(self, learning_rate: Any, n_rows: Any, step: Any) -> tuple[Any, ...]:
        return 1 / n_rows, *self._numbers(learning_rate, step)

    def begin_recorded_step(self, numbers: Sequence[Number]) -> None:
        self._scaled, self._step = True, AdamStep(*numbers[1:])

    def memories(self, index: int) -> LayerMemories:
        return memories_of(index, self._first, self._second)

    def update(self, index: int, layer: Layer, delta: Array, inputs: Array) -> None:
        of_layer = self._first[index], self._second[index]
        for part, errors, memories in blocks(self._backend, layer, delta, inputs, *of_layer):
            self._update(part, errors, inputs, *memories)

    def _update(
        self, layer: Layer, delta: Array, inputs: Array, first: Memory, second: Memory
    ) -> None:
        backend, step = self._backend, self._step
        share = 1.0 if self._scaled else 1 / delta.shape[0]
        gradient = self._gradient[: layer.weights.size].reshape(layer.weights.shape)
        backend.gemm(delta, inputs, gradient, transpose_a=True, alpha=share)
        backend.adam_update(layer.weights, gradient, first.weights, second.weights, step)
        if layer.biases is not None and first.biases is not None and second.biases is not None:
            gradient = self._gradient[: layer.biases.size]
            backend.sum_rows(delta, gradient, alpha=share)
            step = step._replace(weight_decay=0.0)
            backend.adam_update(layer.biases, gradient, first.biases, second.biases, step)


class AdamEpsilonHat(Adam):
    """Adam in the shorter form of its authors' section 2, with another place for epsilon.

    ``w <- w - lr_t m / (sqrt(v) + epsilon)`` with
    ``lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t)``: epsilon is added before the means are corrected
    for their start from zero. It is the form that scikit-learn has.
    """

    def _size_and_epsilon(self, learning_rate: Any, step: Any) -> tuple[Any, Any]:
        # As in `Adam`, the device's m and v lack the factors 1 - beta.
        root = math.sqrt(1 - self.beta2)
        rate = _sqrt(1 - self.beta2**step) / (1 - self.beta1**step)
        return learning_rate * rate * (1 - self.beta1) / root, self.epsilon / root

    def step_numbers(self, learning_rate: Any, n_rows: Any, step: Any) -> tuple[Any, ...]:
        # Said again here, because a class must say for itself that its steps can be recorded.
        return super().step_numbers(learning_rate, n_rows, step)


def _sqrt(x: Any) -> Any:
    """Return the root of a number or of an array; of the former in a tenth of NumPy's time."""
    return math.sqrt(x) if isinstance(x, float) else np.sqrt(x)
