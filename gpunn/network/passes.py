"""What a device has of its own for a network's steps: passes through layers, rounded weights.

Each thread has its own, as it has its own work arrays.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunn.backends.base import Array, Backend
from gpunn.backends.fused import FusedModel, HiddenPass, ThinTop
from gpunn.losses import Loss
from gpunn.network.layers import Layer, Step

MOST_KEPT = 8
"""Passes that a thread keeps; recordings keep those that they use themselves."""


class Passes(threading.local):
    """A thread's own ways of the device through layers, by the steps that they are for."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def all(self) -> list[Any]:
        """Return those that are kept."""
        return list(self._made.values())

    def hidden(
        self, backend: Backend, layer: Layer, index: int, n_rows: int, step: Step | None
    ) -> HiddenPass | None:
        """Return the way through a hidden layer, if the device has one that suits a step."""
        if step is None or step.fused is None or step.textbook:
            return None
        rule, rate = step.fused.rule, step.dropout_rate
        found: HiddenPass | None = self._get(
            (index, n_rows, rule, rate),
            [layer],
            lambda: backend.make_hidden_pass(n_rows, layer, rule, rate),
        )
        return found

    def top(
        self, backend: Backend, layers: Sequence[Layer], loss: Loss, n_rows: int, step: Step
    ) -> ThinTop | None:
        """Return the way through the two uppermost layers, likewise."""
        if step.fused is None or step.outputs is not None or step.textbook or len(layers) < 2:
            return None
        rule, rate = step.fused.rule, step.dropout_rate
        model = FusedModel(layers[-2], layers[-1], loss, textbook_rule=False)
        found: ThinTop | None = self._get(
            ("top", n_rows, rule, rate),
            layers[-2:],
            lambda: backend.make_thin_top(n_rows, model, rule, rate),
        )
        return found

    def _get(self, key: Any, layers: Sequence[Layer], make: Callable[[], Any]) -> Any:
        """Return what is kept for a key and these very arrays, or make it."""
        key = (*key, *(id(array) for layer in layers for array in layer[:2]))
        if key not in self._made:
            if len(self._made) >= MOST_KEPT * len(layers):
                del self._made[next(iter(self._made))]
            # The arrays stay beside it, so that no others get their numbers.
            self._made[key] = (make(), *layers)
        return self._made[key][0]


class Factors(threading.local):
    """Weights as products take them: themselves, or a thread's own rounded copies."""

    def __init__(self, backend: Backend, dtype: np.dtype[Any]) -> None:
        self._backend, self._dtype = backend, dtype
        self._copies: dict[int, Array] = {}

    def round(self, index: int, weights: Array) -> Array:
        """Return the weights of a layer, rounded anew, since they may have changed."""
        if weights.dtype == self._dtype:
            return weights
        if index not in self._copies:
            self._copies[index] = self._backend.empty(weights.shape, self._dtype)
        self._backend.copy_into(weights, self._copies[index])
        return self._copies[index]

    def last(self, index: int, weights: Array) -> Array:
        """Return what `round` has returned last."""
        return weights if weights.dtype == self._dtype else self._copies[index]

    def copies(self) -> list[Array]:
        """Return the rounded copies."""
        return list(self._copies.values())
