"""What a device has of its own for a network's steps: passes through layers, rounded weights.

Each thread has its own, as it has its own work arrays.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.backends.base import Array, Backend
from gpunn.backends.fused import FusedModel, HiddenPass, ThinTop, UpdateRule
from gpunn.losses import Loss
from gpunn.network.layers import Layer, Step


class Passes(threading.local):
    """A thread's own ways of the device through layers, by the steps that they are for."""

    def __init__(self) -> None:
        self._top: dict[tuple[int, UpdateRule, float], ThinTop | None] = {}
        self._hidden: dict[tuple[int, int, UpdateRule, float], HiddenPass | None] = {}

    def all(self) -> list[Any]:
        """Return all that have been made."""
        return [*self._top.values(), *self._hidden.values()]

    def hidden(
        self, backend: Backend, layer: Layer, index: int, n_rows: int, step: Step | None
    ) -> HiddenPass | None:
        """Return the way through a hidden layer, if the device has one that suits a step."""
        if step is None or step.fused is None or step.textbook:
            return None
        key = (index, n_rows, step.fused.rule, step.dropout_rate)
        if key not in self._hidden:
            self._hidden[key] = backend.make_hidden_pass(n_rows, layer, *key[2:])
        return self._hidden[key]

    def top(
        self, backend: Backend, layers: Sequence[Layer], loss: Loss, n_rows: int, step: Step
    ) -> ThinTop | None:
        """Return the way through the two uppermost layers, likewise."""
        fused = step.fused
        if fused is None or step.outputs is not None or step.textbook or len(layers) < 2:
            return None
        key = (n_rows, fused.rule, step.dropout_rate)
        if key not in self._top:
            model = FusedModel(layers[-2], layers[-1], loss, textbook_rule=False)
            self._top[key] = backend.make_thin_top(n_rows, model, *key[1:])
        return self._top[key]


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
